package plugin

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Size is a number of bytes. In HCL it is written "64MiB", or as a plain number
// of bytes.
type Size int64

// String returns the shortest exact form: "64MiB", "1536B".
func (s Size) String() string {
	n, unit := int64(s), 0
	for units := len(sizeUnits) - 1; unit < units && n != 0 && n%1024 == 0; unit++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + sizeUnits[unit]
}

var sizeUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// ParseSize reads what String writes: a whole number and B, KiB, MiB, GiB, TiB
// or PiB (powers of 1024); no unit means bytes. It refuses what does not fit.
func ParseSize(text string) (Size, error) {
	digits := strings.TrimRight(text, "BKMGTPi")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("size %q: want a whole number and a unit, such as 64MiB", text)
	}
	unit := text[len(digits):]
	if unit == "" {
		return Size(n), nil
	}
	for i, u := range sizeUnits {
		if u != unit {
			continue
		}
		if bits.Len64(uint64(n))+10*i > 63 {
			return 0, fmt.Errorf("size %q: larger than 8EiB", text)
		}
		return Size(n << (10 * i)), nil
	}
	return 0, fmt.Errorf("size %q: unit %q: want one of %s", text, unit, strings.Join(sizeUnits, ", "))
}

// SchemaOf returns the schema of a configuration struct, or of a pointer to
// one. It is derived from the fields and their tags:
//
//	hcl:"name"       the name in HCL; required on every exported field ("-" leaves one out)
//	hcl:"name,label" the label of a repeated block; a string
//	help:"…"         sentences for the manual, in plain text. What holds when the
//	                 operator sets nothing, where that is no value, is the last
//	                 of them: "By default all." Tables show it as the default
//	default:"…"      the value when the operator sets none, as written in HCL:
//	                 text, a number, "10s", "64MiB"; lists and maps as JSON
//	required:"true"  the operator must set it
//	secret:"true"    never printed, logged or shown
//
// Types: string, bool, integers, floats, time.Duration, Size, []string,
// map[string]string, types made from them, and pointers to scalars (nil when
// the operator sets none). A struct, or a pointer to one, is a block that may
// stand once; a pointer stays nil without it, a plain struct gets its defaults.
// A slice of structs is a block that may stand many times. An embedded struct
// without a tag gives its fields to the struct around it.
//
// Errors name the field; they are mistakes of the plugin's author.
func SchemaOf(v any) (*pluginv1.Schema, error) {
	t := reflect.TypeOf(v)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("configuration %T: want a struct or a pointer to one", v)
	}
	fields, err := fieldsOf(t)
	if err != nil {
		return nil, err
	}
	return schemaOf(t, fields)
}

func schemaOf(t reflect.Type, fields []field) (*pluginv1.Schema, error) {
	schema := &pluginv1.Schema{}
	for _, f := range fields {
		switch {
		case f.label:
		case f.block != nil:
			inner, err := fieldsOf(f.block)
			if err != nil {
				return nil, err
			}
			s, err := schemaOf(f.block, inner)
			if err != nil {
				return nil, err
			}
			schema.Blocks = append(schema.Blocks, &pluginv1.Block{
				Name: f.name, Schema: s, Repeated: f.repeated, Required: f.required, Label: labelOf(inner), Help: f.help,
			})
			if l := labelOf(inner); l != "" && !f.repeated {
				return nil, fmt.Errorf("%s.%s: its block has the label %q, so it must be a slice", t, f.goName, l)
			}
		default:
			schema.Attributes = append(schema.Attributes, &pluginv1.Attribute{
				Name: f.name, Type: f.typ, Required: f.required, DefaultJson: f.defaultJSON, Help: f.help, Secret: f.secret,
			})
		}
	}
	return schema, nil
}

func labelOf(fields []field) string {
	for _, f := range fields {
		if f.label {
			return f.name
		}
	}
	return ""
}

// field is what the tags and the type of one struct field say.
type field struct {
	name, goName, help string
	index              []int // for reflect.Value.FieldByIndex
	typ                pluginv1.Type
	defaultJSON        string
	required, secret   bool
	label, repeated    bool
	block              reflect.Type // the struct of a block; nil for an attribute
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	validKey     = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// fieldsOf reads the tags of a struct.
func fieldsOf(t reflect.Type) ([]field, error) {
	var out []field
	seen := map[string]string{}
	for _, sf := range reflect.VisibleFields(t) {
		tag, tagged := sf.Tag.Lookup("hcl")
		if sf.Anonymous && !tagged || !sf.IsExported() || tag == "-" {
			continue
		}
		// A field that is promoted from a tagged struct belongs to that block.
		if promotedFromTagged(t, sf.Index) {
			continue
		}
		f, err := fieldOf(sf, tag)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", t, sf.Name, err)
		}
		if other, twice := seen[f.name]; twice {
			return nil, fmt.Errorf("%s.%s: the name %q is taken by %s", t, sf.Name, f.name, other)
		}
		seen[f.name] = sf.Name
		out = append(out, f)
	}
	return out, nil
}

