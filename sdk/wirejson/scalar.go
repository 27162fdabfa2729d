package wirejson

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// misfit is an error in words that Mesos clients know.
type misfit string

func (e misfit) Error() string { return string(e) }

// maxMisfit is how long the text of an error may be: it quotes what was sent.
const maxMisfit = 1000

func misfitf(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxMisfit {
		text = strings.ToValidUTF8(text[:maxMisfit], "") + "…"
	}
	return misfit(text)
}

// count allows one more message to be made, or not.
func (s *scanner) count() error {
	if s.messages--; s.messages < 0 {
		return misfit("The text holds more objects than are allowed")
	}
	return nil
}

// mismatch is the error for a value of a kind that the field does not take.
func (s *scanner) mismatch(f *slot) error {
	var kind string
	switch c := s.peek(); c {
	case '[':
		kind = "array"
	case '{':
		kind = "object"
	case '"':
		kind = "string"
	case 't', 'f':
		kind = "boolean"
	case 'n':
		kind = "null"
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.unexpected("a value")
		}
		kind = "number"
	}
	return misfitf("Not expecting a JSON %s for field '%s'", kind, f.name)
}

// scalar reads a value that is no message. It is false for a null, and for an
// enum's name that is not known.
func (f *slot) scalar(s *scanner) (v protoreflect.Value, ok bool, err error) {
	switch c := s.peek(); {
	case c == 'n':
		return v, false, s.literal("null")
	case c == '"':
		text, err := s.str()
		if err != nil {
			return v, false, err
		}
		return f.fromString(text)
	case c == 't' && f.kind == protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true), true, s.literal("true")
	case c == 'f' && f.kind == protoreflect.BoolKind:
		return protoreflect.ValueOfBool(false), true, s.literal("false")
	case (c == '-' || '0' <= c && c <= '9') && f.numeric():
		text, err := s.number()
		if err != nil {
			return v, false, err
		}
		v, err = f.fromNumber(text)
		return v, err == nil, err
	}
	return v, false, s.mismatch(f)
}

// numeric reports whether the field takes numbers.
func (f *slot) numeric() bool {
	switch f.kind {
	case protoreflect.BoolKind, protoreflect.StringKind, protoreflect.BytesKind:
		return false
	case protoreflect.EnumKind:
		return f.enum.open
	}
	return true
}

func (f *slot) fromString(text []byte) (v protoreflect.Value, ok bool, err error) {
	switch f.kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(string(text)), true, nil
	case protoreflect.BytesKind:
		data, err := fromBase64(text)
		if err != nil {
			return v, false, misfitf("Failed to base64 decode bytes field '%s': %v", f.name, err)
		}
		return protoreflect.ValueOfBytes(data), true, nil
	case protoreflect.EnumKind:
		number, known := f.enum.numbers[string(text)]
		if !known && f.enum.required {
			return v, false, misfitf("Failed to find enum for '%s'", text)
		}
		return protoreflect.ValueOfEnum(number), known, nil
	case protoreflect.BoolKind:
		switch string(bytes.TrimSpace(text)) {
		case "true":
			return protoreflect.ValueOfBool(true), true, nil
		case "false":
			return protoreflect.ValueOfBool(false), true, nil
		}
		return v, false, misfitf("Failed to parse '%s' as a JSON boolean for field '%s': it is neither true nor false", text, f.name)
	}
	v, err = f.numberFromString(text)
	return v, err == nil, err
}

func (f *slot) numberFromString(text []byte) (v protoreflect.Value, err error) {
	if f.kind == protoreflect.DoubleKind || f.kind == protoreflect.FloatKind {
		switch string(text) {
		case "Infinity":
			return f.fromFloat(math.Inf(1)), nil
		case "-Infinity":
			return f.fromFloat(math.Inf(-1)), nil
		}
	}
	s := scanner{text: text}
	s.peek()
	number, err := s.number()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return v, misfitf("Failed to parse '%s' as a JSON number for field '%s': %s", text, f.name, err)
	}
	return f.fromNumber(number)
}

func (f *slot) fromFloat(x float64) protoreflect.Value {
	if f.kind == protoreflect.FloatKind {
		return protoreflect.ValueOfFloat32(float32(x))
	}
	return protoreflect.ValueOfFloat64(x)
}

