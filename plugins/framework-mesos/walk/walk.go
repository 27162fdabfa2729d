// Package walk finds all fields of some kind in a message and the messages in it,
// without looking where none can be.
package walk

import (
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Walker visits the fields that it was made for. It compiles a plan for each
// message type that it meets and keeps it, so it should be made once. It is safe
// for concurrent use on different messages.
type Walker struct {
	wanted func(protoreflect.FieldDescriptor) bool

	mu    sync.RWMutex
	plans map[protoreflect.MessageDescriptor]*plan
}

// New returns a walker that visits the fields for which wanted is true. It always
// has to give the same answer for the same field.
func New(wanted func(protoreflect.FieldDescriptor) bool) *Walker {
	return &Walker{wanted: wanted, plans: map[protoreflect.MessageDescriptor]*plan{}}
}

// A plan says where in messages of a type there may be something to visit.
type plan struct {
	fields   []protoreflect.FieldDescriptor // to visit
	children []child                        // to go into
}

type child struct {
	field protoreflect.FieldDescriptor
	plan  *plan
}

// Visit calls visit for each wanted field that is set, with the message that it is
// in: those of a message before those of the messages in it, in the order of the
// schema. visit may change the field. What is in a field that was visited is not
// looked at. It stops at the first error, and returns it.
func (w *Walker) Visit(m protoreflect.Message, visit func(protoreflect.Message, protoreflect.FieldDescriptor) error) error {
	return w.plan(m.Descriptor()).walk(m, visit)
}

func (p *plan) walk(m protoreflect.Message, visit func(protoreflect.Message, protoreflect.FieldDescriptor) error) error {
	for _, fd := range p.fields {
		if m.Has(fd) {
			if err := visit(m, fd); err != nil {
				return err
			}
		}
	}
	for _, c := range p.children {
		if m.Has(c.field) {
			if err := c.walk(m.Get(c.field), visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *child) walk(v protoreflect.Value, visit func(protoreflect.Message, protoreflect.FieldDescriptor) error) (err error) {
	switch {
	case c.field.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, element protoreflect.Value) bool {
			err = c.plan.walk(element.Message(), visit)
			return err == nil
		})
		return err
	case c.field.IsList():
		for i, list := 0, v.List(); i < list.Len(); i++ {
			if err := c.plan.walk(list.Get(i).Message(), visit); err != nil {
				return err
			}
		}
		return nil
	}
	return c.plan.walk(v.Message(), visit)
}

// plan finds or makes the plan for a type.
func (w *Walker) plan(d protoreflect.MessageDescriptor) *plan {
	w.mu.RLock()
	p := w.plans[d]
	w.mu.RUnlock()
	if p != nil {
		return p
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.plans[d]; p != nil {
		return p
	}
	w.compile(d)
	return w.plans[d]
}

// compile makes the plans for a type and all that can be in it. Plans that are
// there already are never changed, since others may be using them.
func (w *Walker) compile(root protoreflect.MessageDescriptor) {
	types := []protoreflect.MessageDescriptor{root}
	fresh := map[protoreflect.MessageDescriptor]*plan{root: {}}
	for i := 0; i < len(types); i++ {
		for _, fd := range fieldsOf(types[i]) {
			if w.wanted(fd) {
				fresh[types[i]].fields = append(fresh[types[i]].fields, fd)
			} else if inner := messageOf(fd); inner != nil && w.plans[inner] == nil && fresh[inner] == nil {
				types, fresh[inner] = append(types, inner), &plan{}
			}
		}
	}
	useful := w.useful(types, fresh)
	for _, d := range types {
		for _, fd := range fieldsOf(d) {
			inner := messageOf(fd)
			if inner == nil || w.wanted(fd) {
				continue
			}
			if p := fresh[inner]; p != nil && useful[inner] {
				fresh[d].children = append(fresh[d].children, child{fd, p})
			} else if p := w.plans[inner]; p != nil && !p.empty() {
				fresh[d].children = append(fresh[d].children, child{fd, p})
			}
		}
	}
	for d, p := range fresh {
		w.plans[d] = p
	}
}

// useful finds the types in which there may be something to visit.
func (w *Walker) useful(types []protoreflect.MessageDescriptor, fresh map[protoreflect.MessageDescriptor]*plan) map[protoreflect.MessageDescriptor]bool {
	useful := map[protoreflect.MessageDescriptor]bool{}
	for d, p := range w.plans {
		useful[d] = !p.empty()
	}
	for changed := true; changed; {
		changed = false
		for _, d := range types {
			if useful[d] {
				continue
			}
			found := len(fresh[d].fields) > 0
			for _, fd := range fieldsOf(d) {
				found = found || messageOf(fd) != nil && useful[messageOf(fd)]
			}
			useful[d], changed = found, changed || found
		}
	}
	return useful
}

func (p *plan) empty() bool { return len(p.fields) == 0 && len(p.children) == 0 }

func fieldsOf(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	fields := make([]protoreflect.FieldDescriptor, d.Fields().Len())
	for i := range fields {
		fields[i] = d.Fields().Get(i)
	}
	return fields
}

// messageOf returns the type of the messages in a field; nil if it holds none.
func messageOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		return fd.MapValue().Message()
	}
	return fd.Message()
}
