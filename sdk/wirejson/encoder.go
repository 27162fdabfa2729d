// Package wirejson writes protobuf messages as the JSON that Mesos v1 clients
// read, which is also that of Mezzo's own `--json` and HTTP API, and reads what
// they write.
//
// It differs from protobuf's canonical JSON: field names are as written in the
// schema (snake_case), 64-bit integers are numbers, a google.protobuf.Duration is
// a message like any other, and doubles keep a point or an exponent ("15.0").
// Enums are names, bytes are base64, a google.protobuf.Timestamp is RFC 3339 in
// UTC, google.protobuf.Struct, Value and ListValue are plain JSON. Fields follow
// the order of the schema, map keys are sorted. Unset fields, empty lists and
// empty maps are left out, as are extensions and unknown fields.
//
//	encoder := wirejson.NewEncoder() // keep it: it learns each type once
//	text, err := encoder.Marshal(task)
//	decoder := wirejson.NewDecoder() // likewise
//	err = decoder.Unmarshal(text, task)
package wirejson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Options are what differs between readers.
type Options struct {
	// Defaults writes the default of a field that is not set, where the schema
	// gives one and the field is not deprecated, as Mesos does.
	Defaults bool
	// Infinity writes infinite numbers as "Infinity" and "-Infinity", which Mesos
	// accepts and a task's limits may hold. Without it they are an error.
	Infinity bool
	// ASCII escapes all other characters, for readers that confuse the number of
	// characters with the number of bytes.
	ASCII bool
	// MaxField leaves out the fields with greater numbers: 9999 those that are
	// Mezzo's own, which nobody expects who knows the Mesos API only. 0 leaves out
	// none.
	MaxField protoreflect.FieldNumber
	// MaxMessages is how many messages a decoder makes of one text, which bounds the
	// memory that they take: "{}" may stand for hundreds of bytes. 0 is no bound.
	MaxMessages int
}

// omits reports whether the field is left out.
func (o Options) omits(fd protoreflect.FieldDescriptor) bool {
	return o.MaxField > 0 && fd.Number() > o.MaxField
}

// Encoder writes messages. It compiles a plan for each message type that it
// meets and keeps it, so it should be made once. It is safe for concurrent use.
type Encoder struct {
	options Options

	mu    sync.RWMutex
	plans map[protoreflect.MessageDescriptor]*plan
}

// NewEncoder returns an encoder with no options set.
func NewEncoder() *Encoder { return Options{}.NewEncoder() }

// NewEncoder returns an encoder with these options.
func (o Options) NewEncoder() *Encoder {
	return &Encoder{options: o, plans: map[protoreflect.MessageDescriptor]*plan{}}
}

// Marshal returns the message in one line. The errors are a nil message, a NaN,
// an infinity that the options do not allow, and a timestamp out of range; they
// name the field.
func (e *Encoder) Marshal(m proto.Message) ([]byte, error) { return e.Append(nil, m) }

// MarshalIndent returns the message over several lines, indented by two spaces,
// with no end of line after the last.
func (e *Encoder) MarshalIndent(m proto.Message) ([]byte, error) {
	compact, err := e.Append(nil, m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", "  "); err != nil {
		return nil, fmt.Errorf("wirejson: %s was written wrongly: %w", name(m), err)
	}
	return out.Bytes(), nil
}

// Append appends the message in one line to dst. With an error it returns dst as
// it was.
func (e *Encoder) Append(dst []byte, m proto.Message) ([]byte, error) {
	if m == nil {
		return dst, errors.New("wirejson: there is no message to write")
	}
	reflected := m.ProtoReflect()
	out, err := e.plan(reflected.Descriptor()).message(dst, reflected)
	if err != nil {
		return dst, fmt.Errorf("wirejson: %w", &pathError{string(name(m)), err})
	}
	return out, nil
}

func name(m proto.Message) protoreflect.FullName { return m.ProtoReflect().Descriptor().FullName() }

// plan finds or makes the plan for a type.
func (e *Encoder) plan(d protoreflect.MessageDescriptor) *plan {
	e.mu.RLock()
	p := e.plans[d]
	e.mu.RUnlock()
	if p != nil {
		return p
	}
	// Plans of types that refer to each other are made together, so nobody sees
	// one that is half made.
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.compile(d)
}

// A plan knows how to write messages of one type.
type plan struct {
	options Options
	special func(p *plan, dst []byte, m protoreflect.Message) ([]byte, error) // well-known types
	fields  []field
}

type field struct {
	descriptor protoreflect.FieldDescriptor
	key        []byte // with quotes and colon
	element    scalar // of the value, or of the elements of a list or map
	fallback   []byte // the default to write when the field is not set
}

// scalar writes one value, which may be a message.
type scalar func(dst []byte, v protoreflect.Value) ([]byte, error)

