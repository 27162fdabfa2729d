// Package convert turns the older forms of resources and roles into the one that
// Mezzo has inside, and back for those who know no other.
//
// Three forms of a resource's reservation exist:
//
//	              not reserved      by configuration                 by RESERVE                            refined
//	old           role: "*"         role: R                          role: R, reservation {principal, …}   none
//	new           (nothing)         reservations [STATIC R]          reservations [DYNAMIC R principal …]  reservations […, …]
//	both          old and new       old and new                      old and new                           new
//
// Inside there is the new one. Frameworks without the capability
// RESERVATION_REFINEMENT read the old one; the legacy endpoints and GET_FRAMEWORKS
// show both. All may be written in a request. Who has not MULTI_ROLE sees no
// allocation_info; the master fills it in from the offer where a request lacks it.
package convert

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/walk"
)

// Form is what a framework reads.
type Form struct {
	Refinement bool // reservations as a stack
	MultiRole  bool // allocation_info
}

// FormOf returns the form that a framework's capabilities ask for.
func FormOf(info *mezzov1.FrameworkInfo) Form {
	return Form{
		Refinement: has(info, mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT),
		MultiRole:  has(info, mezzov1.FrameworkInfo_Capability_MULTI_ROLE),
	}
}

func has(info *mezzov1.FrameworkInfo, capability mezzov1.FrameworkInfo_Capability_Type) bool {
	for _, c := range info.GetCapabilities() {
		if c.GetType() == capability {
			return true
		}
	}
	return false
}

// Converter converts all resources that are in a message, wherever they are. It
// learns each type of message once, so keep it. It is safe for concurrent use on
// different messages.
type Converter struct{ fields *walk.Walker }

// New returns a converter.
func New() *Converter {
	return &Converter{walk.New(func(fd protoreflect.FieldDescriptor) bool {
		m := fd.Message()
		return m != nil && !fd.IsMap() && (m.FullName() == resourceName || m.FullName() == allocationName)
	})}
}

var (
	resourceName   = (&mezzov1.Resource{}).ProtoReflect().Descriptor().FullName()
	allocationName = (&mezzov1.Resource_AllocationInfo{}).ProtoReflect().Descriptor().FullName()
)

// Upgrade changes the resources in a request to the new form, in place. One that
// contradicts itself is left as it is, for the master to refuse where it would
// take effect.
func (c *Converter) Upgrade(m proto.Message) {
	c.each(m, Upgrade, nil)
}

// Downgrade changes what goes to a framework to its form, in place. It is false if
// there are refined reservations that the form cannot tell of; those are left as
// they are. The master offers none to such frameworks.
func (c *Converter) Downgrade(m proto.Message, form Form) bool {
	if form.Refinement && form.MultiRole {
		return true
	}
	whole := true
	c.each(m, func(r *mezzov1.Resource) {
		if !form.MultiRole {
			r.AllocationInfo = nil
		}
		if !form.Refinement {
			whole = Downgrade(r) && whole
		}
	}, func(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
		if !form.MultiRole {
			m.Clear(fd)
		}
	})
	return whole
}

// each calls change for each resource in m, and allocation, if there is one, for
// each field that says who something is allocated to outside of a resource.
func (c *Converter) each(m proto.Message, change func(*mezzov1.Resource), allocation func(protoreflect.Message, protoreflect.FieldDescriptor)) {
	if r, ok := m.(*mezzov1.Resource); ok {
		change(r)
		return
	}
	apply := func(v protoreflect.Value) {
		if r, ok := v.Message().Interface().(*mezzov1.Resource); ok {
			change(r)
		}
	}
	// The visitor has no errors, so there are none.
	_ = c.fields.Visit(m.ProtoReflect(), func(m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
		switch {
		case fd.Message().FullName() != resourceName:
			if allocation != nil {
				allocation(m, fd)
			}
		case fd.IsList():
			for i, list := 0, m.Get(fd).List(); i < list.Len(); i++ {
				apply(list.Get(i))
			}
		default:
			apply(m.Get(fd))
		}
		return nil
	})
}

const unreserved = "*"

// Upgrade changes a resource to the new form, from whichever it has. If it
// contradicts itself it is left as it is.
func Upgrade(r *mezzov1.Resource) {
	stack := r.GetReservations()
	switch role := r.GetRole(); {
	case len(stack) > 0:
		if role != unreserved && role != stack[len(stack)-1].GetRole() {
			return
		}
	case role == unreserved:
		if r.Reservation != nil {
			return
		}
	case r.Reservation == nil:
		r.Reservations = []*mezzov1.Resource_ReservationInfo{{
			Type: mezzov1.Resource_ReservationInfo_STATIC.Enum(), Role: r.Role,
		}}
	default:
		r.Reservations = []*mezzov1.Resource_ReservationInfo{{
			Type: mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: r.Role,
			Principal: r.Reservation.Principal, Labels: r.Reservation.Labels,
		}}
	}
	r.Role, r.Reservation = nil, nil
}

// Downgrade changes a resource from the new form to the old one. It is false, and
// changes nothing, if the reservation is refined.
func Downgrade(r *mezzov1.Resource) bool {
	if !describe(r) {
		return false
	}
	r.Reservations = nil
	return true
}

// Both adds the old form to a resource in the new one, unless its reservation is
// refined.
func Both(r *mezzov1.Resource) { describe(r) }

// describe sets the fields of the old form. It is false if that has none for the
// resource.
func describe(r *mezzov1.Resource) bool {
	switch stack := r.GetReservations(); len(stack) {
	case 0:
		if r.Role == nil { // else it has the old form already
			r.Role = proto.String(unreserved)
		}
	case 1:
		r.Role, r.Reservation = proto.String(stack[0].GetRole()), nil
		if stack[0].GetType() == mezzov1.Resource_ReservationInfo_DYNAMIC {
			r.Reservation = &mezzov1.Resource_ReservationInfo{Principal: stack[0].Principal, Labels: stack[0].Labels}
		}
	default:
		return false
	}
	return true
}
