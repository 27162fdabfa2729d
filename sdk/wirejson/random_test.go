package wirejson_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// TestRandomMessages is that whatever a message holds, encoding/json reads what
// was written, and finds in it what protobuf's own encoder says, but for the
// differences that the package is there to make.
func TestRandomMessages(t *testing.T) {
	encoder := wirejson.NewEncoder()
	ascii := wirejson.Options{ASCII: true}.NewEncoder()
	types := []proto.Message{
		&schedulerv1.Event{}, &schedulerv1.Call{}, &executorv1.Event{}, &executorv1.Call{}, &masterv1.Response{},
		&operatorv1.ListAgentsResponse{}, &operatorv1.ListTasksResponse{}, &operatorv1.ListFrameworksResponse{},
		&pluginv1.Description{}, &pluginv1.HealthStatus{},
	}
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SampledFrom(types).Draw(t, "type").ProtoReflect().New()
		fill(t, message, 5)
		m := message.Interface()
		text, err := encoder.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		escaped, err := ascii.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsFunc(escaped, func(r rune) bool { return r >= 0x80 }) {
			t.Errorf("characters beyond ASCII: %s", escaped)
		}
		oracle, err := protojson.MarshalOptions{UseProtoNames: true, AllowPartial: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		want := read(t, oracle)
		for _, got := range [][]byte{text, escaped} {
			if !same(read(t, got), want) {
				t.Errorf("wrote\n%s\nwant the like of\n%s", got, oracle)
			}
		}
	})
}

func read(t *rapid.T, text []byte) (v any) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("encoding/json does not read %q: %v", text, err)
	}
	return v
}

// same compares our JSON with protobuf's, which writes 64-bit integers as text
// and doubles in another form.
func same(ours, theirs any) bool {
	switch a := ours.(type) {
	case map[string]any:
		b, ok := theirs.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key := range a {
			if _, there := b[key]; !there || !same(a[key], b[key]) {
				return false
			}
		}
		return true
	case []any:
		b, ok := theirs.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case json.Number:
		switch b := theirs.(type) {
		case string:
			return a.String() == b // a 64-bit integer, every digit
		case json.Number:
			x, errX := strconv.ParseFloat(a.String(), 64)
			y, errY := strconv.ParseFloat(b.String(), 64)
			return errX == nil && errY == nil && x == y
		}
		return false
	case string:
		b, ok := theirs.(string)
		return ok && (a == b || sameTime(a, b))
	}
	return ours == theirs
}

// sameTime compares times, whose fractions protobuf fills up to three, six or
// nine digits.
func sameTime(a, b string) bool {
	if len(b) < len("2006-01-02T15:04:05Z") || len(a) == 0 || a[len(a)-1] != 'Z' || b[len(b)-1] != 'Z' {
		return false
	}
	trimmed := bytes.TrimRight([]byte(b[:len(b)-1]), "0")
	return bytes.Equal(bytes.TrimRight([]byte(a[:len(a)-1]), "0"), trimmed)
}

// fill sets some fields of a message, at most depth messages deep.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	switch name := m.Descriptor().FullName(); {
	case name == "google.protobuf.Timestamp":
		seconds := rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds")
		nanos := rapid.Int32Range(0, 999_999_999).Draw(t, "nanos")
		m.Set(m.Descriptor().Fields().ByName("seconds"), protoreflect.ValueOfInt64(seconds))
		m.Set(m.Descriptor().Fields().ByName("nanos"), protoreflect.ValueOfInt32(nanos))
		return
	case name == "google.protobuf.Value":
		proto.Merge(m.Interface(), plainValue(t))
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		nested := fd.Message() != nil
		if !rapid.Bool().Draw(t, "set") || nested && depth == 0 {
			continue
		}
		switch {
		case fd.IsMap():
			entries := m.Mutable(fd).Map()
			for range rapid.IntRange(0, 2).Draw(t, "entries") {
				key := value(t, fd.MapKey(), protoreflect.Value{}, depth).MapKey()
				entries.Set(key, value(t, fd.MapValue(), entries.NewValue(), depth))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range rapid.IntRange(0, 2).Draw(t, "elements") {
				list.Append(value(t, fd, list.NewElement(), depth))
			}
		default:
			m.Set(fd, value(t, fd, m.NewField(fd), depth))
		}
	}
}

func value(t *rapid.T, fd protoreflect.FieldDescriptor, empty protoreflect.Value, depth int) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, "bool"))
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rapid.IntRange(0, values.Len()-1).Draw(t, "enum")).Number())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "string"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64().Draw(t, "double"))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(rapid.Float32().Draw(t, "float"))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "int32"))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "uint32"))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "uint64"))
	case protoreflect.MessageKind, protoreflect.GroupKind:
		fill(t, empty.Message(), depth-1)
		return empty
	default:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "int64"))
	}
}

func plainValue(t *rapid.T) *structpb.Value {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return structpb.NewNullValue()
	case 1:
		return structpb.NewBoolValue(rapid.Bool().Draw(t, "bool"))
	case 2:
		return structpb.NewStringValue(rapid.String().Draw(t, "string"))
	case 3:
		return structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewBoolValue(true)}})
	}
	return structpb.NewNumberValue(rapid.Float64().Draw(t, "number"))
}
