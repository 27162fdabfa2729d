package legacy

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Number is one of the numbers of the machine.
type Number struct {
	Name  string
	Value float64
	Whole bool
}

// System are the numbers of the machine, as far as its kernel tells them.
func System() []Number {
	var load [3]float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		for i, field := range strings.Fields(string(text)) {
			if i < len(load) {
				load[i], _ = strconv.ParseFloat(field, 64)
			}
		}
	}
	total, free := memory()
	return []Number{
		{"avg_load_15min", load[2], false}, {"avg_load_1min", load[0], false}, {"avg_load_5min", load[1], false},
		{"cpus_total", float64(runtime.NumCPU()), true}, {"mem_free_bytes", free, true}, {"mem_total_bytes", total, true},
	}
}

func memory() (total, free float64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "MemTotal" && name != "MemFree" {
			continue
		}
		kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		if name == "MemTotal" {
			total = kib * 1024
		} else {
			free = kib * 1024
		}
	}
	return total, free
}

// units of durations, as Mesos writes them.
var units = []struct {
	name string
	size time.Duration
}{
	{"weeks", 7 * 24 * time.Hour}, {"days", 24 * time.Hour}, {"hrs", time.Hour}, {"mins", time.Minute}, {"secs", time.Second},
	{"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond},
}

// ParseDuration reads a duration as Mesos writes it: "10mins", "1.5secs".
func ParseDuration(s string) (time.Duration, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	for _, u := range units {
		if u.name != s[len(digits):] {
			continue
		}
		v, err := strconv.ParseFloat(digits, 64)
		if out := v * float64(u.size); err == nil && out >= 0 && out < 1<<63 {
			return time.Duration(out), nil
		}
	}
	return 0, fmt.Errorf("invalid duration '%s': it is a number and one of ns, us, ms, secs, mins, hrs, days, weeks, such as 10secs", s)
}
