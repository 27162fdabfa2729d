package wirejson

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// compareKeys orders the keys of one map: text by bytes, numbers by value, false
// before true.
func compareKeys(a, b protoreflect.MapKey) int {
	switch x := a.Interface().(type) {
	case string:
		return cmp.Compare(x, b.String())
	case int32, int64:
		return cmp.Compare(a.Int(), b.Int())
	case uint32, uint64:
		return cmp.Compare(a.Uint(), b.Uint())
	case bool:
		switch {
		case x == b.Bool():
			return 0
		case x:
			return 1
		}
		return -1
	}
	return 0
}

// Beyond these a number is written with an exponent.
const (
	largest  = 1e21
	smallest = 1e-6
)

// appendFloat writes the shortest text that reads back as the same number, with a
// point or an exponent, so that a reader with types sees that it is no integer.
func appendFloat(dst []byte, f float64, bits int, infinity bool) ([]byte, error) {
	switch {
	case math.IsNaN(f):
		return nil, errors.New("JSON has no way to write NaN")
	case math.IsInf(f, 0) && !infinity:
		return nil, errors.New("JSON has no way to write an infinite number")
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...), nil
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...), nil
	}
	abs := math.Abs(f)
	if abs != 0 && (abs < smallest || abs >= largest) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits), nil
	}
	dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
	if f == math.Trunc(f) {
		dst = append(dst, '.', '0')
	}
	return dst, nil
}

const hex = "0123456789abcdef"

// appendString writes a quoted string. Bytes that are not UTF-8, which old
// schemas allow, become U+FFFD.
func appendString(dst []byte, s string, ascii bool) []byte {
	dst = append(dst, '"')
	start := 0 // of what is not yet copied
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = appendEscaped(append(dst, s[start:i]...), c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if wrong := r == utf8.RuneError && size == 1; wrong || ascii {
			dst = append(dst, s[start:i]...)
			if ascii {
				dst = appendUnits(dst, r)
			} else {
				dst = utf8.AppendRune(dst, r)
			}
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
}

// appendUnits writes a character as one or two UTF-16 units.
func appendUnits(dst []byte, r rune) []byte {
	unit := func(u rune) {
		dst = append(dst, '\\', 'u', hex[u>>12&0xf], hex[u>>8&0xf], hex[u>>4&0xf], hex[u&0xf])
	}
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		unit(high)
		unit(low)
		return dst
	}
	unit(r)
	return dst
}

// wellKnown are the types that are not written as their fields.
var wellKnown = map[protoreflect.FullName]func(p *plan, dst []byte, m protoreflect.Message) ([]byte, error){
	"google.protobuf.Timestamp": (*plan).timestamp,
	"google.protobuf.Struct":    (*plan).structure,
	"google.protobuf.ListValue": (*plan).listValue,
	"google.protobuf.Value":     (*plan).value,
}

func (p *plan) timestamp(dst []byte, m protoreflect.Message) ([]byte, error) {
	fields := m.Descriptor().Fields()
	seconds := m.Get(fields.ByName("seconds")).Int()
	nanos := m.Get(fields.ByName("nanos")).Int()
	// RFC 3339 has four digits for the year.
	t := time.Unix(seconds, 0).UTC()
	if t.Year() < 1 || t.Year() > 9999 || nanos < 0 || nanos > 999_999_999 {
		return nil, fmt.Errorf("%d seconds and %d nanoseconds are no time between the years 1 and 9999", seconds, nanos)
	}
	dst = append(dst, '"')
	dst = t.Add(time.Duration(nanos)).AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"'), nil
}

func (p *plan) structure(dst []byte, m protoreflect.Message) ([]byte, error) {
	fields := m.Get(m.Descriptor().Fields().ByName("fields")).Map()
	keys := make([]string, 0, fields.Len())
	fields.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key.String())
		return true
	})
	slices.Sort(keys)
	dst = append(dst, '{')
	var err error
	for i, key := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key, p.options.ASCII), ':')
		element := fields.Get(protoreflect.ValueOfString(key).MapKey())
		if dst, err = p.value(dst, element.Message()); err != nil {
			return nil, &pathError{fmt.Sprintf("[%q]", key), err}
		}
	}
	return append(dst, '}'), nil
}

func (p *plan) listValue(dst []byte, m protoreflect.Message) ([]byte, error) {
	values := m.Get(m.Descriptor().Fields().ByName("values")).List()
	dst = append(dst, '[')
	var err error
	for i := range values.Len() {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = p.value(dst, values.Get(i).Message()); err != nil {
			return nil, &pathError{fmt.Sprintf("[%d]", i), err}
		}
	}
	return append(dst, ']'), nil
}

// value writes a google.protobuf.Value; one that holds nothing is null.
func (p *plan) value(dst []byte, m protoreflect.Message) ([]byte, error) {
	which := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if which == nil {
		return append(dst, "null"...), nil
	}
	v := m.Get(which)
	switch which.Name() {
	case "number_value":
		// Numbers of plain JSON have no types to tell apart: 3, not 3.0.
		return appendNumber(dst, v.Float())
	case "string_value":
		return appendString(dst, v.String(), p.options.ASCII), nil
	case "bool_value":
		return strconv.AppendBool(dst, v.Bool()), nil
	case "struct_value":
		return p.structure(dst, v.Message())
	case "list_value":
		return p.listValue(dst, v.Message())
	}
	return append(dst, "null"...), nil
}

func appendNumber(dst []byte, f float64) ([]byte, error) {
	out, err := appendFloat(dst, f, 64, false)
	if n := len(out); err == nil && n > 2 && string(out[n-2:]) == ".0" {
		out = out[:n-2]
	}
	return out, err
}
