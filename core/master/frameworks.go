package master

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// tallies are what each framework did and was told since this master first knew
// of it. A framework's tally goes when it is completed, so that there are as many
// as there are live frameworks. Safe for concurrent use.
type tallies struct {
	mu sync.RWMutex
	of map[string]*tally
}

// tally are a framework's counts; those of types and states by their number.
type tally struct {
	calls, events, operations, ended [64]atomic.Uint64
	// Offers, or for accepted and declined those that calls named.
	sent, accepted, declined, rescinded atomic.Uint64
}

func newTallies() *tallies { return &tallies{of: map[string]*tally{}} }

// find returns a live framework's tally; nil when it is not known.
func (t *tallies) find(framework string) *tally {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.of[framework]
}

// begin returns the tally of a framework that lives.
func (t *tallies) begin(framework string) *tally {
	if x := t.find(framework); x != nil {
		return x
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.of[framework]
	if x == nil {
		x = &tally{}
		t.of[framework] = x
	}
	return x
}

func (t *tallies) end(framework string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, framework)
}

// clear forgets all: the term is over.
func (t *tallies) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.of)
}

// published follows which frameworks live.
func (t *tallies) published(p *state.Publish) {
	for _, f := range p.Frameworks {
		if f.State == state.FrameworkCompleted {
			t.end(f.ID)
		} else {
			t.begin(f.ID)
		}
	}
	for _, id := range p.FrameworksRemoved {
		t.end(id)
	}
}

// call counts what a framework asks for. A tally that is nil counts nothing, here
// and below.
func (t *tally) call(c *schedulerv1.Call) {
	if t == nil {
		return
	}
	bump(&t.calls, int32(c.GetType()))
	switch c.GetType() {
	case schedulerv1.Call_ACCEPT:
		t.accepted.Add(uint64(len(c.GetAccept().GetOfferIds())))
		for _, op := range c.GetAccept().GetOperations() {
			bump(&t.operations, int32(op.GetType()))
		}
	case schedulerv1.Call_DECLINE:
		t.declined.Add(uint64(len(c.GetDecline().GetOfferIds())))
	}
}

func (t *tally) event(e *schedulerv1.Event) {
	if t == nil {
		return
	}
	bump(&t.events, int32(e.GetType()))
	switch e.GetType() {
	case schedulerv1.Event_OFFERS:
		t.sent.Add(offersIn(e))
	case schedulerv1.Event_RESCIND:
		t.rescinded.Add(1)
	case schedulerv1.Event_UPDATE:
		if s := e.GetUpdate().GetStatus(); refused(s) {
			t.end(s.GetState())
		}
	}
}

// end counts a task that ended.
func (t *tally) end(s mezzov1.TaskState) {
	if t != nil {
		bump(&t.ended, int32(s))
	}
}

func bump(counts *[64]atomic.Uint64, number int32) {
	if number >= 0 && int(number) < len(counts) {
		counts[number].Add(1)
	}
}

// offersIn is how many offers an event has, which the machine encoded: see
// state.SendOffers.
func offersIn(e *schedulerv1.Event) uint64 {
	n := uint64(len(e.GetOffers().GetOffers()))
	encoded := e.ProtoReflect().GetUnknown()
	_, _, head := protowire.ConsumeTag(encoded)
	if head < 0 {
		return n
	}
	for list, _ := protowire.ConsumeBytes(encoded[head:]); len(list) > 0; n++ {
		_, _, size := protowire.ConsumeField(list)
		if size < 0 {
			break
		}
		list = list[size:]
	}
	return n
}

var (
	frameworkCallsDesc = prometheus.NewDesc("mezzo_master_framework_calls_total",
		"Calls of a live framework, by type.", []string{"framework", "type"}, nil)
	frameworkEventsDesc = prometheus.NewDesc("mezzo_master_framework_events_total",
		"Events that a live framework was sent, by type.", []string{"framework", "type"}, nil)
	frameworkOffersDesc = prometheus.NewDesc("mezzo_master_framework_offers_total",
		"Offers that a live framework was sent, named in ACCEPT or DECLINE, or that were taken back.", []string{"framework", "outcome"}, nil)
	frameworkOperationsDesc = prometheus.NewDesc("mezzo_master_framework_operations_total",
		"Operations that a live framework asked for, by type.", []string{"framework", "type"}, nil)
	frameworkEndsDesc = prometheus.NewDesc("mezzo_master_framework_tasks_ended_total",
		"Tasks of a live framework that have ended or never came to be, by their last state.", []string{"framework", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (t *tallies) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{frameworkCallsDesc, frameworkEventsDesc, frameworkOffersDesc, frameworkOperationsDesc, frameworkEndsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector. What is 0 is left out.
func (t *tallies) Collect(out chan<- prometheus.Metric) {
	t.mu.RLock()
	all := maps.Clone(t.of)
	t.mu.RUnlock()
	for id, x := range all {
		one := func(d *prometheus.Desc, n uint64, label string) {
			if n > 0 {
				out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), id, label)
			}
		}
		each := func(d *prometheus.Desc, counts *[64]atomic.Uint64, names map[int32]string) {
			for number, name := range names {
				if int(number) < len(counts) {
					one(d, counts[number].Load(), strings.ToLower(name))
				}
			}
		}
		each(frameworkCallsDesc, &x.calls, schedulerv1.Call_Type_name)
		each(frameworkEventsDesc, &x.events, schedulerv1.Event_Type_name)
		each(frameworkOperationsDesc, &x.operations, mezzov1.Offer_Operation_Type_name)
		each(frameworkEndsDesc, &x.ended, mezzov1.TaskState_name)
		one(frameworkOffersDesc, x.sent.Load(), "sent")
		one(frameworkOffersDesc, x.accepted.Load(), "accepted")
		one(frameworkOffersDesc, x.declined.Load(), "declined")
		one(frameworkOffersDesc, x.rescinded.Load(), "rescinded")
	}
}
