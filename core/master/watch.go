package master

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// watchQueue and detailQueue bound what waits for one watcher, in bytes. Who
// wants all details has more to read when ten thousand agents register at once.
const (
	watchQueue  = 16 << 20
	detailQueue = 64 << 20
)

// watchBatch is about how large a batch of events is, in bytes.
const watchBatch = 128 << 10

// wants is what a watcher asked for.
type wants struct {
	detail     bool // all that is known of each object
	operations bool // operations too
}

// parcel is the events that a change became, shared by all watchers that want
// the same.
type parcel struct {
	events []*operatorv1.WatchEvent
	sizes  []int // in bytes
	size   int
}

func newParcel(c *change, first uint64, want wants) *parcel {
	p := &parcel{}
	number := first
	for _, event := range eventsOf(c) {
		if e := event(want); e != nil {
			e.Number = number
			n := proto.Size(e) + eventFrame
			p.events, p.sizes = append(p.events, e), append(p.sizes, n)
			p.size += n
		}
		number++
	}
	return p
}

// watcher is one who keeps a mirror of the mirror. Events wait here while the
// snapshot is being sent.
type watcher struct {
	want    wants
	mu      sync.Mutex
	parcels []*parcel
	bytes   int
	wake    chan struct{}
	once    sync.Once
	over    chan struct{} // closed when why is set
	why     error
}

func newWatcher(want wants) *watcher {
	return &watcher{want: want, wake: make(chan struct{}, 1), over: make(chan struct{})}
}

// push queues events, or returns why the watcher has to be cut.
func (w *watcher) push(p *parcel) error {
	limit := watchQueue
	if w.want.detail {
		limit = detailQueue
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes > 0 && w.bytes+p.size > limit {
		return fmt.Errorf("%w: the watcher reads too slowly, more than %d MiB wait for it; watch again", rpc.ErrExhausted, limit>>20)
	}
	w.parcels = append(w.parcels, p)
	w.bytes += p.size
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// take returns the oldest parcel; nil: nothing waits.
func (w *watcher) take() *parcel {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.parcels) == 0 {
		w.parcels = nil
		return nil
	}
	p := w.parcels[0]
	w.parcels[0] = nil
	w.parcels = w.parcels[1:]
	w.bytes -= p.size
	return p
}

func (w *watcher) cut(why error) {
	w.once.Do(func() {
		w.why = why
		close(w.over)
	})
}

// Watch sends the mirror as it is, then what changes, until the watcher ends
// or is cut.
func (s *operatorService) Watch(q *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	ctx := stream.Context()
	if err := s.master.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return err
	}
	if _, err := s.master.leading(); err != nil {
		return err
	}
	w := newWatcher(wants{detail: q.GetDetail(), operations: q.GetDetail() || q.GetOperations()})
	all, plugins, number := s.master.mirror.snapshot(w)
	defer s.master.mirror.forget(w)
	// A send that blocks must not keep the handler from returning: that is
	// what ends the send.
	go func() {
		if err := w.send(&batcher{stream: stream, batches: w.want.detail}, &all, plugins, number); err != nil {
			w.cut(err)
		}
	}()
	select {
	case <-w.over:
		s.master.metrics.cut.WithLabelValues("watcher").Inc()
		return w.why
	case <-ctx.Done():
		w.cut(ctx.Err())
		return ctx.Err()
	}
}

// send sends the snapshot and then what waits, until the watcher is cut.
func (w *watcher) send(b *batcher, all *change, plugins []*operatorv1.Plugin, number uint64) error {
	for _, event := range eventsOf(all) {
		if e := event(w.want); e != nil {
			if err := b.add(e, proto.Size(e)); err != nil {
				return err
			}
		}
	}
	for _, p := range plugins {
		if err := b.add(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Plugin{Plugin: p}}, proto.Size(p)); err != nil {
			return err
		}
	}
	end := &operatorv1.SnapshotEnd{Next: number + 1}
	if err := b.add(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_SnapshotEnd{SnapshotEnd: end}}, proto.Size(end)); err != nil {
		return err
	}
	for {
		if err := b.flush(); err != nil {
			return err
		}
		select {
		case <-w.wake:
		case <-w.over:
			return nil
		}
		for p := w.take(); p != nil; p = w.take() {
			for i, event := range p.events {
				if err := b.add(event, p.sizes[i]); err != nil {
					return err
				}
			}
		}
	}
}

// batcher sends events, one by one or several in a message.
type batcher struct {
	stream  grpc.ServerStreamingServer[operatorv1.WatchEvent]
	batches bool
	events  []*operatorv1.WatchEvent
	size    int
}

func (b *batcher) add(event *operatorv1.WatchEvent, size int) error {
	if !b.batches {
		return b.stream.Send(event)
	}
	b.events = append(b.events, event)
	if b.size += size; b.size < watchBatch {
		return nil
	}
	return b.flush()
}

func (b *batcher) flush() error {
	if len(b.events) == 0 {
		return nil
	}
	message := b.events[0]
	if len(b.events) > 1 {
		message = &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Batch{Batch: &operatorv1.WatchBatch{Events: b.events}}}
	}
	b.events, b.size = nil, 0
	return b.stream.Send(message)
}

