package plugintest

import (
	"fmt"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// showDecision writes a decision in a line.
func showDecision(d allocator.Decision) string {
	switch d := d.(type) {
	case *allocator.Offer:
		return fmt.Sprintf("offer %s of %s to %s in %s", d.Resources, d.Agent, d.Framework, d.Role)
	case *allocator.InverseOffer:
		return fmt.Sprintf("ask %s to leave %s", d.Framework, d.Agent)
	case *allocator.Revoke:
		return fmt.Sprintf("revoke task %d with a grace of %v", d.Task, d.Grace)
	case *allocator.Rescind:
		return fmt.Sprintf("rescind offer %d", d.Offer)
	}
	return fmt.Sprintf("%T", d)
}

var inverseStates = map[allocator.InverseOfferState]string{
	allocator.InverseOfferOutstanding: "outstanding", allocator.InverseOfferAccepted: "accepted",
	allocator.InverseOfferDeclined: "declined", allocator.InverseOfferRescinded: "rescinded",
}

// show writes an event in a line.
func show(e allocator.Event) string {
	switch v := e.(type) {
	case *allocator.RoleUpdated:
		out := "role " + v.Name
		if v.Limit != nil {
			out += " with limit " + limitText(v.Limit)
		}
		if v.Guarantee != nil {
			out += " with guarantee " + limitText(v.Guarantee)
		}
		return out
	case *allocator.FrameworkUpdated:
		return fmt.Sprintf("framework %s in %v, suppressed in %v, active %v, capabilities %d", v.ID, v.Roles, v.Suppressed, v.Active, v.Capabilities)
	case *allocator.AgentUpdated:
		return showAgent(v)
	case *allocator.Released:
		return fmt.Sprintf("released by %s in %s on %s: %s, refused for %v, declined %v", v.Framework, v.Role, v.Agent, v.Resources, v.Refuse, v.Declined)
	case *allocator.Filter:
		return fmt.Sprintf("filter of %s in %s on %s: %s for %v", v.Framework, v.Role, v.Agent, v.Resources, v.Remaining.Round(time.Millisecond))
	case *allocator.Held:
		return fmt.Sprintf("held by %s in %s on %s: %s", v.Framework, v.Role, v.Agent, v.Resources)
	case *allocator.OfferOutstanding:
		return fmt.Sprintf("offer %d is outstanding: %s of %s to %s in %s", v.Number, v.Resources, v.Agent, v.Framework, v.Role)
	case *allocator.Converted:
		return fmt.Sprintf("converted on %s, held by %q in %q: %s to %s", v.Agent, v.Framework, v.Role, v.From, v.To)
	case *allocator.TaskStarted:
		return fmt.Sprintf("task %d started: %s in %s on %s, %s", v.Number, v.Framework, v.Role, v.Agent, v.Resources)
	case *allocator.InverseOfferStatus:
		return fmt.Sprintf("inverse offer %d to %s on %s: %s, refused for %v", v.Number, v.Framework, v.Agent, inverseStates[v.State], v.Refuse.Round(time.Millisecond))
	case *allocator.Refused:
		out := fmt.Sprintf("decision %d is refused: %s", v.Decision, strings.ToLower(strings.TrimPrefix(v.Reason.String(), "REFUSAL_REASON_")))
		if v.Agent != nil {
			out += "; " + showAgent(v.Agent)
		}
		return out
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "*allocator.") + fmt.Sprintf(" %+v", e)[2:]
}

func showAgent(v *allocator.AgentUpdated) string {
	out := fmt.Sprintf("agent %s with %s, active %v", v.ID, v.Total, v.Active)
	if v.Unavailability != nil {
		out += ", going to be unavailable"
	}
	for _, h := range v.Holdings {
		out += fmt.Sprintf("; %s holds %s in %s", h.Framework, h.Resources, h.Role)
	}
	return out
}

func limitText(limit resource.Quantities) string {
	var parts []string
	for _, q := range limit {
		parts = append(parts, q.Name+":"+q.Amount.String())
	}
	return strings.Join(parts, ";")
}