// fromNumber converts the text of a JSON number.
func (f *slot) fromNumber(text []byte) (protoreflect.Value, error) {
	switch f.kind {
	case protoreflect.DoubleKind:
		if x, err := strconv.ParseFloat(string(text), 64); err == nil {
			return protoreflect.ValueOfFloat64(x), nil
		}
	case protoreflect.FloatKind:
		if x, err := strconv.ParseFloat(string(text), 32); err == nil {
			return protoreflect.ValueOfFloat32(float32(x)), nil
		}
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		if x, negative, ok := integer(text); ok && (!negative || x == 0) && x <= math.MaxUint32 {
			return protoreflect.ValueOfUint32(uint32(x)), nil
		}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		if x, negative, ok := integer(text); ok && (!negative || x == 0) {
			return protoreflect.ValueOfUint64(x), nil
		}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		if x, ok := signed(text, math.MaxInt64); ok {
			return protoreflect.ValueOfInt64(x), nil
		}
	case protoreflect.EnumKind:
		if x, ok := signed(text, math.MaxInt32); ok {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(x)), nil
		}
	default:
		if x, ok := signed(text, math.MaxInt32); ok {
			return protoreflect.ValueOfInt32(int32(x)), nil
		}
	}
	return protoreflect.Value{}, misfitf("Number %s is out of range for field '%s'", text, f.name)
}

// signed returns the whole part of a number between -limit-1 and limit.
func signed(text []byte, limit uint64) (int64, bool) {
	x, negative, ok := integer(text)
	switch {
	case !ok || x > limit && !negative || x > limit+1:
		return 0, false
	case negative:
		return -int64(x), true // of 1<<63 too: it is its own negative
	}
	return int64(x), true
}

// integer returns the whole part of a number, every digit of it unless there is
// an exponent. It is false for what 64 bits cannot hold.
func integer(text []byte) (x uint64, negative, ok bool) {
	if text[0] == '-' {
		negative, text = true, text[1:]
	}
	for i, c := range text {
		switch {
		case c == '.' && bytes.IndexByte(text[i:], 'e') < 0 && bytes.IndexByte(text[i:], 'E') < 0:
			return x, negative, true
		case c < '0' || c > '9':
			f, err := strconv.ParseFloat(string(text), 64)
			return uint64(f), negative, err == nil && f < 1<<64
		}
		digit := uint64(c - '0')
		if x > (math.MaxUint64-digit)/10 {
			// Too large, unless a negative exponent follows.
			f, err := strconv.ParseFloat(string(text), 64)
			return uint64(f), negative, err == nil && f < 1<<64 && bytes.ContainsAny(text, "eE")
		}
		x = x*10 + digit
	}
	return x, negative, true
}

// mapKey converts the key of a map's entry.
func (f *slot) mapKey(text []byte) (protoreflect.MapKey, error) {
	v, _, err := f.fromString(text)
	if err != nil {
		return protoreflect.MapKey{}, err
	}
	return v.MapKey(), nil
}

// fromBase64 decodes text, leaving out white space.
func fromBase64(text []byte) ([]byte, error) {
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
	if n, err := base64.StdEncoding.Decode(out, text); err == nil {
		return out[:n], nil
	}
	letters, padded := make([]byte, 0, len(text)), false
	for i, c := range text {
		switch {
		case c == ' ' || '\t' <= c && c <= '\r':
		case c == '=':
			padded = true
		case padded || !isBase64(c):
			r, _ := utf8.DecodeRune(text[i:])
			return nil, misfitf("Invalid character '%c'", r)
		default:
			letters = append(letters, c)
		}
	}
	n, err := base64.RawStdEncoding.Decode(out, letters)
	if err != nil {
		return nil, misfit("Invalid length")
	}
	return out[:n], nil
}

func isBase64(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}

// missing is the error for a message that lacks required fields.
func missing(m protoreflect.Message) error {
	return misfitf("Missing required fields: %s", strings.Join(appendMissing(nil, "", m), ", "))
}

