package resource

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Validate checks a v1 Resource on its own: its name, its value, its
// reservations, its disk and what excludes what. An error names the resource
// and says what is wrong.
func Validate(r *mezzov1.Resource) error {
	if err := validateKind(r); err != nil {
		return err
	}
	if err := validateValue(r); err != nil {
		return fmt.Errorf("resource %q: %w", r.GetName(), err)
	}
	return nil
}

func validateKind(r *mezzov1.Resource) error {
	if r.GetName() == "" {
		return errors.New("a resource has no name")
	}
	for _, check := range [...]func(*mezzov1.Resource) error{validateTexts, validateReservations, validateDisk, validateMarks} {
		if err := check(r); err != nil {
			return fmt.Errorf("resource %q: %w", r.GetName(), err)
		}
	}
	return nil
}

func validateValue(r *mezzov1.Resource) error {
	if r.Type == nil {
		return errors.New("it has no type")
	}
	given := 0
	for _, set := range []bool{r.Scalar != nil, r.Ranges != nil, r.Set != nil} {
		if set {
			given++
		}
	}
	if given > 1 {
		return errors.New("it has values of several types; give one of scalar, ranges and set")
	}
	switch r.GetType() {
	case mezzov1.Value_SCALAR:
		if r.Scalar == nil {
			return errors.New("its type is SCALAR, and it has no scalar")
		}
		return validateScalar(r.GetName(), r.GetScalar().GetValue())
	case mezzov1.Value_RANGES:
		if r.Ranges == nil {
			return errors.New("its type is RANGES, and it has no ranges")
		}
		for _, x := range r.GetRanges().GetRange() {
			if x.GetBegin() > x.GetEnd() {
				return fmt.Errorf("the range %d-%d ends before it begins", x.GetBegin(), x.GetEnd())
			}
		}
	case mezzov1.Value_SET:
		if r.Set == nil {
			return errors.New("its type is SET, and it has no set")
		}
		return validateSet(r.GetSet().GetItem())
	default:
		return fmt.Errorf("its type is %s; a resource is SCALAR, RANGES or SET", r.GetType())
	}
	return nil
}

func validateScalar(name string, v float64) error {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return fmt.Errorf("its amount is %v, which is not a number to count with", v)
	case v < 0:
		return fmt.Errorf("its amount %v is negative", v)
	case v > MaxScalar.Float():
		return fmt.Errorf("its amount %v is more than %s, the most that is allowed", v, MaxScalar)
	case name == "gpus" && v != math.Trunc(v):
		return fmt.Errorf("its amount %v is not whole; gpus are given out one by one", v)
	}
	return nil
}

func validateSet(items []string) error {
	seen := make(map[string]bool, len(items))
	for _, item := range items {
		if item == "" {
			return errors.New("its set has an empty item")
		}
		if seen[item] {
			return fmt.Errorf("its set has the item %q twice", item)
		}
		seen[item] = true
	}
	return nil
}

// validateReservations checks the reservations in whatever form they are.
func validateReservations(r *mezzov1.Resource) error {
	stack := r.GetReservations()
	if len(stack) == 0 {
		if err := ValidateRole(r.GetRole()); err != nil {
			return err
		}
		if r.GetRole() == Unreserved && r.GetReservation() != nil {
			return errors.New("it has a reservation, and its role is \"*\"; reserve it to a role")
		}
		return nil
	}
	last := stack[len(stack)-1].GetRole()
	if role := r.GetRole(); role != Unreserved && role != last {
		return fmt.Errorf("its role %q contradicts its reservations, which end with %q; leave the old field role unset", role, last)
	}
	for i, res := range stack {
		if err := validateReservation(stack[:i], res); err != nil {
			return err
		}
	}
	return nil
}

func validateReservation(below []*mezzov1.Resource_ReservationInfo, res *mezzov1.Resource_ReservationInfo) error {
	role := res.GetRole()
	if res.Role == nil {
		return fmt.Errorf("reservation %d has no role", len(below)+1)
	}
	if err := ValidateRole(role); err != nil {
		return fmt.Errorf("reservation %d: %w", len(below)+1, err)
	}
	if role == Unreserved {
		return fmt.Errorf("reservation %d is to \"*\"; resources can only be reserved to a role of their own", len(below)+1)
	}
	switch res.GetType() {
	case mezzov1.Resource_ReservationInfo_STATIC, mezzov1.Resource_ReservationInfo_DYNAMIC:
	default:
		return fmt.Errorf("the reservation to %q has no type; it is STATIC or DYNAMIC", role)
	}
	if len(below) == 0 {
		return nil
	}
	if prev := below[len(below)-1].GetRole(); !IsAncestor(prev, role) {
		return fmt.Errorf("the reservation to %q does not refine the one to %q; its role must be below that", role, prev)
	}
	if res.GetType() == mezzov1.Resource_ReservationInfo_STATIC {
		return fmt.Errorf("the reservation to %q refines another and is STATIC; only DYNAMIC reservations refine", role)
	}
	return nil
}

