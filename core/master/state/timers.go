package state

import "time"

// timer is one deadline. It lives inside what it is about, so that setting it
// allocates nothing. The zero value with fire set is a timer that is not set.
type timer struct {
	at    time.Time
	order uint64 // of setting: equal times fire in the order they were set
	place int    // in the heap, from 1; 0: not set
	fire  func()
}

func (t *timer) set() bool { return t.place != 0 }

// timerHeap is a binary heap of set timers, the earliest first.
type timerHeap struct {
	list  []*timer
	order uint64
}

func (h *timerHeap) before(i, j int) bool {
	a, b := h.list[i], h.list[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	return a.order < b.order
}

func (h *timerHeap) swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.list[i].place, h.list[j].place = i+1, j+1
}

func (h *timerHeap) up(i int) {
	for i > 0 && h.before(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h *timerHeap) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h.list) && h.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

// schedule sets the timer, again if it was set.
func (h *timerHeap) schedule(t *timer, at time.Time) {
	h.cancel(t)
	h.order++
	t.at, t.order = at, h.order
	h.list = append(h.list, t)
	t.place = len(h.list)
	h.up(t.place - 1)
}

// cancel unsets the timer; one that is not set is left alone.
func (h *timerHeap) cancel(t *timer) {
	if !t.set() {
		return
	}
	i, last := t.place-1, len(h.list)-1
	if i != last {
		h.swap(i, last)
	}
	h.list[last] = nil
	h.list = h.list[:last]
	t.place = 0
	if i < last {
		h.up(i)
		h.down(i)
	}
}

// due unsets and returns the first timer whose time has come; nil if none has.
func (h *timerHeap) due(now time.Time) *timer {
	if len(h.list) == 0 || h.list[0].at.After(now) {
		return nil
	}
	t := h.list[0]
	h.cancel(t)
	return t
}

// next is the earliest time that is set.
func (h *timerHeap) next() (time.Time, bool) {
	if len(h.list) == 0 {
		return time.Time{}, false
	}
	return h.list[0].at, true
}

// after sets the timer a duration from now.
func (m *Machine) after(t *timer, d time.Duration) { m.timers.schedule(t, m.now.Add(d)) }

// fireTimers runs every timer that was due before the step began. What they
// set anew, even for this very moment, waits for the next step, so that a step
// always ends.
func (m *Machine) fireTimers() {
	last := m.timers.order
	for {
		t := m.timers.due(m.now)
		if t == nil {
			return
		}
		if t.order > last {
			m.timers.list = append(m.timers.list, t)
			t.place = len(m.timers.list)
			m.timers.up(t.place - 1)
			return
		}
		t.fire()
	}
}
