package state

import (
	"fmt"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// convert handles the operations that change resources: reserve, unreserve,
// create, destroy, grow, shrink. Each is checked whole; one that is right is
// then refused, since agents of this version cannot carry it out.
func (m *Machine) convert(x *acceptance, op *mezzov1.Offer_Operation) {
	why := m.checkConversion(x, op)
	if why == "" {
		why = fmt.Sprintf("agent %s does not support the operation %s", x.agent.id, op.GetType())
	}
	m.refuseOperation(x.framework, op, why)
}

// checkConversion says what is wrong with an operation.
func (m *Machine) checkConversion(x *acceptance, op *mezzov1.Offer_Operation) string {
	switch op.GetType() {
	case mezzov1.Offer_Operation_RESERVE:
		if len(op.GetReserve().GetSource()) > 0 {
			return "'Reserve.source' is not allowed in the scheduler API"
		}
		return x.checkEach(op.GetReserve().GetResources(), x.checkReserve)
	case mezzov1.Offer_Operation_UNRESERVE:
		return x.checkEach(op.GetUnreserve().GetResources(), func(k resource.Kind) string {
			if why := dynamic(k); why != "" {
				return why
			}
			if k.PersistenceID() != "" {
				return "a persistent volume must be destroyed before it is unreserved"
			}
			return ""
		})
	case mezzov1.Offer_Operation_CREATE:
		return x.checkEach(op.GetCreate().GetVolumes(), x.checkCreate)
	case mezzov1.Offer_Operation_DESTROY:
		return x.checkEach(op.GetDestroy().GetVolumes(), volume)
	case mezzov1.Offer_Operation_GROW_VOLUME:
		g := op.GetGrowVolume()
		if g == nil {
			return "'grow_volume' is not set"
		}
		return x.checkEach([]*mezzov1.Resource{g.GetVolume()}, volume)
	case mezzov1.Offer_Operation_SHRINK_VOLUME:
		s := op.GetShrinkVolume()
		if s == nil {
			return "'shrink_volume' is not set"
		}
		if v := s.GetSubtract().GetValue(); !(v > 0) || v >= s.GetVolume().GetScalar().GetValue() {
			return "'shrink_volume.subtract' must be positive and less than the volume"
		}
		return x.checkEach([]*mezzov1.Resource{s.GetVolume()}, volume)
	case mezzov1.Offer_Operation_CREATE_DISK, mezzov1.Offer_Operation_DESTROY_DISK:
		return fmt.Sprintf("the operation %s needs a resource provider, and Mezzo has none", op.GetType())
	}
	return "Unknown operation type"
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
		if why := check(res[i].Kind); why != "" {
			return fmt.Sprintf("%s: %s", res[i:i+1], why)
		}
	}
	return ""
}

func dynamic(k resource.Kind) string {
	stack := k.Reservations()
	if len(stack) == 0 || !stack[len(stack)-1].Dynamic {
		return "it is not dynamically reserved"
	}
	return ""
}

func volume(k resource.Kind) string {
	if k.PersistenceID() == "" {
		return "it is not a persistent volume"
	}
	return ""
}

func (x *acceptance) checkReserve(k resource.Kind) string {
	if why := dynamic(k); why != "" {
		return why
	}
	stack := k.Reservations()
	last := stack[len(stack)-1]
	switch principal := x.framework.info.GetPrincipal(); {
	case k.Revocable():
		return "revocable resources cannot be reserved"
	case last.Role != x.role:
		return fmt.Sprintf("it is to be reserved to role '%s', the offer is for role '%s'", last.Role, x.role)
	case principal != "" && last.Principal != principal:
		return fmt.Sprintf("its reservation's principal '%s' is not the framework's '%s'", last.Principal, principal)
	}
	return ""
}

func (x *acceptance) checkCreate(k resource.Kind) string {
	d := k.Disk()
	switch {
	case k.PersistenceID() == "":
		return "'disk.persistence.id' is not set"
	case d.GetVolume().GetContainerPath() == "":
		return "'disk.volume.container_path' is not set"
	case d.GetVolume().HostPath != nil:
		return "'disk.volume.host_path' must not be set"
	case d.GetVolume().GetMode() != mezzov1.Volume_RW:
		return "'disk.volume.mode' must be RW"
	case !k.IsReserved():
		return "a persistent volume needs reserved disk"
	case k.Revocable():
		return "a persistent volume cannot be revocable"
	case k.Shared() && !x.framework.capabilities[mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES]:
		return "the framework is not capable of shared resources"
	}
	principal := x.framework.info.GetPrincipal()
	if p := d.GetPersistence().GetPrincipal(); principal != "" && p != principal {
		return fmt.Sprintf("the volume's principal '%s' is not the framework's '%s'", p, principal)
	}
	return ""
}