func promotedFromTagged(t reflect.Type, index []int) bool {
	for i := 1; i < len(index); i++ {
		outer := t.FieldByIndex(index[:i])
		if _, tagged := outer.Tag.Lookup("hcl"); tagged || outer.Type.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

func fieldOf(sf reflect.StructField, tag string) (field, error) {
	name, option, _ := strings.Cut(tag, ",")
	f := field{
		name: name, goName: sf.Name, index: sf.Index, help: sf.Tag.Get("help"),
		required: sf.Tag.Get("required") == "true", secret: sf.Tag.Get("secret") == "true",
		label: option == "label",
	}
	if !validKey.MatchString(name) {
		return f, fmt.Errorf(`hcl tag %q: want a name such as "grace_period"`, tag)
	}
	if option != "" && option != "label" && option != "block" {
		return f, fmt.Errorf("hcl tag %q: unknown option %q", tag, option)
	}
	f.typ = attributeType(sf.Type)
	text, hasDefault := sf.Tag.Lookup("default")
	switch {
	case f.label && sf.Type.Kind() != reflect.String:
		return f, fmt.Errorf("a label must be a string, not %s", sf.Type)
	case f.label:
		return f, nil
	case f.typ == pluginv1.Type_TYPE_UNSPECIFIED:
		if f.block, f.repeated = blockType(sf.Type); f.block == nil {
			return f, fmt.Errorf("type %s cannot be written in HCL", sf.Type)
		}
		if hasDefault || f.secret {
			return f, fmt.Errorf("a block has neither default nor secret")
		}
		return f, nil
	case hasDefault && f.required:
		return f, fmt.Errorf("required and a default exclude each other")
	case hasDefault:
		value, err := defaultValue(f.typ, text)
		if err != nil {
			return f, fmt.Errorf("default %q: %w", text, err)
		}
		f.defaultJSON = value
		// What does not fit the Go type is found now, not at an operator's.
		if err := json.Unmarshal([]byte(value), reflect.New(sf.Type).Interface()); err != nil {
			return f, fmt.Errorf("default %q: %w", text, err)
		}
	}
	return f, nil
}

// attributeType returns TYPE_UNSPECIFIED for what is not an attribute.
func attributeType(t reflect.Type) pluginv1.Type {
	if t.Kind() == reflect.Pointer && t.Elem().Kind() != reflect.Pointer {
		switch inner := attributeType(t.Elem()); inner {
		case pluginv1.Type_TYPE_STRING_LIST, pluginv1.Type_TYPE_STRING_MAP:
			return pluginv1.Type_TYPE_UNSPECIFIED
		default:
			return inner
		}
	}
	switch {
	case t == durationType:
		return pluginv1.Type_TYPE_DURATION
	case t == sizeType:
		return pluginv1.Type_TYPE_SIZE
	}
	switch t.Kind() {
	case reflect.String:
		return pluginv1.Type_TYPE_STRING
	case reflect.Bool:
		return pluginv1.Type_TYPE_BOOL
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return pluginv1.Type_TYPE_INT
	case reflect.Float32, reflect.Float64:
		return pluginv1.Type_TYPE_NUMBER
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return pluginv1.Type_TYPE_STRING_LIST
		}
	case reflect.Map:
		if t.Key().Kind() == reflect.String && t.Elem().Kind() == reflect.String {
			return pluginv1.Type_TYPE_STRING_MAP
		}
	}
	return pluginv1.Type_TYPE_UNSPECIFIED
}

// blockType returns the struct of a block, or nil.
func blockType(t reflect.Type) (block reflect.Type, repeated bool) {
	if t.Kind() == reflect.Slice {
		t, repeated = t.Elem(), true
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	return t, repeated
}

// defaultValue turns the text of a default tag into JSON.
func defaultValue(t pluginv1.Type, text string) (string, error) {
	var v any
	var err error
	switch t {
	case pluginv1.Type_TYPE_STRING:
		v = text
	case pluginv1.Type_TYPE_BOOL:
		v, err = strconv.ParseBool(text)
	case pluginv1.Type_TYPE_INT:
		v, err = strconv.ParseInt(text, 10, 64)
	case pluginv1.Type_TYPE_NUMBER:
		v, err = strconv.ParseFloat(text, 64)
	case pluginv1.Type_TYPE_DURATION:
		v, err = time.ParseDuration(text)
	case pluginv1.Type_TYPE_SIZE:
		v, err = ParseSize(text)
	case pluginv1.Type_TYPE_STRING_LIST:
		var list []string
		err = json.Unmarshal([]byte(text), &list)
		v = list
	case pluginv1.Type_TYPE_STRING_MAP:
		var m map[string]string
		err = json.Unmarshal([]byte(text), &m)
		v = m
	}
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(v)
	return string(out), err
}