func validateDisk(r *mezzov1.Resource) error {
	d := r.GetDisk()
	if d == nil {
		return nil
	}
	if r.GetName() != "disk" {
		return errors.New("it has disk information; only the resource \"disk\" may")
	}
	if r.GetType() != mezzov1.Value_SCALAR {
		return fmt.Errorf("a disk is SCALAR, not %s", r.GetType())
	}
	if d.GetSource() != nil {
		if err := validateSource(d.GetSource()); err != nil {
			return err
		}
	}
	switch {
	case d.GetPersistence() != nil:
		return validateVolume(r)
	case d.GetVolume() != nil:
		return errors.New("it has a volume without persistence; only persistent volumes have one")
	case d.GetSource() == nil:
		return errors.New("its disk information is empty; leave it out, or give a source or persistence")
	}
	return nil
}

func validateSource(s *mezzov1.Resource_DiskInfo_Source) error {
	switch s.GetType() {
	case mezzov1.Resource_DiskInfo_Source_PATH:
		if s.Mount != nil {
			return errors.New("its disk source is a PATH, and it has mount; give path")
		}
	case mezzov1.Resource_DiskInfo_Source_MOUNT:
		if s.Path != nil {
			return errors.New("its disk source is a MOUNT, and it has path; give mount")
		}
	case mezzov1.Resource_DiskInfo_Source_BLOCK, mezzov1.Resource_DiskInfo_Source_RAW:
		if s.Path != nil || s.Mount != nil {
			return fmt.Errorf("its disk source is %s, which has neither path nor mount", s.GetType())
		}
	default:
		return errors.New("its disk source has no type; it is PATH, MOUNT, BLOCK or RAW")
	}
	return nil
}

func validateVolume(r *mezzov1.Resource) error {
	d := r.GetDisk()
	id := d.GetPersistence().GetId()
	if err := ValidateID(id); err != nil {
		return fmt.Errorf("persistent volume: %w", err)
	}
	switch src := d.GetSource(); {
	case len(stackOf(r)) == 0:
		return fmt.Errorf("persistent volume %q is on unreserved disk; reserve it first", id)
	case src != nil && src.GetType() != mezzov1.Resource_DiskInfo_Source_PATH && src.GetType() != mezzov1.Resource_DiskInfo_Source_MOUNT:
		return fmt.Errorf("persistent volume %q is on a %s disk; it must be on a PATH or MOUNT disk", id, src.GetType())
	case d.GetVolume() == nil:
		return fmt.Errorf("persistent volume %q has no volume, so no container path", id)
	case d.GetVolume().GetMode() == mezzov1.Volume_RO:
		return fmt.Errorf("persistent volume %q is read-only (RO); it must be RW", id)
	case d.GetVolume().HostPath != nil:
		return fmt.Errorf("persistent volume %q has a host path; the agent chooses where it lies", id)
	case d.GetVolume().GetContainerPath() == "":
		return fmt.Errorf("persistent volume %q has no container path", id)
	}
	return nil
}

func validateMarks(r *mezzov1.Resource) error {
	if r.GetRevocable() != nil {
		if len(stackOf(r)) > 0 {
			return errors.New("it is revocable and reserved; revocable resources cannot be reserved")
		}
	}
	if r.GetShared() != nil && r.GetDisk().GetPersistence() == nil {
		return errors.New("it is shared; only persistent volumes can be")
	}
	if a := r.GetAllocationInfo(); a != nil {
		if err := ValidateRole(a.GetRole()); err != nil {
			return fmt.Errorf("allocation: %w", err)
		}
	}
	if p := r.GetProviderId(); p != nil && p.GetValue() == "" {
		return errors.New("its provider has an empty id")
	}
	return nil
}

// ValidateID checks an id that people or programs choose (of a task, an
// executor, a persistent volume) and that may become the name of a directory.
func ValidateID(id string) error {
	switch {
	case id == "":
		return errors.New("the id is empty")
	case len(id) > 255:
		return fmt.Errorf("the id %.20q… is %d bytes long; at most 255 are allowed", id, len(id))
	case id == "." || id == "..":
		return fmt.Errorf("the id %q is not allowed", id)
	case !utf8.ValidString(id):
		return fmt.Errorf("the id %q is not valid UTF-8", id)
	}
	if i := strings.IndexFunc(id, func(c rune) bool { return c == '/' || c == '\\' || unicode.IsControl(c) }); i >= 0 {
		return fmt.Errorf("the id %q holds the character %q; slashes and control characters are not allowed", id, id[i])
	}
	return nil
}

// validateTexts checks that every string is UTF-8, since the wire format of v1
// does not, and the JSON form cannot hold anything else. Roles, which have their
// own check, and names are all that most resources have of strings; the rest is
// looked at only where there is more.
func validateTexts(r *mezzov1.Resource) error {
	if !utf8.ValidString(r.GetName()) || r.Set != nil || r.Disk != nil || r.Reservation != nil ||
		len(r.Reservations) > 0 || r.ProviderId != nil {
		return checkUTF8(r.ProtoReflect())
	}
	return nil
}

// checkUTF8 looks at every string of m.
func checkUTF8(m protoreflect.Message) error {
	var bad error
	check := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch fd.Kind() {
		case protoreflect.StringKind:
			if !utf8.ValidString(v.String()) {
				bad = fmt.Errorf("the text %q in %s is not valid UTF-8", v.String(), fd.FullName())
			}
		case protoreflect.MessageKind:
			bad = checkUTF8(v.Message())
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.IsList() {
			for i := 0; i < v.List().Len() && bad == nil; i++ {
				check(fd, v.List().Get(i))
			}
		} else if !fd.IsMap() {
			check(fd, v)
		}
		return bad == nil
	})
	return bad
}
