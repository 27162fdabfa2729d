package sim

import (
	"bytes"
	"strings"
	"time"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// service has an operator take an agent out of service, or put it back.
func (m *master) service(f Fault) {
	w := m.w
	agents := sorted(m.views.agents)
	if len(agents) == 0 {
		return
	}
	id := agents[w.pick(len(agents))]
	switch n := w.pick(6); {
	case f == OperatorGone:
		w.note([]string{m.name, id}, "an operator marks %s gone", id)
		m.step(state.MarkAgentGone{Request: 7, AgentID: id})
	case n < 3:
		grace := w.between(0, 3*time.Second)
		w.note([]string{m.name, id}, "an operator drains %s", id)
		m.step(state.DrainAgent{Request: 8, AgentID: id, MaxGrace: &grace, MarkGone: w.chance(0.15)})
	case n < 4:
		w.note([]string{m.name, id}, "an operator deactivates %s", id)
		m.step(state.DeactivateAgent{Request: 9, AgentID: id})
	default:
		w.note([]string{m.name, id}, "an operator reactivates %s", id)
		m.step(state.ReactivateAgent{Request: 10, AgentID: id})
	}
}

// restoreService has an operator put every agent back into service, as soon as
// that can be.
func (w *world) restoreService() {
	if m := w.leader; m.alive {
		for _, id := range sorted(m.views.agents) {
			if a := m.views.agents[id]; a.Deactivated && (a.Drain == nil || a.Drain.Drained) {
				m.step(state.ReactivateAgent{Request: 11, AgentID: id})
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
func (r *registry) noteGone(entries []state.Entry) {
	for _, e := range entries {
		if bytes.Contains(e.Value, standsGone) {
			r.gone[e.Key] = true
		}
	}
}

// checkGone: an agent that is gone stays so, until it is forgotten.
func (w *world) checkGone() {
	for _, key := range sorted(w.registry.gone) {
		if value, known := w.registry.entries[key]; known && !bytes.Contains(value, standsGone) {
			w.fail([]string{everybody}, "%s was gone, and the registry has it as %s", key, value)
		}
	}
}

// exit is the orderly end of an agent's process: it has been marked gone. It is
// started again, as a new agent.
func (h *host) exit(out agentstate.Exit) {
	w := h.w
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
