package state

import (
	"fmt"
	"time"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// Two agents that live must not have one id, as they would when a data directory
// is copied with a machine's image: each would take the other's link away, for
// ever, and tasks would come and go with them. So one that comes by the id of an
// agent that is connected, and is on another host or was booted at another time,
// waits until the one that is there was asked whether it lives. If it does, the
// newcomer is refused. If it does not, as after a crash of the host that the
// network never told of, the newcomer takes its place.

// challengeTime is how long the one that is there has to answer.
const challengeTime = 5 * time.Second

// differs is whether somebody with the agent's id does not look like the agent.
func (a *agent) differs(other *linkv1.Agent) bool {
	boot := a.info.GetBootId()
	return a.hostname != other.GetHostname() || boot != "" && other.GetBootId() != "" && boot != other.GetBootId()
}

// challenge asks the agent that is there whether it lives, and has the newcomer
// wait.
func (m *Machine) challenge(a *agent, l *link, reg *registration) {
	l.agent, a.waiting, a.arrival = a, l, reg
	if a.challenge.set() {
		return
	}
	m.logf(Warn, "an agent says that it is one that is connected; asking that one", "agent_id", a.id, "hostname", a.hostname,
		"peer", a.link.peer, "other_hostname", reg.agent.GetHostname(), "other_peer", l.peer)
	m.send(a.link, &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Ping{Ping: &linkv1.Ping{}}})
	m.after(&a.challenge, min(challengeTime, m.cfg.PingInterval))
}

// refuseTwin: the agent that is there lives.
func (m *Machine) refuseTwin(a *agent) {
	m.timers.cancel(&a.challenge)
	if l := a.waiting; l != nil {
		l.agent, a.waiting, a.arrival = nil, nil, nil
		m.refuse(l, &linkv1.Refused{Reason: fmt.Sprintf("agent id %s belongs to another agent that is alive, on host %s at %s: two agents must not share one identity; "+
			"if the data directory was copied, remove the identity from the copy, and the agent registers as a new one", a.id, a.hostname, a.link.peer)})
	}
}

// twinStays: the agent that was there does not answer; it is the same that waits.
func (m *Machine) twinStays(a *agent) {
	m.timers.cancel(&a.challenge)
	if a.waiting != nil && a.phase == present && !a.marking && !a.leaving {
		m.arriveWaiting(a)
	}
}
