package resource

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"unique"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Type is the form of a resource's value.
type Type uint8

const (
	// TypeScalar is a decimal number with three decimals, such as cpus.
	TypeScalar Type = iota + 1
	// TypeRanges is a list of closed intervals of numbers, such as ports.
	TypeRanges
	// TypeSet is a set of texts, such as zones.
	TypeSet
)

// String returns "scalar", "ranges" or "set".
func (t Type) String() string {
	switch t {
	case TypeScalar:
		return "scalar"
	case TypeRanges:
		return "ranges"
	case TypeSet:
		return "set"
	}
	return "no type"
}

// Unreserved is the role of resources that nobody has reserved.
const Unreserved = "*"

// Reservation is one entry of a kind's reservation stack.
type Reservation struct {
	// Role is whom the resource is reserved to; never "*".
	Role string
	// Dynamic tells a reservation made by an operation from one in the agent's
	// configuration (static).
	Dynamic bool
	// Principal is who made the reservation; empty when unknown.
	Principal string
	// Labels are the maker's own; their order does not matter. Nil when none.
	Labels *mezzov1.Labels
}

// Kind is a resource's identity: everything but how much of it there is. That
// is its name, type, reservations, disk, provider, whether it is revocable or
// shared, and the role that it is allocated to.
//
// Kinds are compared with ==, may be map keys, are four words long, and are
// safe for concurrent use. The zero Kind has no name and belongs to no
// resource; its methods answer with zero values.
type Kind struct {
	base unique.Handle[kindKey]
	// name is that of base, beside it because it is what most questions are about.
	name       unique.Handle[string]
	allocation unique.Handle[string]
	typ        Type
	flags      kindFlags
}

type kindFlags uint8

const (
	flagRevocable kindFlags = 1 << iota
	flagShared
	flagIndivisible
	flagReserved
	flagRefined
)

// kindKey is what makes a kind, in comparable form. role is derived from
// reservations and kept because it is asked for often.
type kindKey struct {
	name         string
	role         string
	reservations string // marshalled, each with its length before it
	disk         string // a marshalled DiskInfo
	provider     string
	typ          Type
	flags        kindFlags
}

var canonical = proto.MarshalOptions{Deterministic: true, AllowPartial: true}

func newKind(key kindKey, allocation string) Kind {
	k := Kind{base: unique.Make(key), name: unique.Make(key.name), typ: key.typ, flags: key.flags}
	if allocation != "" {
		k.allocation = unique.Make(allocation)
	}
	return k
}

// ScalarKind returns the kind of an unreserved scalar, such as cpus.
func ScalarKind(name string) Kind {
	return newKind(kindKey{name: name, role: Unreserved, typ: TypeScalar}, "")
}

// RangesKind returns the kind of unreserved ranges, such as ports.
func RangesKind(name string) Kind {
	return newKind(kindKey{name: name, role: Unreserved, typ: TypeRanges}, "")
}

// SetKind returns the kind of an unreserved set.
func SetKind(name string) Kind {
	return newKind(kindKey{name: name, role: Unreserved, typ: TypeSet}, "")
}

// IsZero reports whether k is the zero Kind.
func (k Kind) IsZero() bool { return k.base == unique.Handle[kindKey]{} }

func (k Kind) key() kindKey {
	if k.IsZero() {
		return kindKey{}
	}
	return k.base.Value()
}

// Name returns the resource's name, such as "cpus".
func (k Kind) Name() string {
	if k.IsZero() {
		return ""
	}
	return k.name.Value()
}

// Type returns the form of the resource's value.
func (k Kind) Type() Type { return k.typ }

// Role returns the role that the resource is reserved to, which is that of the
// innermost reservation; "*" if it is unreserved.
func (k Kind) Role() string {
	if !k.IsReserved() && !k.IsZero() {
		return Unreserved
	}
	return k.key().role
}

// IsReserved reports whether the resource is reserved to a role.
func (k Kind) IsReserved() bool { return k.flags&flagReserved != 0 }

// IsRefined reports whether the resource has more than one reservation, which
// only frameworks with RESERVATION_REFINEMENT understand.
func (k Kind) IsRefined() bool { return k.flags&flagRefined != 0 }

// Revocable reports whether the resource may be taken back from a task.
func (k Kind) Revocable() bool { return k.flags&flagRevocable != 0 }

// Shared reports whether several tasks may use the resource at a time.
func (k Kind) Shared() bool { return k.flags&flagShared != 0 }

