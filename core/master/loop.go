package master

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// turnInputs is how many inputs are handled before the clock is read and the
// allocator is told, so that a storm of them does not keep it waiting.
const turnInputs = 1024

// machine is what the loop drives: state.Machine.
type machine interface {
	Step(now time.Time, in state.Input) []state.Output
	NextDeadline() (time.Time, bool)
}

// loop is the one goroutine that owns the machine. It takes inputs in batches,
// steps, and carries out the outputs, none of which ever blocks it.
type loop struct {
	machine machine
	inbox   *inbox
	logger  hclog.Logger
	metrics *metrics
	mirror  *mirror
	writes  chan<- state.RegistryWrite // holds one: at most one is under way
	now     time.Time

	links    map[state.Link]*agentLink
	streams  map[state.Stream]*subscription
	callers  map[state.Caller]*callStream
	orders   map[state.Request]chan<- state.Reply
	sessions map[state.Session]*session
	request  state.Request
	// allocator is the one that is current; takeOver makes another one that.
	allocator func() *allocatorRun
	takeOver  func(*allocatorRun)

	// batch is what this turn has for the allocator, joined.
	batch state.AllocatorBatch
	// later are inputs that came of carrying out outputs.
	later []state.Input
}

func newLoop(m machine, b *inbox, logger hclog.Logger, metrics *metrics, mirror *mirror, writes chan<- state.RegistryWrite) *loop {
	return &loop{
		machine: m, inbox: b, logger: logger, metrics: metrics, mirror: mirror, writes: writes,
		links:    map[state.Link]*agentLink{},
		streams:  map[state.Stream]*subscription{},
		callers:  map[state.Caller]*callStream{},
		orders:   map[state.Request]chan<- state.Reply{},
		sessions: map[state.Session]*session{},
	}
}

