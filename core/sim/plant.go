package sim

import (
	"bytes"
	"hash/fnv"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// plant is a bug that a test puts into the world on purpose, to prove that the
// invariants find it. Only tests can set it.
type plant int

const (
	plantNone plant = iota
	// plantDropAcks: acknowledgements of some tasks never reach the agent.
	plantDropAcks
	// plantDropKills: kills never reach the agent.
	plantDropKills
	// plantEarlyWritten: the registry reports what is not durable yet.
	plantEarlyWritten
	// plantDoubleRun: a launch is delivered a second time, much later.
	plantDoubleRun
	// plantLostCheckpoint: an agent's write is reported done and was not.
	plantLostCheckpoint
	// plantStaleEpoch: an agent takes a past epoch for the present one.
	plantStaleEpoch
	// plantSwallowUpdate: the end of a task is acknowledged and not passed on.
	plantSwallowUpdate
	// plantNewUUID: an update that is sent again has a new uuid.
	plantNewUUID
	// plantForgetRelease: the allocator is not told of what is free again.
	plantForgetRelease
	// plantGenerousAgent: an agent reports more than it has.
	plantGenerousAgent
	// plantForgottenContainer: a cleanup is reported done and was not.
	plantForgottenContainer
	// plantDropDrains: agents never hear that they are to drain.
	plantDropDrains
	// plantForgetGone: that an agent is gone is never written.
	plantForgetGone
	// plantSkipWrite: the registry says that it has written what it has not.
	plantSkipWrite
	// plantStaleWriter: the registry takes what a leader of the past writes.
	plantStaleWriter
	// plantStaleLoad: a new leader does not read what was written last.
	plantStaleLoad
	// plantForgetFence: an agent forgets at its restart which epoch it has seen.
	plantForgetFence
	// plantDeafWriter: a leader goes on as if it had written when the registry
	// refuses it.
	plantDeafWriter
	// plantForgetOperation: what an operation made is not written to an agent's disk,
	// now and then.
	plantForgetOperation
	// plantStaleOperation: an operation comes a second time, much later, by whoever
	// leads then.
	plantStaleOperation
	// plantDropOperationAcks: acknowledgements of operations never reach the agent.
	plantDropOperationAcks
	// plantForgetConversion: the allocator is not told what resources have become.
	plantForgetConversion
	plantCount
)

func (p plant) String() string {
	return [...]string{"none", "drop acks", "drop kills", "early written", "double run", "lost checkpoint", "stale epoch",
		"swallow update", "new uuid", "forget release", "generous agent", "forgotten container", "drop drains", "forget gone",
		"skip write", "stale writer", "stale load", "forget fence", "deaf writer",
		"forget operation", "stale operation", "drop operation acks", "forget conversion"}[p]
}

// provoked are the faults that make a bug show soon: a leader of the past that is
// heard, an order that is written while another leads. Nil: any.
func (p plant) provoked() []Fault {
	switch p {
	case plantStaleEpoch:
		return []Fault{MasterFailover, LinkCut}
	case plantForgetFence:
		return []Fault{MasterFailover, MasterStop, AgentCrash}
	case plantDropDrains:
		return []Fault{OperatorService}
	case plantForgetGone:
		return []Fault{OperatorGone, MasterCrash}
	case plantStaleWriter, plantDeafWriter, plantStaleLoad:
		return []Fault{MasterFailover, MasterStop, ElectionStorm, OperatorRole, OperatorTeardown}
	}
	return nil
}

func (p plant) delay() time.Duration { return time.Second }

// drops is whether a message to an agent is lost for ever.
func (p plant) drops(w *world, msg *linkv1.MasterMessage) bool {
	switch {
	case p == plantDropAcks && msg.GetAcknowledge() != nil:
		h := fnv.New32a()
		h.Write([]byte(msg.GetAcknowledge().GetTask().GetTaskId()))
		return h.Sum32()%5 == 0
	case p == plantDropOperationAcks && msg.GetAcknowledgeOperation() != nil:
		return true
	case p == plantDropKills && msg.GetKill() != nil:
		return true
	case p == plantDropDrains && msg.GetDrain() != nil && !msg.GetDrain().GetOver():
		return true
	}
	return false
}

// skips leaves out what is never written.
func (p plant) skips(w *world, batch registry.Batch) registry.Batch {
	return slices.DeleteFunc(slices.Clone(batch), func(op registry.Op) bool {
		return p == plantForgetGone && bytes.Contains(op.Value, standsGone) || p == plantSkipWrite && w.chance(0.2)
	})
}

// epoch is under which a master writes.
func (p plant) epoch(m *master) uint64 {
	if p == plantStaleWriter {
		return m.registry.epoch
	}
	return m.epoch
}

// loads is what a new leader reads.
func (p plant) loads(w *world, all []registry.Entry) []registry.Entry {
	if p != plantStaleLoad {
		return all
	}
	// What was written in the last moments is not there yet.
	newest := w.registry.store.versions
	return slices.DeleteFunc(all, func(e registry.Entry) bool { return e.Version+5 > newest })
}

// swallows is whether the master never hears of a task's end, which somebody
// has acknowledged in its place.
func (p plant) swallows(l *link, msg *linkv1.AgentMessage) bool {
	st := msg.GetUpdate().GetStatus()
	if p != plantSwallowUpdate || !st.GetState().Terminal() || !l.w.chance(0.05) {
		return false
	}
	l.toAgent(&linkv1.MasterMessage{Epoch: l.master.epoch, Message: &linkv1.MasterMessage_Acknowledge{Acknowledge: &linkv1.Acknowledge{
		Task: &linkv1.TaskRef{FrameworkId: msg.GetUpdate().GetFrameworkId(), TaskId: st.GetTaskId().GetValue()}, Uuid: st.GetUuid(),
	}}})
	return true
}

// changes gives an update a new uuid now and then.
func (p plant) changes(w *world, msg *linkv1.AgentMessage) *linkv1.AgentMessage {
	if p != plantNewUUID || len(msg.GetUpdate().GetStatus().GetUuid()) == 0 || !w.chance(0.1) {
		return msg
	}
	msg = proto.Clone(msg).(*linkv1.AgentMessage)
	msg.GetUpdate().GetStatus().Uuid[15]++
	return msg
}

// forgets leaves out that something is free again, now and then.
func (p plant) forgets(w *world, b allocator.Batch) allocator.Batch {
	switch p {
	case plantForgetConversion:
		b.Events = slices.DeleteFunc(slices.Clone(b.Events), func(e allocator.Event) bool {
			_, is := e.(*allocator.Converted)
			return is && w.chance(0.05)
		})
		return b
	case plantForgetRelease:
	default:
		return b
	}
	b.Events = slices.Clone(b.Events)
	for i, e := range b.Events {
		if r, ok := e.(*allocator.Released); ok && w.chance(0.02) {
			released := *r
			released.Resources = nil
			b.Events[i] = &released
		}
	}
	return b
}

var epochField = regexp.MustCompile(`"epoch":[0-9]+`)

// reads is what an agent reads of its disk.
func (p plant) reads(r agentstate.Record) agentstate.Record {
	if p == plantForgetFence && isSelf(r) {
		r.Value = epochField.ReplaceAll(r.Value, []byte(`"epoch":0`))
	}
	return r
}

// repeats has an operation come again.
func (p plant) repeats(l *link, msg *linkv1.MasterMessage) {
	if p != plantStaleOperation || msg.GetOperation() == nil {
		return
	}
	h, w := l.host, l.w
	w.after(w.between(time.Second, 30*time.Second), func() {
		if h.link == nil || h.link.master == l.master {
			return
		}
		again := proto.Clone(msg).(*linkv1.MasterMessage)
		again.Epoch = h.link.master.epoch
		h.link.down.send(again)
	})
}
