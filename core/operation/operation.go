// Package operation says what the operations on an agent's resources make of
// what: RESERVE, UNRESERVE, CREATE, DESTROY, GROW_VOLUME and SHRINK_VOLUME. It
// is pure, and shared by master and agent, so that both come to the same
// resources.
//
//	change, err := operation.Of(op)
//	if err == nil && total.Contains(change.From) {
//		total = total.Minus(change.From).Add(change.To)
//	}
package operation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Change is what an operation does: From becomes To. Neither is allocated to a
// role, and both have the same quantities.
type Change struct {
	From, To resource.Resources
}

// Of returns what an operation does. The error says what is wrong with the
// operation as such; whether From is there, and who may change it, is for the
// caller to check.
func Of(op *mezzov1.Offer_Operation) (Change, error) {
	switch op.GetType() {
	case mezzov1.Offer_Operation_RESERVE:
		return reserve(op.GetReserve())
	case mezzov1.Offer_Operation_UNRESERVE:
		return unreserve(op.GetUnreserve())
	case mezzov1.Offer_Operation_CREATE:
		return create(op.GetCreate())
	case mezzov1.Offer_Operation_DESTROY:
		return destroy(op.GetDestroy())
	case mezzov1.Offer_Operation_GROW_VOLUME:
		return grow(op.GetGrowVolume())
	case mezzov1.Offer_Operation_SHRINK_VOLUME:
		return shrink(op.GetShrinkVolume())
	case mezzov1.Offer_Operation_CREATE_DISK, mezzov1.Offer_Operation_DESTROY_DISK:
		return Change{}, fmt.Errorf("the operation %s needs a resource provider, and Mezzo has none", op.GetType())
	}
	return Change{}, errors.New("unknown operation type")
}

// read reads the resources that an operation names.
func read(list []*mezzov1.Resource, check func(resource.Kind) string) (resource.Resources, error) {
	if len(list) == 0 {
		return nil, errors.New("the operation names no resources")
	}
	res, err := resource.FromProto(list)
	if err != nil {
		return nil, err
	}
	for i := range res {
		if why := check(res[i].Kind); why != "" {
			return nil, fmt.Errorf("%s: %s", res[i:i+1], why)
		}
	}
	return res.Unallocate(), nil
}

func reserve(r *mezzov1.Offer_Operation_Reserve) (Change, error) {
	to, err := read(r.GetResources(), func(k resource.Kind) string {
		switch {
		case k.Revocable():
			return "revocable resources cannot be reserved"
		case k.PersistenceID() != "":
			return "a persistent volume cannot be reserved; the disk that it is made of can"
		}
		return dynamic(k)
	})
	if err != nil {
		return Change{}, err
	}
	if len(r.GetSource()) == 0 {
		return Change{From: to.Pop(), To: to}, nil
	}
	from, err := read(r.GetSource(), func(k resource.Kind) string {
		if k.PersistenceID() != "" {
			return "a persistent volume must be destroyed before its disk is reserved otherwise"
		}
		return ""
	})
	if err != nil {
		return Change{}, fmt.Errorf("source: %w", err)
	}
	return Change{From: from, To: to}, moved(from, to)
}

// moved checks that reservations change by dynamic ones alone: what is above
// the part that both have in common is unreserved, then reserved anew.
func moved(from, to resource.Resources) error {
	if a, b := from.ToUnreserved(), to.ToUnreserved(); !a.Equal(b) {
		return fmt.Errorf("the source %s and the resources %s differ in more than their reservations", from, to)
	}
	for _, list := range []resource.Resources{from, to} {
		for i := range list {
			if list[i].Kind.Reservations() == nil {
				continue
			}
			for _, other := range []resource.Resources{from, to} {
				for j := range other {
					if why := staticOnly(list[i].Kind, other[j].Kind); why != "" {
						return fmt.Errorf("%s cannot become %s: %s", from, to, why)
					}
				}
			}
		}
	}
	return nil
}

// staticOnly checks that static reservations are the same in both.
func staticOnly(a, b resource.Kind) string {
	if a.ToUnreserved() != b.ToUnreserved() {
		return "" // another resource
	}
	if x, y := static(a), static(b); x != y {
		return fmt.Sprintf("the static reservation to %q is the agent's configuration", x+y)
	}
	return ""
}

// static is the role of a static reservation, which is always the first; empty:
// there is none.
func static(k resource.Kind) string {
	if stack := k.Reservations(); len(stack) > 0 && !stack[0].Dynamic {
		return stack[0].Role
	}
	return ""
}

func unreserve(u *mezzov1.Offer_Operation_Unreserve) (Change, error) {
	from, err := read(u.GetResources(), func(k resource.Kind) string {
		if why := dynamic(k); why != "" {
			return why
		}
		if k.PersistenceID() != "" {
			return "a persistent volume must be destroyed before it is unreserved"
		}
		return ""
	})
	return Change{From: from, To: from.Pop()}, err
}

