// Package calibrate times a fixed load on processor and memory, so that
// figures of different days and machines can be brought onto one scale: divide
// one calibration by the other. The load must never change.
package calibrate

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sort"
	"strconv"
	"syscall"
)

// Baseline is what a calibration was, in processor seconds, when Mesos's own
// allocator was measured.
const Baseline = 2.11

// rng is a 64-bit xorshift generator: the same on every version of Go.
type rng uint64

func (r *rng) next() uint64 {
	x := uint64(*r)
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = rng(x)
	return x
}

// A part prepares its input and returns what is timed, which returns a number
// so that none of it can be optimised away.
type part func() func() uint64

// sorting sorts a million numbers.
func sorting() func() uint64 {
	const n = 1_000_000
	r := rng(88172645463325252)
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(r.next()>>11) / (1 << 53)
	}
	return func() uint64 {
		sort.Float64s(v)
		return uint64(v[n/2] * 1e6)
	}
}

// mapping puts a million strings into a map and looks each up.
func mapping() func() uint64 {
	const n = 1_000_000
	r := rng(1442695040888963407)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "agent-" + strconv.FormatUint(r.next(), 16)
	}
	return func() (sum uint64) {
		m := map[string]int{}
		for i, k := range keys {
			m[k] = i
		}
		for _, k := range keys {
			sum += uint64(m[k])
		}
		return sum
	}
}

// chasing follows five million pointers through 32 MiB.
func chasing() func() uint64 {
	const n = 8 << 20
	r := rng(2862933555777941757)
	next := make([]uint32, n)
	for i := range next {
		next[i] = uint32(i)
	}
	// Sattolo's shuffle: one cycle through all.
	for i := n - 1; i > 0; i-- {
		j := int(r.next() % uint64(i))
		next[i], next[j] = next[j], next[i]
	}
	return func() uint64 {
		p := uint32(0)
		for range 5_000_000 {
			p = next[p]
		}
		return uint64(p)
	}
}

// counting steps the generator two hundred million times.
func counting() func() uint64 {
	return func() uint64 {
		r := rng(3202034522624059733)
		for range 200_000_000 {
			r.next()
		}
		return uint64(r)
	}
}

// Run returns the processor seconds of the whole load, the median of so many
// rounds. It takes about two seconds a round.
func Run(rounds int) (float64, error) {
	var totals []float64
	for range rounds {
		total := 0.0
		for _, prepare := range []part{sorting, mapping, chasing, counting} {
			run := prepare()
			runtime.GC()
			old := debug.SetGCPercent(-1)
			before, err := processorTime()
			if err != nil {
				return 0, err
			}
			sum := run()
			after, err := processorTime()
			debug.SetGCPercent(old)
			if err != nil {
				return 0, err
			}
			runtime.KeepAlive(sum)
			total += after - before
		}
		totals = append(totals, total)
	}
	slices.Sort(totals)
	return totals[len(totals)/2], nil
}

func processorTime() (float64, error) {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0, fmt.Errorf("calibrate: getrusage: %w", err)
	}
	return float64(use.Utime.Sec+use.Stime.Sec) + float64(use.Utime.Usec+use.Stime.Usec)/1e6, nil
}