// maker makes an event when somebody wants it, in full or in short; nil: it is
// of a kind that is only for those who want it in full.
type maker func(want wants) *operatorv1.WatchEvent

// events counts what a change is as events, of all kinds.
func (c *change) events() int {
	p := &c.publish
	n := len(p.Roles) + len(p.Agents) + len(p.Frameworks) + len(p.Executors) + len(p.Tasks) + len(p.Offers) + len(p.OffersRemoved) +
		len(p.TasksRemoved) + len(p.ExecutorsRemoved) + len(p.FrameworksRemoved) + len(p.AgentsRemoved) + len(p.RolesRemoved) +
		len(p.Operations) + len(p.OperationsRemoved)
	if p.Schedule != nil {
		n++
	}
	if c.pluginRemoved != "" {
		n++
	}
	if c.plugin != nil {
		n++
	}
	return n
}

// eventsOf lists a change as events, in the order of the contract.
func eventsOf(c *change) []maker {
	p := &c.publish
	out := make([]maker, 0, c.events())
	for _, v := range p.Roles {
		out = append(out, func(wants) *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: roleMessage(v)}}
		})
	}
	for _, v := range p.Agents {
		out = append(out, func(want wants) *operatorv1.WatchEvent {
			if want.detail {
				return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentDetail{AgentDetail: agentDetail(v)}}
			}
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Agent{Agent: agentMessage(v)}}
		})
	}
	frameworks := func(completed bool) {
		for _, v := range p.Frameworks {
			if (v.State == state.FrameworkCompleted) != completed {
				continue
			}
			out = append(out, func(want wants) *operatorv1.WatchEvent {
				if want.detail {
					return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_FrameworkDetail{FrameworkDetail: frameworkDetail(v)}}
				}
				return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Framework{Framework: frameworkMessage(v)}}
			})
		}
	}
	frameworks(false)
	for _, v := range p.Executors {
		out = append(out, onlyDetail(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Executor{Executor: executorDetail(v)}}
		}))
	}
	for _, v := range p.Tasks {
		out = append(out, func(want wants) *operatorv1.WatchEvent {
			if want.detail {
				return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskDetail{TaskDetail: taskDetail(v)}}
			}
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Task{Task: taskMessage(v)}}
		})
	}
	frameworks(true) // their tasks end before them
	for _, v := range p.Offers {
		out = append(out, func(want wants) *operatorv1.WatchEvent {
			if want.detail {
				return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_OfferDetail{OfferDetail: offerDetail(v)}}
			}
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Offer{Offer: offerMessage(v)}}
		})
	}
	for _, v := range p.Operations {
		out = append(out, onlyOperations(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Operation{Operation: operationDetail(v)}}
		}))
	}
	if p.Schedule != nil {
		out = append(out, func(wants) *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Maintenance{Maintenance: maintenanceMessage(p.Schedule)}}
		})
	}
	return append(out, removals(c)...)
}

func onlyDetail(event func() *operatorv1.WatchEvent) maker {
	return func(want wants) *operatorv1.WatchEvent {
		if !want.detail {
			return nil
		}
		return event()
	}
}

func onlyOperations(event func() *operatorv1.WatchEvent) maker {
	return func(want wants) *operatorv1.WatchEvent {
		if !want.operations {
			return nil
		}
		return event()
	}
}

// removals lists what a change takes away, and what it says of plugins.
func removals(c *change) []maker {
	p := &c.publish
	var out []maker
	always := func(event func() *operatorv1.WatchEvent) {
		out = append(out, func(wants) *operatorv1.WatchEvent { return event() })
	}
	for _, id := range p.OffersRemoved {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_OfferRemoved{OfferRemoved: id}}
		})
	}
	for _, k := range p.TasksRemoved {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskRemoved{TaskRemoved: &operatorv1.TaskKey{FrameworkId: k.FrameworkID, TaskId: k.TaskID}}}
		})
	}
	for _, k := range p.ExecutorsRemoved {
		out = append(out, onlyDetail(func() *operatorv1.WatchEvent {
			key := &operatorv1.ExecutorKey{FrameworkId: k.FrameworkID, ExecutorId: k.ExecutorID, AgentId: k.AgentID}
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_ExecutorRemoved{ExecutorRemoved: key}}
		}))
	}
	for _, uuid := range p.OperationsRemoved {
		out = append(out, onlyOperations(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_OperationRemoved{OperationRemoved: []byte(uuid)}}
		}))
	}
	for _, id := range p.FrameworksRemoved {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_FrameworkRemoved{FrameworkRemoved: id}}
		})
	}
	for _, id := range p.AgentsRemoved {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: id}}
		})
	}
	for _, name := range p.RolesRemoved {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_RoleRemoved{RoleRemoved: name}}
		})
	}
	if id := c.pluginRemoved; id != "" {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_PluginRemoved{PluginRemoved: id}}
		})
	}
	if c.plugin != nil {
		always(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Plugin{Plugin: c.plugin}}
		})
	}
	return out
}
