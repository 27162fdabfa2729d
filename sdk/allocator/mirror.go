package allocator

import (
	"fmt"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Agent reads what an engine believes of an agent (engine.Engine.Agents): its
// total, whether it is active, and its holdings. It is for tests and
// simulators; in a session the core never reads such a message.
func (e *Encoder) Agent(u *allocatorv1.AgentUpdated) (*AgentUpdated, error) {
	id, known := e.agents.name(u.GetNumber())
	if !known {
		return nil, &UnknownError{RefusedUnknownAgent, "agent", u.GetNumber()}
	}
	out := &AgentUpdated{ID: id, Region: u.GetRegion(), Active: u.GetActive(), HoldingsSet: u.GetHoldingsSet()}
	var err error
	if out.Total, err = e.resources(u.GetTotal()); err != nil {
		return nil, fmt.Errorf("total: %w", err)
	}
	for _, h := range u.GetHoldings() {
		_, framework, err := e.parties(u.GetNumber(), h.GetFramework())
		if err != nil {
			return nil, fmt.Errorf("holding: %w", err)
		}
		role, known := e.roles.name(h.GetRole())
		if !known {
			return nil, &UnknownError{RefusedRole, "role", h.GetRole()}
		}
		res, err := e.resources(h.GetQuantities())
		if err != nil {
			return nil, fmt.Errorf("holding of %s in role %s: %w", framework, role, err)
		}
		out.Holdings = append(out.Holdings, Holding{Framework: framework, Role: role, Resources: res})
	}
	return out, nil
}
