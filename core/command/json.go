package command

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// jsonShape is what a verb prints with --json.
type jsonShape struct {
	form   string // "one object", "a list of objects", "an object a line"
	fields []string
}

const (
	jsonOne   = "one object"
	jsonList  = "a list of objects"
	jsonLines = "an object a line"
)

// shapeOf is that of messages of the API.
func shapeOf(form string, m proto.Message) jsonShape {
	fields := m.ProtoReflect().Descriptor().Fields()
	s := jsonShape{form: form}
	for i := range fields.Len() {
		s.fields = append(s.fields, string(fields.Get(i).Name())+" "+kindOf(fields.Get(i)))
	}
	return s
}

// shapeOfValue is that of a struct that is printed by its json tags.
func shapeOfValue(form string, v any) jsonShape {
	s := jsonShape{form: form}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			s.fields = append(s.fields, name+" "+kindOfType(name, f.Type))
		}
	}
	return s
}

// kindOfType is a type, as JSON has it.
func kindOfType(name string, t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case name == "time":
		return "time"
	case t == reflect.TypeFor[json.RawMessage](), t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Struct:
		return "list of " + kindOfType("", t.Elem()) + "s"
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Struct:
		kind := "object"
		if t.Kind() == reflect.Slice {
			kind, t = "list of objects", t.Elem()
		}
		var names []string
		for _, field := range shapeOfValue("", reflect.Zero(t).Interface()).fields {
			name, _, _ := strings.Cut(field, " ")
			names = append(names, name)
		}
		return kind + " of " + strings.Join(names, ", ")
	}
	return "number"
}

// kindOf is a field's type, as JSON has it.
func kindOf(f protoreflect.FieldDescriptor) string {
	kind := "object"
	switch f.Kind() {
	case protoreflect.BoolKind:
		kind = "true or false"
	case protoreflect.StringKind, protoreflect.EnumKind, protoreflect.BytesKind:
		kind = "string"
	case protoreflect.MessageKind, protoreflect.GroupKind:
		switch f.Message().FullName() {
		case "google.protobuf.Timestamp":
			kind = "time"
		case "google.protobuf.Struct":
			kind = "amounts"
		}
	default:
		kind = "number"
	}
	if f.IsMap() {
		return "object"
	}
	if f.IsList() {
		return "list of " + strings.Replace(kind+"s", "true or falses", "true or false", 1)
	}
	return kind
}

// orderShape is that of orders: see done.
var orderShape = jsonShape{jsonLines, []string{"done string"}}

func (c *cli) addJSONFlag(cmd *cobra.Command, shape jsonShape) {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON, for programs; see mezzo help json")
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations["json"] = shape.form + "\n" + strings.Join(shape.fields, "\n")
}

// shapeOfVerb is what was given to addJSONFlag; false: the verb has no --json.
func shapeOfVerb(cmd *cobra.Command) (jsonShape, bool) {
	text, ok := cmd.Annotations["json"]
	lines := strings.Split(text, "\n")
	return jsonShape{lines[0], lines[1:]}, ok
}

// done says that something was carried out.
func (c *cli) done(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if !c.json {
		_, err := fmt.Fprintln(c.out, text)
		return err
	}
	line, err := json.Marshal(map[string]string{"done": text})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", line)
	return err
}

func (c *cli) writeJSON(m proto.Message) error {
	text, err := wirejson.NewEncoder().MarshalIndent(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", text)
	return err
}

// writeJSONList prints a list verb's answer: one JSON array.
func writeJSONList[T proto.Message](c *cli, items []T) error {
	encoder := wirejson.NewEncoder()
	out := []byte("[")
	for i, item := range items {
		text, err := encoder.MarshalIndent(item)
		if err != nil {
			return err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, '\n'), text...)
	}
	if len(items) > 0 {
		out = append(out, '\n')
	}
	_, err := fmt.Fprintf(c.out, "%s]\n", out)
	return err
}