func create(c *mezzov1.Offer_Operation_Create) (Change, error) {
	to, err := read(c.GetVolumes(), checkVolume)
	if err == nil {
		err = unique(to)
	}
	return Change{From: Plain(to), To: to}, err
}

func destroy(d *mezzov1.Offer_Operation_Destroy) (Change, error) {
	from, err := read(d.GetVolumes(), checkVolume)
	if err == nil {
		err = unique(from)
	}
	return Change{From: from, To: Plain(from)}, err
}

func grow(g *mezzov1.Offer_Operation_GrowVolume) (Change, error) {
	if g == nil {
		return Change{}, errors.New("'grow_volume' is not set")
	}
	volume, err := read([]*mezzov1.Resource{g.GetVolume()}, checkResizable)
	if err != nil {
		return Change{}, err
	}
	addition, err := read([]*mezzov1.Resource{g.GetAddition()}, func(resource.Kind) string { return "" })
	if err != nil {
		return Change{}, fmt.Errorf("'grow_volume.addition': %w", err)
	}
	if len(addition) != 1 || addition[0].Kind != plainKind(volume[0].Kind) {
		return Change{}, fmt.Errorf("'grow_volume.addition' must be disk like that of the volume, %s, and is %s", Plain(volume), addition)
	}
	grown := volume[0]
	grown.Scalar += addition[0].Scalar
	return Change{From: volume.Add(addition), To: resource.Of(grown)}, nil
}

func shrink(s *mezzov1.Offer_Operation_ShrinkVolume) (Change, error) {
	if s == nil {
		return Change{}, errors.New("'shrink_volume' is not set")
	}
	volume, err := read([]*mezzov1.Resource{s.GetVolume()}, checkResizable)
	if err != nil {
		return Change{}, err
	}
	less := s.GetSubtract().GetValue()
	if !(less > 0) || less >= volume[0].Scalar.Float() || resource.ScalarFromFloat(less) <= 0 || resource.ScalarFromFloat(less) >= volume[0].Scalar {
		return Change{}, errors.New("'shrink_volume.subtract' must be positive and less than the volume")
	}
	shrunk := volume[0]
	shrunk.Scalar -= resource.ScalarFromFloat(less)
	freed := resource.Resource{Kind: plainKind(volume[0].Kind), Scalar: resource.ScalarFromFloat(less)}
	return Change{From: volume, To: resource.Of(shrunk, freed)}, nil
}

func dynamic(k resource.Kind) string {
	stack := k.Reservations()
	if len(stack) == 0 || !stack[len(stack)-1].Dynamic {
		return "it is not dynamically reserved"
	}
	return ""
}

func checkVolume(k resource.Kind) string {
	switch {
	case k.PersistenceID() == "":
		return "it is not a persistent volume"
	case k.Revocable():
		return "a persistent volume cannot be revocable"
	}
	return ""
}

func checkResizable(k resource.Kind) string {
	if why := checkVolume(k); why != "" {
		return why
	}
	switch {
	case k.Shared():
		return "a shared volume cannot be resized"
	case k.Disk().GetSource().GetType() == mezzov1.Resource_DiskInfo_Source_MOUNT:
		return "a volume on a MOUNT disk has all of it and cannot be resized"
	}
	return ""
}

// unique checks that no volume is there twice.
func unique(volumes resource.Resources) error {
	var seen []string
	for i := range volumes {
		id := VolumeOf(volumes[i].Kind).String()
		if slices.Contains(seen, id) || volumes[i].Count > 1 {
			return fmt.Errorf("volume %s is there twice", id)
		}
		seen = append(seen, id)
	}
	return nil
}

// Plain returns resources without what makes volumes of them: as the disk was
// before CREATE.
func Plain(r resource.Resources) resource.Resources {
	out := resource.Resources(nil)
	for i := range r {
		one := r[i]
		if kind := plainKind(one.Kind); kind != one.Kind {
			one.Kind, one.Count = kind, 0
			if kind.Atomic() {
				one.Count = 1
			}
		}
		out = out.Add(resource.Of(one))
	}
	return out
}

func plainKind(k resource.Kind) resource.Kind {
	d := k.Disk()
	if d.GetPersistence() == nil {
		return k
	}
	d.Persistence, d.Volume = nil, nil
	if d.GetSource() == nil {
		d = nil
	}
	return k.WithDisk(d).WithShared(false)
}

// Volume names a persistent volume on an agent.
type Volume struct {
	Role string
	ID   string
}

// VolumeOf returns the volume that the resource is; the zero value for none.
func VolumeOf(k resource.Kind) Volume {
	if id := k.PersistenceID(); id != "" {
		return Volume{k.Role(), id}
	}
	return Volume{}
}

// String returns, say, "data of role db".
func (v Volume) String() string { return v.ID + " of role " + v.Role }

// Volumes returns the volumes among resources, in their order.
func Volumes(r resource.Resources) []Volume {
	var list []Volume
	for i := range r {
		if v := VolumeOf(r[i].Kind); v != (Volume{}) {
			list = append(list, v)
		}
	}
	return list
}