// Indivisible reports whether the resource can only be taken whole: a MOUNT or
// BLOCK disk, a RAW disk with an id, a persistent volume.
func (k Kind) Indivisible() bool { return k.flags&flagIndivisible != 0 }

// Atomic reports whether resources of the kind are counted in whole copies:
// they are shared or indivisible. See Resource.Count.
func (k Kind) Atomic() bool { return k.flags&(flagShared|flagIndivisible) != 0 }

// Allocation returns the role that the resource is allocated to; "" if none.
func (k Kind) Allocation() string {
	if k.allocation == (unique.Handle[string]{}) {
		return ""
	}
	return k.allocation.Value()
}

// WithAllocation returns the kind allocated to role; "" for none.
func (k Kind) WithAllocation(role string) Kind {
	if role == "" {
		k.allocation = unique.Handle[string]{}
	} else {
		k.allocation = unique.Make(role)
	}
	return k
}

// Reservations returns the reservation stack, outermost (coarsest) first; nil
// if the resource is unreserved. The caller owns it.
func (k Kind) Reservations() []Reservation {
	var stack []Reservation
	for _, b := range splitStack(k.key().reservations) {
		stack = append(stack, decodeReservation(b))
	}
	return stack
}

// Push returns the kind with one more reservation, the innermost from now on.
// It does not check that the role refines the one before; Validate does.
func (k Kind) Push(r Reservation) Kind {
	key := k.key()
	key.reservations += encodeReservation(r)
	return k.restacked(key)
}

// Pop returns the kind without its innermost reservation; an unreserved kind
// is returned as it is.
func (k Kind) Pop() Kind {
	key := k.key()
	parts := splitStack(key.reservations)
	if len(parts) == 0 {
		return k
	}
	last := parts[len(parts)-1]
	key.reservations = key.reservations[:len(key.reservations)-len(last)-lengthSize]
	return k.restacked(key)
}

// ToUnreserved returns the kind without any reservation.
func (k Kind) ToUnreserved() Kind {
	if !k.IsReserved() {
		return k
	}
	key := k.key()
	key.reservations = ""
	return k.restacked(key)
}

// restacked makes the kind of key after its reservations changed.
func (k Kind) restacked(key kindKey) Kind {
	parts := splitStack(key.reservations)
	key.flags &^= flagReserved | flagRefined
	key.role = Unreserved
	if len(parts) > 0 {
		key.flags |= flagReserved
		key.role = decodeReservation(parts[len(parts)-1]).Role
	}
	if len(parts) > 1 {
		key.flags |= flagRefined
	}
	n := newKind(key, "")
	n.allocation = k.allocation
	return n
}

// Disk returns what kind of disk it is; nil if nothing special. The caller
// owns it.
func (k Kind) Disk() *mezzov1.Resource_DiskInfo {
	text := k.key().disk
	if text == "" {
		return nil
	}
	d := new(mezzov1.Resource_DiskInfo)
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(text), d); err != nil {
		panic("resource: a kind's own disk does not decode: " + err.Error())
	}
	return d
}

// WithDisk returns the kind with this disk; nil for none.
func (k Kind) WithDisk(d *mezzov1.Resource_DiskInfo) Kind {
	key := k.key()
	key.disk = encodeDisk(d)
	key.flags &^= flagIndivisible
	if indivisible(d) {
		key.flags |= flagIndivisible
	}
	n := newKind(key, "")
	n.allocation = k.allocation
	return n
}

// PersistenceID returns the id of the persistent volume that the resource is;
// "" if it is none.
func (k Kind) PersistenceID() string {
	if k.key().disk == "" {
		return ""
	}
	return k.Disk().GetPersistence().GetId()
}

// Provider returns the id of the resource provider; "" for the agent itself.
func (k Kind) Provider() string { return k.key().provider }

// WithRevocable returns the kind, revocable or not.
func (k Kind) WithRevocable(on bool) Kind { return k.withFlag(flagRevocable, on) }

// WithShared returns the kind, shared or not.
func (k Kind) WithShared(on bool) Kind { return k.withFlag(flagShared, on) }

func (k Kind) withFlag(f kindFlags, on bool) Kind {
	key := k.key()
	key.flags &^= f
	if on {
		key.flags |= f
	}
	n := newKind(key, "")
	n.allocation = k.allocation
	return n
}

