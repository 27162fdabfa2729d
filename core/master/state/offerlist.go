package state

import (
	"slices"
	"strconv"
)

// offerList has the outstanding offers in the order in which they were made.
// Serial numbers and decision numbers both rise in it, so that it is searched
// by either, and what was taken out is closed up when it is half of the list.
type offerList struct {
	entries []offerEntry
	taken   int // entries without an offer
}

type offerEntry struct {
	serial, decision uint64
	offer            *offer // nil: taken out
}

func (l *offerList) len() int { return len(l.entries) - l.taken }

func (l *offerList) add(o *offer) {
	l.entries = append(l.entries, offerEntry{o.serial, o.decision, o})
}

// at is where the serial number is, or would be.
func (l *offerList) at(serial uint64) int {
	// As a rule few were taken out before it.
	if len(l.entries) > 0 && serial >= l.entries[0].serial {
		if i := serial - l.entries[0].serial; i < uint64(len(l.entries)) && l.entries[i].serial == serial {
			return int(i)
		}
	}
	i, _ := slices.BinarySearchFunc(l.entries, serial, func(e offerEntry, n uint64) int { return compareNumbers(e.serial, n) })
	return i
}

// compareNumbers is cmp.Compare, which does more for the sake of floats.
func compareNumbers(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// bySerial returns the outstanding offer with the number, or nil.
func (l *offerList) bySerial(serial uint64) *offer {
	if i := l.at(serial); i < len(l.entries) && l.entries[i].serial == serial {
		return l.entries[i].offer
	}
	return nil
}

// byDecision returns the outstanding offer that the decision made, or nil.
func (l *offerList) byDecision(number uint64) *offer {
	i, found := slices.BinarySearchFunc(l.entries, number, func(e offerEntry, n uint64) int { return compareNumbers(e.decision, n) })
	if !found {
		return nil
	}
	return l.entries[i].offer
}

func (l *offerList) remove(o *offer) {
	i := l.at(o.serial)
	if i == len(l.entries) || l.entries[i].offer != o {
		return
	}
	l.entries[i].offer = nil
	if l.taken++; 2*l.taken > len(l.entries) {
		l.entries = slices.DeleteFunc(l.entries, func(e offerEntry) bool { return e.offer == nil })
		l.taken = 0
	}
}

// all returns the outstanding offers, in order.
func (l *offerList) all() []*offer {
	out := make([]*offer, 0, l.len())
	for _, e := range l.entries {
		if e.offer != nil {
			out = append(out, e.offer)
		}
	}
	return out
}

// offer returns the outstanding offer of an id, or nil.
func (m *Machine) offer(id string) *offer {
	n := len(m.offerPrefix)
	if len(id) <= n || id[:n] != m.offerPrefix {
		return nil
	}
	serial, err := strconv.ParseUint(id[n:], 10, 64)
	if err != nil {
		return nil
	}
	if o := m.offers.bySerial(serial); o != nil && o.id == id {
		return o
	}
	return nil
}
