package wirejson

import (
	"errors"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Decoder reads JSON into messages, as leniently as Mesos does and no more:
//
//   - unknown fields, and null anywhere, are left out; of a key that is there
//     twice the last counts;
//   - a single object or scalar stands for a list of one;
//   - a number may be a string that holds one, a bool "true" or "false", a double
//     "Infinity" or "-Infinity"; of a fraction for an integer the whole part is
//     taken; 64-bit integers keep every digit;
//   - an enum is a name; an unknown one is left out, unless the field is required.
//     Enums that are open in the schema may be numbers;
//   - bytes are base64 in the standard alphabet, with or without padding;
//   - everything else is as the encoder writes it.
//
// It compiles a plan for each message type that it meets and keeps it, so it
// should be made once. It is safe for concurrent use.
type Decoder struct {
	options Options

	mu    sync.RWMutex
	plans map[protoreflect.MessageDescriptor]*shape
}

// NewDecoder returns a decoder with no options set.
func NewDecoder() *Decoder { return Options{}.NewDecoder() }

// NewDecoder returns a decoder with these options, of which it looks at MaxField
// and MaxMessages.
func (o Options) NewDecoder() *Decoder {
	return &Decoder{options: o, plans: map[protoreflect.MessageDescriptor]*shape{}}
}

// Unmarshal replaces what m holds by what text says. The error is a *SyntaxError
// if text is not JSON; any other is a sentence on what in it does not fit the
// message, in the words that Mesos uses. With an error, what m holds is of no use.
func (d *Decoder) Unmarshal(text []byte, m proto.Message) error {
	proto.Reset(m)
	s := d.scan(text)
	err := d.message(&s, m.ProtoReflect())
	return s.verdict(err)
}

// UnmarshalList reads a JSON array of messages, which is what some of the older
// Mesos endpoints take; nulls in it are left out. Errors are as those of
// [Decoder.Unmarshal].
func UnmarshalList[M proto.Message](d *Decoder, text []byte) ([]M, error) {
	var list []M
	var none M
	s := d.scan(text)
	if c := s.peek(); c != '[' {
		return nil, s.verdict(misfit("Expecting a JSON array"))
	}
	err := s.elements(func() error {
		if s.null() {
			return nil
		}
		m := none.ProtoReflect().New()
		list = append(list, m.Interface().(M))
		return d.message(&s, m)
	})
	if err = s.verdict(err); err != nil {
		return nil, err
	}
	return list, nil
}

func (d *Decoder) scan(text []byte) scanner {
	s := scanner{text: text, messages: d.options.MaxMessages}
	if s.messages <= 0 {
		s.messages = len(text) + 1 // each takes a byte at least
	}
	return s
}

// message reads the next value, which must be an object, into m, which is empty.
func (d *Decoder) message(s *scanner, m protoreflect.Message) error {
	p := d.plan(m.Descriptor())
	if p.special == nil && s.peek() != '{' {
		return misfit("Expecting a JSON object")
	}
	if err := p.read(s, m); err != nil {
		return err
	}
	if proto.CheckInitialized(m.Interface()) != nil {
		return missing(m)
	}
	return nil
}

// verdict is the error of a text: of one that does not fit, only if it is JSON
// after all, since that comes first.
func (s *scanner) verdict(err error) error {
	var syntax *SyntaxError
	if err == nil {
		return s.end()
	}
	if errors.As(err, &syntax) {
		return err
	}
	whole := scanner{text: s.text}
	if wrong := whole.skip(); wrong != nil {
		return wrong
	}
	if wrong := whole.end(); wrong != nil {
		return wrong
	}
	return err
}

// plan finds or makes the plan for a type.
func (d *Decoder) plan(descriptor protoreflect.MessageDescriptor) *shape {
	d.mu.RLock()
	p := d.plans[descriptor]
	d.mu.RUnlock()
	if p != nil {
		return p
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.compile(descriptor)
}

// A shape knows how to read messages of one type.
type shape struct {
	special func(s *scanner, m protoreflect.Message) error // well-known types
	slots   map[string]*slot
}

// A slot is a field to be read.
type slot struct {
	descriptor protoreflect.FieldDescriptor
	name       string
	kind       protoreflect.Kind // of the value, or of the elements of a list or map
	singular   bool              // neither list nor map nor message
	list       bool
	key        *slot  // of a map
	message    *shape // of the value or of the elements
	takesNull  bool   // null is a value of the message's type
	enum       *enumeration
}

type enumeration struct {
	numbers  map[string]protoreflect.EnumNumber
	open     bool
	required bool
}

// compile makes a plan, and those that it needs. The caller holds the lock.
func (d *Decoder) compile(descriptor protoreflect.MessageDescriptor) *shape {
	if p := d.plans[descriptor]; p != nil {
		return p
	}
	p := &shape{special: wellKnownReaders[descriptor.FullName()]}
	d.plans[descriptor] = p
	if p.special != nil {
		return p
	}
	fields := descriptor.Fields()
	p.slots = make(map[string]*slot, fields.Len())
	for i := range fields.Len() {
		fd := fields.Get(i)
		if d.options.omits(fd) {
			continue
		}
		value := fd
		if fd.IsMap() {
			value = fd.MapValue()
		}
		f := &slot{descriptor: fd, name: fd.TextName(), kind: value.Kind(), list: fd.IsList()}
		if fd.IsMap() {
			f.key = &slot{descriptor: fd.MapKey(), name: f.name, kind: fd.MapKey().Kind()}
		}
		if value.Message() != nil {
			f.message = d.compile(value.Message())
			f.takesNull = value.Message().FullName() == "google.protobuf.Value"
		}
		if value.Enum() != nil {
			f.enum = newEnumeration(value)
		}
		f.singular = !f.list && f.key == nil && f.message == nil
		p.slots[f.name] = f
	}
	return p
}

func newEnumeration(fd protoreflect.FieldDescriptor) *enumeration {
	values := fd.Enum().Values()
	e := &enumeration{
		numbers:  make(map[string]protoreflect.EnumNumber, values.Len()),
		open:     !fd.Enum().IsClosed(),
		required: fd.Cardinality() == protoreflect.Required,
	}
	for i := range values.Len() {
		e.numbers[string(values.Get(i).Name())] = values.Get(i).Number()
	}
	return e
}

// read reads an object into m, which is empty.
func (p *shape) read(s *scanner, m protoreflect.Message) error {
	if err := s.count(); err != nil {
		return err
	}
	if p.special != nil {
		return p.special(s, m)
	}
	return s.members(func(key []byte) error {
		f := p.slots[string(key)]
		if f == nil {
			return s.skip()
		}
		return f.read(s, m)
	})
}

// read reads the value of the field, in place of one that was read before.
func (f *slot) read(s *scanner, m protoreflect.Message) error {
	c := s.peek()
	if f.singular {
		return f.readScalar(s, m)
	}
	if m.Has(f.descriptor) {
		m.Clear(f.descriptor)
	}
	switch {
	case c == 'n' && !f.takesNull:
		return s.literal("null")
	case f.key != nil && c != '{':
		return s.mismatch(f)
	case f.key != nil:
		return f.entries(s, m.Mutable(f.descriptor).Map())
	case !f.list:
		return f.readMessage(s, m.Mutable(f.descriptor).Message())
	}
	list := m.Mutable(f.descriptor).List()
	if c != '[' {
		return f.element(s, list)
	}
	return s.elements(func() error { return f.element(s, list) })
}

func (f *slot) readScalar(s *scanner, m protoreflect.Message) error {
	v, ok, err := f.scalar(s)
	switch {
	case err != nil:
		return err
	case ok:
		m.Set(f.descriptor, v)
	case m.Has(f.descriptor):
		m.Clear(f.descriptor)
	}
	return nil
}

// readMessage reads an object, or what else stands for a message, into m, which is
// empty.
func (f *slot) readMessage(s *scanner, m protoreflect.Message) error {
	if f.message.special == nil && s.peek() != '{' {
		return s.mismatch(f)
	}
	return f.message.read(s, m)
}

// element reads one element and adds it to the list.
func (f *slot) element(s *scanner, list protoreflect.List) error {
	if f.message == nil {
		v, ok, err := f.scalar(s)
		if ok {
			list.Append(v)
		}
		return err
	}
	if s.peek() == 'n' && !f.takesNull {
		return s.literal("null")
	}
	return f.readMessage(s, list.AppendMutable().Message())
}

func (f *slot) entries(s *scanner, entries protoreflect.Map) error {
	return s.members(func(text []byte) error {
		key, err := f.key.mapKey(text)
		if err != nil {
			return err
		}
		entries.Clear(key)
		if f.message == nil {
			v, ok, err := f.scalar(s)
			if ok {
				entries.Set(key, v)
			}
			return err
		}
		if s.peek() == 'n' && !f.takesNull {
			return s.literal("null")
		}
		return f.readMessage(s, entries.Mutable(key).Message())
	})
}