// Identity returns what else tells the kind apart, its disk and its provider,
// as a canonical text; "" if it has neither. It is for comparing and showing,
// not for parsing.
func (k Kind) Identity() string {
	key := k.key()
	var parts []string
	if key.disk != "" {
		parts = append(parts, "disk "+compactJSON(k.Disk()))
	}
	if key.provider != "" {
		parts = append(parts, "provider "+key.provider)
	}
	return strings.Join(parts, ", ")
}

// Compare orders kinds: by name, then unreserved before reserved by role, and
// so on through all that makes a kind. It returns -1, 0 or 1, and 0 only for
// equal kinds.
func (k Kind) Compare(o Kind) int {
	if k == o {
		return 0
	}
	if k.name != o.name {
		return strings.Compare(k.Name(), o.Name())
	}
	if k.base != o.base {
		a, b := k.key(), o.key()
		if c := a.compare(&b); c != 0 {
			return c
		}
	}
	return strings.Compare(k.Allocation(), o.Allocation())
}

func (a *kindKey) compare(b *kindKey) int {
	return cmp.Or(
		cmp.Compare(a.typ, b.typ),
		cmp.Compare(a.flags&flagReserved, b.flags&flagReserved),
		strings.Compare(a.role, b.role),
		strings.Compare(a.reservations, b.reservations),
		cmp.Compare(a.flags, b.flags),
		strings.Compare(a.disk, b.disk),
		strings.Compare(a.provider, b.provider),
	)
}

// String returns the kind as it is written before the colon of the text form.
func (k Kind) String() string {
	if k.IsZero() {
		return "(no kind)"
	}
	if text, ok := kindText(k); ok {
		return text
	}
	return compactJSON(k.ToProto())
}

// ToProto returns a Resource of this kind with no value. The caller owns it.
func (k Kind) ToProto() *mezzov1.Resource {
	key := k.key()
	r := &mezzov1.Resource{Name: proto.String(key.name), Type: protoType(key.typ).Enum(), Disk: k.Disk()}
	for _, b := range splitStack(key.reservations) {
		r.Reservations = append(r.Reservations, decodeReservation(b).toProto())
	}
	if k.Revocable() {
		r.Revocable = &mezzov1.Resource_RevocableInfo{}
	}
	if k.Shared() {
		r.Shared = &mezzov1.Resource_SharedInfo{}
	}
	if a := k.Allocation(); a != "" {
		r.AllocationInfo = &mezzov1.Resource_AllocationInfo{Role: proto.String(a)}
	}
	if key.provider != "" {
		r.ProviderId = &mezzov1.ResourceProviderID{Value: proto.String(key.provider)}
	}
	return r
}

// KindFromProto returns the kind of a v1 Resource; its value is not looked at.
// It accepts the older form of reservations (role and reservation), and fails
// when Validate would fail for another reason than the value.
func KindFromProto(r *mezzov1.Resource) (Kind, error) {
	if err := validateKind(r); err != nil {
		return Kind{}, err
	}
	return kindOf(r), nil
}

// kindOf makes the kind of a valid resource.
func kindOf(r *mezzov1.Resource) Kind {
	key := kindKey{name: r.GetName(), role: Unreserved, provider: r.GetProviderId().GetValue()}
	switch r.GetType() {
	case mezzov1.Value_RANGES:
		key.typ = TypeRanges
	case mezzov1.Value_SET:
		key.typ = TypeSet
	default:
		key.typ = TypeScalar
	}
	if r.GetRevocable() != nil {
		key.flags |= flagRevocable
	}
	if r.GetShared() != nil {
		key.flags |= flagShared
	}
	key.disk = encodeDisk(r.GetDisk())
	if indivisible(r.GetDisk()) {
		key.flags |= flagIndivisible
	}
	stack := stackOf(r)
	for i, p := range stack {
		key.reservations += encodeReservation(reservationFromProto(p))
		key.flags |= flagReserved
		if i > 0 {
			key.flags |= flagRefined
		}
		key.role = p.GetRole()
	}
	return newKind(key, r.GetAllocationInfo().GetRole())
}

// stackOf returns the reservations of r in the one form that we use, outermost
// first, whatever form r has.
func stackOf(r *mezzov1.Resource) []*mezzov1.Resource_ReservationInfo {
	if len(r.GetReservations()) > 0 {
		return r.GetReservations()
	}
	if r.GetRole() == Unreserved {
		return nil
	}
	info := &mezzov1.Resource_ReservationInfo{Role: proto.String(r.GetRole())}
	info.Type = mezzov1.Resource_ReservationInfo_STATIC.Enum()
	if old := r.GetReservation(); old != nil {
		info.Type = mezzov1.Resource_ReservationInfo_DYNAMIC.Enum()
		info.Principal = old.Principal
		info.Labels = old.Labels
	}
	return []*mezzov1.Resource_ReservationInfo{info}
}

