package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Reason tells why a proposal is refused. The numbers are those of
// mezzo.allocator.v1.RefusalReason.
type Reason int32

// The reasons that the ledger gives.
const (
	UnknownAgent     Reason = 2
	AgentInactive    Reason = 3
	UnknownFramework Reason = 4
	// FrameworkInactive means that no scheduler is connected.
	FrameworkInactive Reason = 5
	// Role means that the framework is not subscribed to the role.
	Role Reason = 6
	// Suppressed means that the framework wants no offers in the role.
	Suppressed Reason = 7
	// NotFree means more than is free on the agent.
	NotFree Reason = 8
	// Reserved means reserved to a role that is not the offer's or an ancestor.
	Reserved Reason = 9
	// Capability means that the framework cannot handle such resources.
	Capability Reason = 10
	// Limit means a limit of the role or of an ancestor.
	Limit Reason = 11
	// Malformed means that the proposal makes no sense.
	Malformed Reason = 13
	// RevocationTask means that there is nothing to take back.
	RevocationTask Reason = 17
	// RevocationGuarantee means that a role would fall below its guarantee.
	RevocationGuarantee Reason = 18
)

// Refusal is why a proposal is refused: a reason for programs and a sentence for
// people. It is an error too.
type Refusal struct {
	Reason  Reason
	Message string
}

// Error returns the sentence.
func (r *Refusal) Error() string { return r.Message }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// CheckOffer checks a proposal against the books as they are, and changes
// nothing. It returns nil if the offer may be made, or the first thing that
// forbids it.
func (l *Ledger) CheckOffer(o Offer) *Refusal {
	o.Resources = o.Resources.Unallocate()
	return l.checkOffer(&o, l.agents[o.Agent], l.frameworks[o.Framework])
}

// checkOffer checks a proposal for this agent and framework, either of which may
// be nil.
func (l *Ledger) checkOffer(o *Offer, a *agent, f *framework) *Refusal {
	switch {
	case o.ID == "":
		return refuse(Malformed, "the offer has no id")
	case l.offers[o.ID] != nil:
		return refuse(Malformed, "offer %s is outstanding already", o.ID)
	case o.Resources.IsEmpty():
		return refuse(Malformed, "offer %s is empty", o.ID)
	case a == nil:
		return refuse(UnknownAgent, "agent %s is not known", o.Agent)
	case !a.active:
		return refuse(AgentInactive, "agent %s is not active; nothing of it may be offered", o.Agent)
	case f == nil || !f.known:
		return refuse(UnknownFramework, "framework %s is not known", o.Framework)
	case !f.Active:
		return refuse(FrameworkInactive, "framework %s is not connected", o.Framework)
	case !f.roles[o.Role]:
		return refuse(Role, "framework %s is not subscribed to role %s", o.Framework, o.Role)
	case f.suppressed[o.Role]:
		return refuse(Suppressed, "framework %s has suppressed offers in role %s", o.Framework, o.Role)
	}
	for i := range o.Resources {
		k := o.Resources[i].Kind
		if !k.AllocatableTo(o.Role) {
			return refuse(Reserved, "%s is reserved to role %s, which is neither role %s nor an ancestor of it",
				o.Resources[i:i+1], k.Role(), o.Role)
		}
		if need := f.missing(k); need != "" {
			return refuse(Capability, "%s can only be offered to frameworks with the capability %s, which framework %s has not",
				o.Resources[i:i+1], need, o.Framework)
		}
	}
	if !a.free.Contains(o.Resources) {
		missing := o.Resources.Minus(a.free)
		names := missing.Names()
		have := a.free.Filter(func(k resource.Kind) bool { return slices.Contains(names, k.Name()) })
		return refuse(NotFree, "%s is not free on agent %s; free of %s is %s", missing, o.Agent, strings.Join(names, " and "), orNothing(have))
	}
	return l.checkLimits(o.Role, func(n *role) tally {
		var t tally
		for i := range o.Resources {
			if n.charges(o.Resources[i].Kind) {
				t.addOne(&o.Resources[i], +1)
			}
		}
		return t
	})
}

// missing returns the capability that the framework needs for resources of the
// kind and has not; "" if there is none.
func (f *framework) missing(k resource.Kind) string {
	switch c := f.Capabilities; {
	case k.Revocable() && c&RevocableResources == 0:
		return "REVOCABLE_RESOURCES"
	case k.Shared() && c&SharedResources == 0:
		return "SHARED_RESOURCES"
	case k.IsRefined() && c&ReservationRefinement == 0:
		return "RESERVATION_REFINEMENT"
	case k.Name() == "gpus" && c&GPUResources == 0:
		return "GPU_RESOURCES"
	}
	return ""
}

func orNothing(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return r.String()
}

// CheckRevocation checks whether a use may be taken away as far as the books go:
// no role may fall below its guarantee by it, when the other uses are gone too:
// those that end with it, and those whose revocation is under way. Others that
// are not in the books count for nothing, and one that is named twice once.
// Whether revocation is allowed at all, its grace period and its rate are for
// the caller to check.
func (l *Ledger) CheckRevocation(key Key, others ...Key) *Refusal {
	u, ok := l.UseOf(key)
	if !ok {
		return refuse(RevocationTask, "%s is not running", key)
	}
	uses := map[Key]Use{key: u}
	roles := map[string]bool{u.Role: true}
	for _, k := range others {
		if o, ok := l.UseOf(k); ok {
			uses[k], roles[o.Role] = o, true
		}
	}
	// All roles that lose something are checked: a use that ends with this one
	// may be in another role.
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		if r := l.checkGuarantees(name, key, uses); r != nil {
			return r
		}
	}
	return nil
}

// checkGuarantees looks whether a role or one above it would fall below its
// guarantee without these uses.
func (l *Ledger) checkGuarantees(name string, key Key, uses map[Key]Use) *Refusal {
	for n := l.nearest(name); n != nil; n = n.parent {
		if len(n.guarantee) == 0 {
			continue
		}
		var loss tally
		for _, u := range uses {
			if !resource.IsAncestorOrSelf(n.name, u.Role) {
				continue
			}
			for i := range u.Resources {
				if n.charges(u.Resources[i].Kind) {
					loss.addOne(&u.Resources[i], +1)
				}
			}
		}
		for _, q := range loss {
			least, guaranteed := n.guarantee.Lookup(q.Name)
			if have := n.consumed(q.Name); guaranteed && have-q.Amount < least {
				also := ""
				if len(uses) > 1 {
					also = fmt.Sprintf(" and %d more that end with it or are being revoked", len(uses)-1)
				}
				return refuse(RevocationGuarantee, "role %s is guaranteed %s:%s; it consumes %s, and without %s%s it would fall below",
					n.name, q.Name, least, have, key, also)
			}
		}
	}
	return nil
}