// run works until ctx ends, then ends every stream.
func (l *loop) run(ctx context.Context) {
	defer l.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []item
	for {
		select {
		case <-l.inbox.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		batch = l.inbox.take(batch)
		for rest := batch; ; {
			n := min(len(rest), turnInputs)
			l.turn(rest[:n])
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		l.metrics.turn.Observe(time.Since(began).Seconds())
		if next, ok := l.machine.NextDeadline(); ok {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
	}
}

// turn handles a batch. All its inputs have the same time, which never goes
// back.
func (l *loop) turn(batch []item) {
	if now := time.Now(); now.After(l.now) {
		l.now = now
	}
	for i := range batch {
		l.handle(batch[i].input)
	}
	if next, ok := l.machine.NextDeadline(); ok && !next.After(l.now) {
		l.step(state.Tick{})
	}
	l.flushBatch()
	l.catchUp()
}

// handle takes one input: the machine's, or one of the shell's own, which open
// and close what the loop has to know.
func (l *loop) handle(input any) {
	switch in := input.(type) {
	case *agentLink:
		l.links[in.id] = in
		l.metrics.links.Set(float64(len(l.links)))
		l.step(state.LinkOpened{Link: in.id, Peer: in.peer})
	case state.LinkClosed:
		if _, open := l.links[in.Link]; open {
			l.dropLink(in.Link)
			l.step(in)
		}
	case opening:
		l.streams[in.stream.id] = in.stream
		l.step(state.Subscribe{Stream: in.stream.id, Call: in.call, Principal: in.stream.principal, Adapter: in.stream.adapter})
	case state.StreamClosed:
		if _, open := l.streams[in.Stream]; open {
			delete(l.streams, in.Stream)
			l.step(in)
		}
	case *callStream:
		l.callers[in.id] = in
	case deniedCall:
		l.answer(in.caller, in.result)
	case callsEnded:
		if caller, open := l.callers[in.caller]; open {
			delete(l.callers, in.caller)
			caller.sender.Close()
		}
	case order:
		l.request++
		l.orders[l.request] = in.reply
		l.step(in.input(l.request))
	case inspection:
		l.inspect(in)
	case pulse:
		close(in)
	case *session:
		l.openSession(in)
	case state.AllocatorClosed:
		if _, open := l.sessions[in.Session]; open {
			delete(l.sessions, in.Session)
			l.step(in)
		}
	case state.SchedulerCall:
		l.mirror.tallies.find(in.Call.GetFrameworkId().GetValue()).call(in.Call)
		l.step(in)
	case step:
		l.step(in)
	}
}

func (l *loop) openSession(s *session) {
	opened := state.AllocatorOpened{Session: s.id, Prepare: s.prepare}
	switch {
	case s.prepare:
		opened.Config = s.run.config
	case l.allocator() != s.run:
		s.cut("another allocator has taken over")
		return
	}
	l.sessions[s.id] = s
	l.step(opened)
}

// step takes one input through the machine, and then what came of it.
func (l *loop) step(in state.Input) {
	l.one(in)
	l.catchUp()
}

// one carries out the outputs of one step, which are good until the next.
func (l *loop) one(in state.Input) {
	for _, out := range l.machine.Step(l.now, in) {
		l.carryOut(out)
	}
}

func (l *loop) catchUp() {
	for len(l.later) > 0 {
		in := l.later[0]
		l.later = l.later[1:]
		l.one(in)
	}
}

func (l *loop) carryOut(output state.Output) {
	switch out := output.(type) {
	case state.SendAgent:
		l.sendAgent(out)
	case state.CloseAgent:
		if link, open := l.links[out.Link]; open {
			l.dropLink(out.Link)
			link.close(out.Reason)
		}
	case state.SendScheduler:
		l.sendScheduler(out.Stream, out.Event, proto.Size(out.Event))
	case state.SendOffers:
		l.sendScheduler(out.Stream, out.Event(), len(out.Offers)+eventFrame)
	case state.CloseScheduler:
		if stream, open := l.streams[out.Stream]; open {
			delete(l.streams, out.Stream)
			stream.end(conflict(out.Reason))
		}
	case state.CallResult:
		l.answer(out.Caller, out.Result)
	case state.AllocatorBegin:
		if s, open := l.sessions[out.Session]; open {
			s.begin(out.Begin)
		}
	case state.AllocatorBatch:
		l.addBatch(out)
	case state.AllocatorCurrent:
		if s, open := l.sessions[out.Replaced]; open {
			delete(l.sessions, out.Replaced)
			s.cut("another allocator has taken over")
		}
		if s, open := l.sessions[out.Session]; open {
			l.takeOver(s.run)
		}
	case state.CloseAllocator:
		if s, open := l.sessions[out.Session]; open {
			l.logger.Error("the allocator did not do its part; its stream is ended", "session", out.Session, "reason", out.Reason)
			delete(l.sessions, out.Session)
			s.cut(out.Reason)
		}
	case state.Revoked:
		l.metrics.revoked.WithLabelValues(out.Role).Inc()
	case state.RegistryWrite:
		l.writes <- out
	case state.Publish:
		l.mirror.tallies.published(&out)
		l.mirror.publish(out)
	case state.Reply:
		if reply, open := l.orders[out.Request]; open {
			delete(l.orders, out.Request)
			reply <- out
		}
	case state.Log:
		l.log(out)
	}
}

func (l *loop) dropLink(id state.Link) {
	delete(l.links, id)
	l.metrics.links.Set(float64(len(l.links)))
}

func (l *loop) sendAgent(out state.SendAgent) {
	link, open := l.links[out.Link]
	if !open {
		return
	}
	class := rpc.Control
	if _, bulk := out.Message.Message.(*linkv1.MasterMessage_FrameworkMessage); bulk {
		class = rpc.Bulk
	}
	err := link.sender.Push(out.Message, proto.Size(out.Message), class)
	if err == nil {
		return
	}
	l.metrics.cut.WithLabelValues("agent").Inc()
	l.logger.Warn("an agent is disconnected", "peer", link.peer, "reason", err)
	l.dropLink(out.Link)
	link.close(err.Error())
	l.later = append(l.later, state.LinkClosed{Link: out.Link, Reason: err.Error()})
}

// eventFrame is about what an event takes beside its contents.
const eventFrame = 8

func (l *loop) sendScheduler(id state.Stream, event *schedulerv1.Event, size int) {
	stream, open := l.streams[id]
	if !open {
		return
	}
	if event.GetType() == schedulerv1.Event_SUBSCRIBED && stream.tally == nil {
		stream.tally = l.mirror.tallies.begin(event.GetSubscribed().GetFrameworkId().GetValue())
		stream.tally.call(&schedulerv1.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum()})
	}
	l.metrics.traffic.event(event)
	stream.tally.event(event)
	class := rpc.Control
	if event.GetType() == schedulerv1.Event_MESSAGE {
		class = rpc.Bulk
	}
	if err := stream.sender.Push(event, size, class); err != nil {
		l.metrics.cut.WithLabelValues("scheduler").Inc()
		l.logger.Warn("a scheduler is disconnected", "name", stream.name, "peer", stream.peer, "reason", err)
		delete(l.streams, id)
		stream.tooSlow(err)
		l.later = append(l.later, state.StreamClosed{Stream: id, Reason: err.Error()})
	}
}

func (l *loop) answer(id state.Caller, result *schedulerv1.CallResult) {
	caller, open := l.callers[id]
	if !open {
		return
	}
	if err := caller.sender.Push(result, proto.Size(result), rpc.Control); err != nil {
		l.metrics.cut.WithLabelValues("caller").Inc()
		delete(l.callers, id)
		caller.close(err)
	}
}

// addBatch joins the events of a turn. Those of a snapshot and of another
// session stay apart.
func (l *loop) addBatch(out state.AllocatorBatch) {
	for _, event := range out.Batch.Events {
		if refused, ok := event.(*allocator.Refused); ok {
			l.metrics.refused.WithLabelValues(refusal(refused.Reason)).Inc()
		}
	}
	held := &l.batch.Batch
	if l.batch.Session != out.Session || held.Snapshot || out.Batch.Snapshot {
		l.flushBatch()
		l.batch = out
		// Appending must not write into what the machine gave.
		l.batch.Batch.Events = slices.Clip(out.Batch.Events)
		return
	}
	if len(held.Events) == 0 {
		held.FirstEvent = out.Batch.FirstEvent
	}
	held.Events = append(held.Events, out.Batch.Events...)
	held.DecisionsSeen = max(held.DecisionsSeen, out.Batch.DecisionsSeen)
}

// flushBatch gives the session what was joined. It may leave an input in later.
func (l *loop) flushBatch() {
	out := l.batch
	l.batch = state.AllocatorBatch{}
	s, open := l.sessions[out.Session]
	if !open {
		return
	}
	if err := s.send(out.Batch); err != nil {
		l.metrics.cut.WithLabelValues("allocator").Inc()
		l.logger.Warn("the allocator stays behind; its stream is begun again", "session", out.Session, "reason", err)
		delete(l.sessions, out.Session)
		s.cut(err.Error())
		l.later = append(l.later, state.AllocatorClosed{Session: out.Session, Reason: err.Error()})
	}
}

func (l *loop) log(out state.Log) {
	level := hclog.Info
	switch out.Level {
	case state.Debug:
		level = hclog.Debug
	case state.Warn:
		level = hclog.Warn
	case state.Error:
		level = hclog.Error
	}
	l.logger.Log(level, out.Message, out.Fields...)
}

// end closes the inbox and every stream: leadership is over.
func (l *loop) end() {
	l.inbox.close()
	for _, link := range l.links {
		link.close(errStopped.Error())
	}
	l.metrics.links.Set(0)
	for _, stream := range l.streams {
		stream.end(unavailable(errStopped.Error()))
	}
	for _, caller := range l.callers {
		caller.close(errStopped)
	}
	for _, reply := range l.orders {
		close(reply)
	}
	for _, s := range l.sessions {
		s.cut(errStopped.Error())
	}
	if t, is := l.machine.(*traced); is {
		t.end()
	}
	l.mirror.tallies.clear()
	close(l.writes)
}