// appendMissing appends the paths of the required fields that are not set: those
// of the message itself, then those of the messages in it by their fields' numbers,
// which is the order that Mesos names them in. It stops when there are
// more than an error can name.
func appendMissing(paths []string, prefix string, m protoreflect.Message) []string {
	if len(paths) > maxMisfit {
		return paths
	}
	fields := make([]protoreflect.FieldDescriptor, m.Descriptor().Fields().Len())
	for i := range fields {
		fields[i] = m.Descriptor().Fields().Get(i)
		if fd := fields[i]; fd.Cardinality() == protoreflect.Required && !m.Has(fd) {
			paths = append(paths, prefix+fd.TextName())
		}
	}
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	for _, fd := range fields {
		if !m.Has(fd) {
			continue
		}
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			entries := m.Get(fd).Map()
			for _, key := range sortedKeys(entries) {
				step := fmt.Sprintf("%s%s[%q].", prefix, fd.TextName(), key.String())
				paths = appendMissing(paths, step, entries.Get(key).Message())
			}
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			list := m.Get(fd).List()
			for j := range list.Len() {
				paths = appendMissing(paths, fmt.Sprintf("%s%s[%d].", prefix, fd.TextName(), j), list.Get(j).Message())
			}
		default:
			paths = appendMissing(paths, prefix+fd.TextName()+".", m.Get(fd).Message())
		}
	}
	return paths
}

// wellKnownReaders read the types that are not written as their fields.
var wellKnownReaders = map[protoreflect.FullName]func(s *scanner, m protoreflect.Message) error{
	"google.protobuf.Timestamp": readTimestamp,
	"google.protobuf.Struct":    readStruct,
	"google.protobuf.ListValue": readListValue,
	"google.protobuf.Value":     readValue,
}

func unlike(m protoreflect.Message, want string) error {
	return misfitf("Expecting %s for a %s", want, m.Descriptor().FullName())
}

func readTimestamp(s *scanner, m protoreflect.Message) error {
	if s.peek() != '"' {
		return unlike(m, "a JSON string")
	}
	text, err := s.str()
	if err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return misfitf("Failed to parse '%s' as a time, such as 2026-11-21T07:30:00Z", text)
	}
	fields := m.Descriptor().Fields()
	if seconds := t.Unix(); seconds != 0 {
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(seconds))
	}
	if nanos := t.Nanosecond(); nanos != 0 {
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(int32(nanos)))
	}
	return nil
}

func readStruct(s *scanner, m protoreflect.Message) error {
	if s.peek() != '{' {
		return unlike(m, "a JSON object")
	}
	fields := m.Mutable(m.Descriptor().Fields().ByName("fields")).Map()
	return s.members(func(text []byte) error {
		key := protoreflect.ValueOfString(string(text)).MapKey()
		fields.Clear(key)
		return readValue(s, fields.Mutable(key).Message())
	})
}

func readListValue(s *scanner, m protoreflect.Message) error {
	if s.peek() != '[' {
		return unlike(m, "a JSON array")
	}
	values := m.Mutable(m.Descriptor().Fields().ByName("values")).List()
	return s.elements(func() error { return readValue(s, values.AppendMutable().Message()) })
}

func readValue(s *scanner, m protoreflect.Message) error {
	if err := s.count(); err != nil {
		return err
	}
	fields := m.Descriptor().Fields()
	switch c := s.peek(); c {
	case '{':
		return readStruct(s, m.Mutable(fields.ByName("struct_value")).Message())
	case '[':
		return readListValue(s, m.Mutable(fields.ByName("list_value")).Message())
	case '"':
		text, err := s.str()
		m.Set(fields.ByName("string_value"), protoreflect.ValueOfString(string(text)))
		return err
	case 't':
		m.Set(fields.ByName("bool_value"), protoreflect.ValueOfBool(true))
		return s.literal("true")
	case 'f':
		m.Set(fields.ByName("bool_value"), protoreflect.ValueOfBool(false))
		return s.literal("false")
	case 'n':
		m.Set(fields.ByName("null_value"), protoreflect.ValueOfEnum(0))
		return s.literal("null")
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.unexpected("a value")
		}
		text, err := s.number()
		if err != nil {
			return err
		}
		x, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return misfitf("Number %s is out of range", text)
		}
		m.Set(fields.ByName("number_value"), protoreflect.ValueOfFloat64(x))
		return nil
	}
}