// compile makes a plan, and those that it needs. The caller holds the lock.
func (e *Encoder) compile(d protoreflect.MessageDescriptor) *plan {
	if p := e.plans[d]; p != nil {
		return p
	}
	p := &plan{options: e.options, special: wellKnown[d.FullName()]}
	e.plans[d] = p
	if p.special != nil {
		return p
	}
	fields := d.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if e.options.omits(fd) {
			continue
		}
		f := field{descriptor: fd, key: append(appendString(nil, fd.TextName(), false), ':')}
		if fd.IsMap() {
			f.element = e.scalar(fd.MapValue())
		} else {
			f.element = e.scalar(fd)
		}
		if e.options.Defaults && fd.HasDefault() && !deprecated(fd) {
			// A default that cannot be written is as if there were none: the
			// message is right without it.
			f.fallback, _ = f.element(nil, fd.Default())
		}
		p.fields = append(p.fields, f)
	}
	return p
}

func deprecated(fd protoreflect.FieldDescriptor) bool {
	return fd.Options().(*descriptorpb.FieldOptions).GetDeprecated()
}

// scalar gives the writer for single values of a field.
func (e *Encoder) scalar(fd protoreflect.FieldDescriptor) scalar {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			return strconv.AppendBool(dst, v.Bool()), nil
		}
	case protoreflect.EnumKind:
		return enum(fd.Enum())
	case protoreflect.FloatKind:
		return e.float(32)
	case protoreflect.DoubleKind:
		return e.float(64)
	case protoreflect.StringKind:
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			return appendString(dst, v.String(), e.options.ASCII), nil
		}
	case protoreflect.BytesKind:
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			dst = append(dst, '"')
			dst = base64.StdEncoding.AppendEncode(dst, v.Bytes())
			return append(dst, '"'), nil
		}
	case protoreflect.MessageKind, protoreflect.GroupKind:
		inner := e.compile(fd.Message())
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			return inner.message(dst, v.Message())
		}
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			return strconv.AppendUint(dst, v.Uint(), 10), nil
		}
	default: // the signed integers
		return func(dst []byte, v protoreflect.Value) ([]byte, error) {
			return strconv.AppendInt(dst, v.Int(), 10), nil
		}
	}
}

// enum writes names; a number that has none, which an open enum may hold, stays
// a number.
func enum(d protoreflect.EnumDescriptor) scalar {
	values := d.Values()
	names := make(map[protoreflect.EnumNumber][]byte, values.Len())
	for i := values.Len() - 1; i >= 0; i-- { // the first of several names wins
		names[values.Get(i).Number()] = appendString(nil, string(values.Get(i).Name()), false)
	}
	return func(dst []byte, v protoreflect.Value) ([]byte, error) {
		if name, ok := names[v.Enum()]; ok {
			return append(dst, name...), nil
		}
		return strconv.AppendInt(dst, int64(v.Enum()), 10), nil
	}
}

func (e *Encoder) float(bits int) scalar {
	return func(dst []byte, v protoreflect.Value) ([]byte, error) {
		return appendFloat(dst, v.Float(), bits, e.options.Infinity)
	}
}

func (p *plan) message(dst []byte, m protoreflect.Message) ([]byte, error) {
	if p.special != nil {
		return p.special(p, dst, m)
	}
	dst = append(dst, '{')
	start := len(dst)
	var err error
	for i := range p.fields {
		f := &p.fields[i]
		has := m.Has(f.descriptor)
		if !has && f.fallback == nil {
			continue
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, f.key...)
		if !has {
			dst = append(dst, f.fallback...)
			continue
		}
		value := m.Get(f.descriptor)
		switch {
		case f.descriptor.IsList():
			dst, err = f.list(dst, value.List())
		case f.descriptor.IsMap():
			dst, err = f.entries(dst, value.Map(), p.options.ASCII)
		default:
			dst, err = f.element(dst, value)
		}
		if err != nil {
			return nil, inField(f.descriptor, err)
		}
	}
	return append(dst, '}'), nil
}

func (f *field) list(dst []byte, list protoreflect.List) ([]byte, error) {
	dst = append(dst, '[')
	var err error
	for i := range list.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = f.element(dst, list.Get(i)); err != nil {
			return nil, &pathError{fmt.Sprintf("[%d]", i), err}
		}
	}
	return append(dst, ']'), nil
}

func (f *field) entries(dst []byte, m protoreflect.Map, ascii bool) ([]byte, error) {
	keys := sortedKeys(m)
	dst = append(dst, '{')
	var err error
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key.String(), ascii), ':')
		if dst, err = f.element(dst, m.Get(key)); err != nil {
			return nil, &pathError{fmt.Sprintf("[%q]", key.String()), err}
		}
	}
	return append(dst, '}'), nil
}

func sortedKeys(m protoreflect.Map) []protoreflect.MapKey {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, compareKeys)
	return keys
}

// pathError is an error and the step that led to it, so that a path is only
// made when there is an error.
type pathError struct {
	step string
	err  error
}

func inField(fd protoreflect.FieldDescriptor, err error) error {
	return &pathError{"." + fd.TextName(), err}
}

func (e *pathError) Error() string {
	var inner *pathError
	if errors.As(e.err, &inner) {
		return e.step + e.err.Error()
	}
	return e.step + ": " + e.err.Error()
}

func (e *pathError) Unwrap() error { return e.err }
