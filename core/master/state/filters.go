package state

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// How long a framework may refuse resources.
const (
	defaultRefuse = 5 * time.Second
	maxRefuse     = 365 * 24 * time.Hour
)

// refuseTime is what a framework's filters mean.
func refuseTime(f *mezzov1.Filters) time.Duration {
	if f == nil || f.RefuseSeconds == nil {
		return defaultRefuse
	}
	s := f.GetRefuseSeconds()
	switch {
	case math.IsNaN(s) || s < 0:
		return defaultRefuse
	case s > maxRefuse.Seconds():
		return maxRefuse
	}
	return time.Duration(s * float64(time.Second))
}

// filterKey is whose filters on an agent.
type filterKey struct{ framework, role string }

// filter says that a framework does not want these resources of an agent, or a
// part of them, for a while. The allocator keeps to it; the master keeps it so
// that the next allocator can.
type filter struct {
	key       filterKey
	framework *framework
	agent     *agent
	resources resource.Resources
	// refused is how long the framework asked for, until how long min_refuse
	// makes it last at least. Past refused it is soft.
	refused, until time.Time
	next           *filter // of the same key on the same agent
	before, after  *filter // of the same framework
	place          int     // in the heap of filters, from 1
}

// maxFilters bounds the filters of one framework in one role on one agent; the
// oldest go first.
const maxFilters = 16

// addFilter keeps what a framework refused. Older filters that say less are
// dropped.
func (m *Machine) addFilter(f *framework, a *agent, role string, res resource.Resources, refuse time.Duration, declined bool) {
	until := m.now.Add(refuse)
	if declined {
		until = m.now.Add(max(refuse, m.cfg.MinRefuse))
	}
	if !until.After(m.now) || res.IsEmpty() {
		return
	}
	key := filterKey{f.id, role}
	count := 0
	for x := a.filters[key]; x != nil; {
		next := x.next
		if res.Contains(x.resources) && !x.until.After(until) && !x.refused.After(m.now.Add(refuse)) {
			m.dropFilter(x)
		} else if count++; count >= maxFilters {
			m.dropFilter(x)
		}
		x = next
	}
	x := &filter{key: key, framework: f, agent: a, resources: res, refused: m.now.Add(refuse), until: until, next: a.filters[key]}
	a.filters[key] = x
	if x.after = f.filters; x.after != nil {
		x.after.before = x
	}
	f.filters = x
	m.filters.push(x)
}

func (m *Machine) dropFilter(x *filter) {
	if head := x.agent.filters[x.key]; head == x {
		if x.next == nil {
			delete(x.agent.filters, x.key)
		} else {
			x.agent.filters[x.key] = x.next
		}
	} else {
		for ; head.next != x; head = head.next {
		}
		head.next = x.next
	}
	if x.before != nil {
		x.before.after = x.after
	} else {
		x.framework.filters = x.after
	}
	if x.after != nil {
		x.after.before = x.before
	}
	m.filters.remove(x)
}

// dropFilters drops all filters on an agent.
func (m *Machine) dropFilters(a *agent) {
	for _, head := range a.filters {
		for x := head; x != nil; {
			next := x.next
			m.dropFilter(x)
			x = next
		}
	}
}

// dropFrameworkFilters drops a framework's filters in the roles; nil: in all.
func (m *Machine) dropFrameworkFilters(f *framework, roles []string) {
	for x := f.filters; x != nil; {
		next := x.after
		if roles == nil || slices.Contains(roles, x.key.role) {
			m.dropFilter(x)
		}
		x = next
	}
}

// expireFilters drops what time has made void.
func (m *Machine) expireFilters() {
	for len(m.filters) > 0 && !m.filters[0].until.After(m.now) {
		m.dropFilter(m.filters[0])
	}
}

// filtersOn returns the filters on an agent in a fixed order.
func (m *Machine) filtersOn(a *agent) []*filter {
	var out []*filter
	for _, head := range a.filters {
		for x := head; x != nil; x = x.next {
			out = append(out, x)
		}
	}
	slices.SortStableFunc(out, func(x, y *filter) int {
		if c := strings.Compare(x.key.framework, y.key.framework); c != 0 {
			return c
		}
		return strings.Compare(x.key.role, y.key.role)
	})
	return out
}

// filterHeap is a binary heap, the first to expire at the front.
type filterHeap []*filter

func (h filterHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

func (h filterHeap) up(i int) {
	for i > 0 && h[i].until.Before(h[(i-1)/2].until) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h filterHeap) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(h) && h[child].until.Before(h[least].until) {
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

func (h *filterHeap) push(x *filter) {
	*h = append(*h, x)
	x.place = len(*h)
	h.up(x.place - 1)
}

func (h *filterHeap) remove(x *filter) {
	i, last := x.place-1, len(*h)-1
	if i != last {
		h.swap(i, last)
	}
	(*h)[last] = nil
	*h = (*h)[:last]
	x.place = 0
	if i < last {
		h.up(i)
		h.down(i)
	}
}
