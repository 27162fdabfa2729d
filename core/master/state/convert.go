package state

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/core/operation"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// convert carries out an operation of an ACCEPT on what is left of its offers, so
// that the next sees what it made.
func (m *Machine) convert(x *acceptance, index int, op *mezzov1.Offer_Operation) {
	why, change := m.checkConversion(x, op), operation.Change{}
	if denied := x.deniedOperations[index]; denied != "" {
		why = denied
	}
	if why == "" {
		why = x.framework.checkOperationID(op.GetId().GetValue())
	}
	if why == "" {
		var err error
		if change, err = operation.Of(op); err != nil {
			why = err.Error()
		}
	}
	if why == "" {
		why = m.checkChange(x, change)
	}
	if why == "" {
		m.takeSharedBack(x, change)
		if err := m.books.Convert(ledger.Conversion{Agent: x.agent.id, Offers: x.ids, From: change.From, To: change.To}); err != nil {
			why = m.refusedConversion(x.agent, change, err)
		}
	}
	if why != "" {
		m.refuseOperation(x.framework, op, why)
		return
	}
	x.pool = x.pool.Minus(change.From).Add(change.To)
	x.made = x.made.Minus(change.From).Add(change.To)
	x.used = true
	m.touchRole(x.role)
	p := &pendingOperation{framework: x.framework, id: op.GetId().GetValue(), info: op}
	m.converted(x.agent, x.framework.id, x.role, change)
	m.sendOperation(x.agent, p, change)
}

// maxOperations bounds the operations that a framework has not acknowledged.
const maxOperations = 10_000

// checkOperationID checks that an operation can be told of by its id.
func (f *framework) checkOperationID(id string) string {
	switch {
	case id == "":
	case f.operations[id] != nil:
		return fmt.Sprintf("the framework has an operation '%s' already that it has not acknowledged", id)
	case len(f.operations) >= maxOperations:
		return fmt.Sprintf("the framework has %d operations that it has not acknowledged; acknowledge them first", len(f.operations))
	}
	return ""
}

// checkConversion says what is wrong with an operation as this framework asks
// for it; empty: nothing.
func (m *Machine) checkConversion(x *acceptance, op *mezzov1.Offer_Operation) string {
	switch op.GetType() {
	case mezzov1.Offer_Operation_RESERVE:
		if len(op.GetReserve().GetSource()) > 0 {
			return "'Reserve.source' is not allowed in the scheduler API"
		}
		return x.checkEach(op.GetReserve().GetResources(), x.checkReserve)
	case mezzov1.Offer_Operation_UNRESERVE:
		return x.checkEach(op.GetUnreserve().GetResources(), nil)
	case mezzov1.Offer_Operation_CREATE:
		return x.checkEach(op.GetCreate().GetVolumes(), x.checkCreate)
	case mezzov1.Offer_Operation_DESTROY:
		return x.checkEach(op.GetDestroy().GetVolumes(), nil)
	}
	return ""
}

// checkEach checks every resource of an operation.
func (x *acceptance) checkEach(list []*mezzov1.Resource, check func(resource.Kind) string) string {
	if len(list) == 0 {
		return "the operation names no resources"
	}
	res, why := checkResources(list, x.role)
	if why != "" {
		return why
	}
	for i := range res {
		if check == nil {
			break
		}
		if why := check(res[i].Kind); why != "" {
			return fmt.Sprintf("%s: %s", res[i:i+1], why)
		}
	}
	return ""
}

func (x *acceptance) checkReserve(k resource.Kind) string {
	stack := k.Reservations()
	if len(stack) == 0 {
		return "it is not dynamically reserved"
	}
	last := stack[len(stack)-1]
	switch principal := x.framework.info.GetPrincipal(); {
	case last.Role != x.role:
		return fmt.Sprintf("it is to be reserved to role '%s', the offer is for role '%s'", last.Role, x.role)
	case principal != "" && last.Principal != principal:
		return fmt.Sprintf("its reservation's principal '%s' is not the framework's '%s'", last.Principal, principal)
	case k.IsRefined() && !x.framework.capabilities[mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT]:
		return "the framework is not capable of refined reservations"
	}
	return ""
}

