package sim

import (
	"container/heap"
	"time"
)

// event is something that will happen. Events of one time happen in the order
// in which they were planned.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].seq < q[j].seq
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return last
}

// at plans something; a time that has passed means now.
func (w *world) at(at time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{max(at, w.now), w.seq, do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now+d, do) }

// maxIdle is how many events may happen at one time before the world is held to
// turn in a circle.
const maxIdle = 100_000

// until lets everything happen that is planned before end.
func (w *world) until(end time.Duration) {
	for w.failure == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.idle++
		if e.at > w.now {
			w.now, w.idle = e.at, 0
		}
		if w.idle > maxIdle {
			w.fail(w.lastSubjects(), "%d events at one time: somebody asks for the same moment again and again", w.idle)
			return
		}
		w.step++
		e.do()
	}
	if w.failure == nil {
		w.now, w.idle = max(w.now, end), 0
	}
}

// between is a random duration in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)))
}

// chance is true with the probability p.
func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// pick is a random number below n.
func (w *world) pick(n int) int { return w.rng.IntN(n) }

// exponential is a random time whose mean is given, at most eight times that.
func (w *world) exponential(mean time.Duration) time.Duration {
	return time.Duration(min(w.rng.ExpFloat64(), 8) * float64(mean))
}
