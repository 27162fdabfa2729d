package sim

import (
	"bytes"
	"strings"
	"time"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// service has an operator take an agent out of service, or put it back.
func (m *master) service(f Fault) {
	w := m.w
	agents := sorted(m.views.agents)
	if len(agents) == 0 {
		return
	}
	agent := agents[w.pick(len(agents))]
	order := func(what string, in func(state.Request) state.Input) {
		w.note([]string{m.name, agent}, "an operator %s %s", what, agent)
		m.order(nil, in)
	}
	switch n := w.pick(6); {
	case f == OperatorGone:
		order("marks gone", func(id state.Request) state.Input { return state.MarkAgentGone{Request: id, AgentID: agent} })
	case n < 3:
		grace, markGone := w.between(0, 3*time.Second), w.chance(0.15)
		order("drains", func(id state.Request) state.Input {
			return state.DrainAgent{Request: id, AgentID: agent, MaxGrace: &grace, MarkGone: markGone}
		})
	case n < 4:
		order("deactivates", func(id state.Request) state.Input { return state.DeactivateAgent{Request: id, AgentID: agent} })
	default:
		order("reactivates", func(id state.Request) state.Input { return state.ReactivateAgent{Request: id, AgentID: agent} })
	}
}

// restoreService has an operator put every agent back into service, as soon as
// that can be.
func (w *world) restoreService() {
	if m := w.leader; m.alive {
		m.endMaintenance()
		for _, agent := range sorted(m.views.agents) {
			if a := m.views.agents[agent]; a.Deactivated && (a.Drain == nil || a.Drain.Drained) {
				m.order(nil, func(id state.Request) state.Input { return state.ReactivateAgent{Request: id, AgentID: agent} })
			}
		}
	}
	w.after(time.Second, w.restoreService)
}

// checkService: an agent that is out of service is not offered.
func (m *master) checkService(offers []*state.OfferView) {
	for _, o := range offers {
		if a := m.views.agents[o.AgentID]; a != nil && a.Deactivated {
			m.w.fail([]string{m.name, o.AgentID}, "%s offers agent %s, which is out of service", m.name, o.AgentID)
		}
	}
}

var standsGone = []byte(`"standing":"gone"`)

// noteGone remembers which agents are durably gone.
func (r *records) noteGone(batch registry.Batch) {
	for _, op := range batch {
		if bytes.Contains(op.Value, standsGone) {
			r.gone[op.Key] = true
		}
	}
}

// checkGone: an agent that is gone stays so, until it is forgotten.
func (w *world) checkGone() {
	for _, key := range sorted(w.registry.gone) {
		if e, known := w.registry.store.entries[key]; known && !bytes.Contains(e.Value, standsGone) {
			w.fail([]string{everybody}, "%s was gone, and the registry has it as %s", key, e.Value)
		}
	}
}

// exit is the orderly end of an agent's process: its machine is down for
// maintenance, or it has been marked gone. It is started again; one that is gone
// is a new agent then.
func (h *host) exit(out agentstate.Exit) {
	w := h.w
	if w.downs[h.name] && out.Err == nil && strings.Contains(out.Reason, "down for maintenance") {
		h.crash("its machine is down for maintenance")
		w.after(w.between(500*time.Millisecond, 5*time.Second), h.boot)
		return
	}
	if len(w.registry.gone) == 0 || out.Err == nil || !strings.Contains(out.Err.Error(), "was marked gone") {
		w.fail([]string{h.name}, "%s: the agent ends: %s: %v", h.name, out.Reason, out.Err)
		return
	}
	h.crash("it is gone")
	w.after(w.between(10*time.Millisecond, 4*time.Second), h.boot)
}

// goneByOperator: what an agent had that is gone ends once.
func (r *record) goneByOperator(w *world, st *mezzov1.TaskStatus, subjects []string) {
	if st.GetReason() != mezzov1.TaskStatus_REASON_AGENT_REMOVED_BY_OPERATOR {
		return
	}
	switch {
	case r.final != nil:
		w.fail(subjects, "task %s has ended as %s, and then its agent is gone: %s", r.id, describeStatus(r.final), describeStatus(st))
	case r.gone:
		w.fail(subjects, "task %s is gone with its agent for the second time", r.id)
	}
	r.gone = true
}