func (x *acceptance) checkCreate(k resource.Kind) string {
	if k.Shared() && !x.framework.capabilities[mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES] {
		return "the framework is not capable of shared resources"
	}
	return checkVolumePrincipal(k, x.framework.info.GetPrincipal(), "the framework")
}

func checkVolumePrincipal(k resource.Kind, principal, who string) string {
	if p := k.Disk().GetPersistence().GetPrincipal(); principal != "" && p != principal {
		return fmt.Sprintf("the volume's principal '%s' is not that of %s, '%s'", p, who, principal)
	}
	return ""
}

// checkChange checks a change against what is left of the offers.
func (m *Machine) checkChange(x *acceptance, c operation.Change) string {
	if missing := c.From.Minus(x.pool); !missing.IsEmpty() {
		return fmt.Sprintf("%s is not in what is left of the offers, which is %s", missing, orNothing(x.pool))
	}
	return checkVolumes(x.agent, c)
}

// checkVolumes checks that volumes which come to be are new on the agent.
func checkVolumes(a *agent, c operation.Change) string {
	there := operation.Volumes(a.total.Minus(c.From))
	for _, v := range operation.Volumes(c.To) {
		if slices.Contains(there, v) {
			return fmt.Sprintf("agent %s has a volume %s already", a.id, v)
		}
	}
	return ""
}

// takeSharedBack takes back other offers that have a shared volume which is about
// to go, unless somebody uses it.
func (m *Machine) takeSharedBack(x *acceptance, c operation.Change) {
	shared := one(c.From.Shared())
	if v, _ := m.books.Agent(x.agent.id); shared.IsEmpty() || holdsAny(v.Used, shared) {
		return
	}
	for _, o := range inOrder(x.agent.offers) {
		if !slices.Contains(x.offers, o) && holdsAny(o.resources, shared) {
			m.rescind(o, "a shared volume in it is destroyed")
		}
	}
}

// one is shared resources, each once.
func one(r resource.Resources) resource.Resources {
	out := slices.Clone(r)
	for i := range out {
		out[i].Count = 1
	}
	return out
}

func holdsAny(r, shared resource.Resources) bool {
	for i := range shared {
		if r.Contains(shared[i : i+1]) {
			return true
		}
	}
	return false
}

// refusedConversion says why the books refuse a change, with who is in the way.
func (m *Machine) refusedConversion(a *agent, c operation.Change, err error) string {
	if users := m.usersOf(a, c.From); users != "" {
		return fmt.Sprintf("%s is in use by %s", c.From, users)
	}
	return err.Error()
}

// usersOf names those that use volumes, or anything at all that is not to be had
// elsewhere, of these resources.
func (m *Machine) usersOf(a *agent, r resource.Resources) string {
	var names []string
	wanted := operation.Volumes(r)
	for _, u := range m.books.UsesOn(a.id) {
		hit := slices.ContainsFunc(operation.Volumes(u.Resources), func(v operation.Volume) bool { return slices.Contains(wanted, v) })
		if !hit && len(wanted) == 0 {
			for i := range r {
				hit = hit || slices.ContainsFunc(u.Resources, func(o resource.Resource) bool { return o.Kind == r[i].Kind })
			}
		}
		if hit {
			names = append(names, fmt.Sprintf("%s %s of framework %s", u.Kind, u.ID, u.Framework))
		}
	}
	if len(names) > 3 {
		names = append(names[:3], fmt.Sprintf("%d more", len(names)-3))
	}
	return strings.Join(names, ", ")
}

// converted notes that resources of an agent are others now; the books know.
func (m *Machine) converted(a *agent, framework, role string, c operation.Change) {
	a.total = a.total.Minus(c.From).Add(c.To)
	a.version++
	m.touchReserved(c.From)
	m.touchReserved(c.To)
	m.touchAgent(a)
	m.tell(a, &allocator.Converted{Agent: a.id, Framework: framework, Role: role, From: c.From, To: c.To, Version: a.version})
}