func protoType(t Type) mezzov1.Value_Type {
	switch t {
	case TypeRanges:
		return mezzov1.Value_RANGES
	case TypeSet:
		return mezzov1.Value_SET
	}
	return mezzov1.Value_SCALAR
}

func indivisible(d *mezzov1.Resource_DiskInfo) bool {
	if d.GetPersistence() != nil {
		return true
	}
	if d.GetSource() == nil {
		return false
	}
	switch d.GetSource().GetType() {
	case mezzov1.Resource_DiskInfo_Source_MOUNT, mezzov1.Resource_DiskInfo_Source_BLOCK:
		return true
	case mezzov1.Resource_DiskInfo_Source_RAW:
		return d.GetSource().GetId() != ""
	}
	return false
}

func encodeDisk(d *mezzov1.Resource_DiskInfo) string {
	if d == nil {
		return ""
	}
	if d.GetSource().GetMetadata() != nil {
		d = proto.Clone(d).(*mezzov1.Resource_DiskInfo)
		d.Source.Metadata = sortedLabels(d.Source.Metadata)
	}
	b, err := canonical.Marshal(d)
	if err != nil {
		panic("resource: disk does not encode: " + err.Error())
	}
	return string(b)
}

func (r Reservation) toProto() *mezzov1.Resource_ReservationInfo {
	p := &mezzov1.Resource_ReservationInfo{
		Role:   proto.String(r.Role),
		Type:   mezzov1.Resource_ReservationInfo_STATIC.Enum(),
		Labels: r.Labels,
	}
	if r.Dynamic {
		p.Type = mezzov1.Resource_ReservationInfo_DYNAMIC.Enum()
	}
	if r.Principal != "" {
		p.Principal = proto.String(r.Principal)
	}
	return p
}

func reservationFromProto(p *mezzov1.Resource_ReservationInfo) Reservation {
	return Reservation{
		Role:      p.GetRole(),
		Dynamic:   p.GetType() == mezzov1.Resource_ReservationInfo_DYNAMIC,
		Principal: p.GetPrincipal(),
		Labels:    p.GetLabels(),
	}
}

// lengthSize is how many bytes stand before each reservation of a stack.
const lengthSize = 4

func encodeReservation(r Reservation) string {
	r.Labels = sortedLabels(r.Labels)
	b, err := canonical.Marshal(r.toProto())
	if err != nil {
		panic("resource: reservation does not encode: " + err.Error())
	}
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(b)))) + string(b)
}

func decodeReservation(b string) Reservation {
	p := new(mezzov1.Resource_ReservationInfo)
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(b), p); err != nil {
		panic("resource: a kind's own reservation does not decode: " + err.Error())
	}
	return reservationFromProto(p)
}

func splitStack(text string) []string {
	var parts []string
	for len(text) >= lengthSize {
		n := int(binary.BigEndian.Uint32([]byte(text[:lengthSize])))
		parts = append(parts, text[lengthSize:lengthSize+n])
		text = text[lengthSize+n:]
	}
	return parts
}

// sortedLabels returns the labels in a fixed order, since their order has no
// meaning; nil when there are none.
func sortedLabels(l *mezzov1.Labels) *mezzov1.Labels {
	if len(l.GetLabels()) == 0 {
		return nil
	}
	labels := slices.Clone(l.GetLabels())
	slices.SortStableFunc(labels, func(a, b *mezzov1.Label) int {
		return cmp.Or(strings.Compare(a.GetKey(), b.GetKey()), strings.Compare(a.GetValue(), b.GetValue()))
	})
	return &mezzov1.Labels{Labels: labels}
}

// compactJSON returns the JSON of m without spaces, whose number protojson
// leaves to chance.
func compactJSON(m proto.Message) string {
	b, err := protojson.MarshalOptions{UseProtoNames: true, AllowPartial: true}.Marshal(m)
	if err != nil {
		// A text in it is not UTF-8: show the bytes.
		raw, _ := canonical.Marshal(m)
		return strconv.Quote(string(raw))
	}
	return compact(b)
}
