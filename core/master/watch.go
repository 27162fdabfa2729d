package master

import (
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// watchQueue bounds what waits for one watcher, in bytes.
const watchQueue = 16 << 20

// watcher is one who keeps a mirror of the mirror. Events wait here while the
// snapshot is being sent.
type watcher struct {
	mu     sync.Mutex
	events []*operatorv1.WatchEvent
	bytes  int
	wake   chan struct{}
	once   sync.Once
	over   chan struct{} // closed when why is set
	why    error
}

func newWatcher() *watcher { return &watcher{wake: make(chan struct{}, 1), over: make(chan struct{})} }

// push queues events, or returns why the watcher has to be cut.
func (w *watcher) push(events []*operatorv1.WatchEvent) error {
	size := 0
	for _, e := range events {
		size += proto.Size(e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes > 0 && w.bytes+size > watchQueue {
		return fmt.Errorf("%w: the watcher reads too slowly, more than %d MiB wait for it; watch again", rpc.ErrExhausted, watchQueue>>20)
	}
	w.events = append(w.events, events...)
	w.bytes += size
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

func (w *watcher) take() []*operatorv1.WatchEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events, w.bytes = nil, 0
	return events
}

func (w *watcher) cut(why error) {
	w.once.Do(func() {
		w.why = why
		close(w.over)
	})
}

// Watch sends the mirror as it is, then what changes, until the watcher ends
// or is cut.
func (s *operatorService) Watch(_ *operatorv1.WatchRequest, stream grpc.ServerStreamingServer[operatorv1.WatchEvent]) error {
	ctx := stream.Context()
	if err := s.master.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return err
	}
	if _, err := s.master.leading(); err != nil {
		return err
	}
	w := newWatcher()
	all, plugins, number := s.master.mirror.snapshot(w)
	defer s.master.mirror.forget(w)
	// A send that blocks must not keep the handler from returning: that is
	// what ends the send.
	go w.send(stream, all, plugins, number)
	select {
	case <-w.over:
		s.master.metrics.cut.WithLabelValues("watcher").Inc()
		return w.why
	case <-ctx.Done():
		w.cut(ctx.Err())
		return ctx.Err()
	}
}

func (w *watcher) send(stream grpc.ServerStreamingServer[operatorv1.WatchEvent], all change, plugins []*operatorv1.Plugin, number uint64) {
	fail := func(err error) bool {
		if err != nil {
			w.cut(err)
		}
		return err != nil
	}
	for _, event := range eventsOf(&all) {
		if fail(stream.Send(event())) {
			return
		}
	}
	for _, p := range plugins {
		if fail(stream.Send(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Plugin{Plugin: p}})) {
			return
		}
	}
	if fail(stream.Send(&operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_SnapshotEnd{SnapshotEnd: &operatorv1.SnapshotEnd{Next: number + 1}}})) {
		return
	}
	for {
		select {
		case <-w.wake:
		case <-w.over:
			return
		}
		for _, event := range w.take() {
			if fail(stream.Send(event)) {
				return
			}
		}
	}
}

// eventsOf lists a change as events that are made when somebody wants them.
func eventsOf(c *change) []func() *operatorv1.WatchEvent {
	p := &c.publish
	var out []func() *operatorv1.WatchEvent
	add := func(event func() *operatorv1.WatchEvent) { out = append(out, event) }
	for _, v := range p.Roles {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: roleMessage(v)}}
		})
	}
	for _, v := range p.Agents {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Agent{Agent: agentMessage(v)}}
		})
	}
	for _, v := range p.Frameworks {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Framework{Framework: frameworkMessage(v)}}
		})
	}
	for _, v := range p.Tasks {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Task{Task: taskMessage(v)}}
		})
	}
	for _, v := range p.Offers {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Offer{Offer: offerMessage(v)}}
		})
	}
	for _, id := range p.OffersRemoved {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_OfferRemoved{OfferRemoved: id}}
		})
	}
	for _, k := range p.TasksRemoved {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskRemoved{TaskRemoved: &operatorv1.TaskKey{FrameworkId: k.FrameworkID, TaskId: k.TaskID}}}
		})
	}
	for _, id := range p.FrameworksRemoved {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_FrameworkRemoved{FrameworkRemoved: id}}
		})
	}
	for _, id := range p.AgentsRemoved {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_AgentRemoved{AgentRemoved: id}}
		})
	}
	for _, name := range p.RolesRemoved {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_RoleRemoved{RoleRemoved: name}}
		})
	}
	if id := c.pluginRemoved; id != "" {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_PluginRemoved{PluginRemoved: id}}
		})
	}
	if c.plugin != nil {
		add(func() *operatorv1.WatchEvent {
			return &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Plugin{Plugin: c.plugin}}
		})
	}
	return out
}
