package wirejson_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/allocator"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/maintenance"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/quota"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/resource_provider"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// allTypes returns every type of message in the schema.
func allTypes(t testing.TB) (types []protoreflect.MessageType) {
	t.Helper()
	protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
		if name := m.Descriptor().FullName(); strings.HasPrefix(string(name), "mezzo.") && !m.Descriptor().IsMapEntry() {
			types = append(types, m)
		}
		return true
	})
	if len(types) < 300 {
		t.Fatalf("found only %d types", len(types))
	}
	return types
}

// complete sets the required fields that are not set.
func complete(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Cardinality() == protoreflect.Required && !m.Has(fd) {
			m.Set(fd, value(t, fd, m.NewField(fd), 0))
		}
		if fd.Message() == nil || !m.Has(fd) {
			continue
		}
		switch v := m.Get(fd); {
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				if fd.MapValue().Message() != nil {
					complete(t, v.Message())
				}
				return true
			})
		case fd.IsList():
			for j := range v.List().Len() {
				complete(t, v.List().Get(j).Message())
			}
		default:
			complete(t, v.Message())
		}
	}
}

// What was written is read as what it was, for every type there is.
func TestRoundTrip(t *testing.T) {
	encoders := map[string]*wirejson.Encoder{
		"plain": wirejson.NewEncoder(), "for Mesos": wirejson.Options{Infinity: true, ASCII: true}.NewEncoder(),
	}
	decoder := wirejson.NewDecoder()
	types := allTypes(t)
	rapid.Check(t, func(t *rapid.T) {
		// Each check does several types, so that all have their turn.
		for range 8 {
			message := rapid.SampledFrom(types).Draw(t, "type").New()
			fill(t, message, 4)
			complete(t, message)
			for name, encoder := range encoders {
				text, err := encoder.Marshal(message.Interface())
				if err != nil {
					t.Fatal(err)
				}
				got := message.New().Interface()
				if err := decoder.Unmarshal(text, got); err != nil {
					t.Fatalf("%s: %v: %s", name, err, text)
				}
				if diff := cmp.Diff(message.Interface(), got, protocmp.Transform()); diff != "" {
					t.Fatalf("%s: %s\n%s", name, text, diff)
				}
			}
		}
	})
}

// An empty message of each type, and one with all that is required.
func TestRoundTripOfEachType(t *testing.T) {
	encoder, decoder := wirejson.NewEncoder(), wirejson.NewDecoder()
	for _, typ := range allTypes(t) {
		empty := typ.New().Interface()
		err := decoder.Unmarshal([]byte(`{}`), empty)
		if want := proto.CheckInitialized(empty); (err == nil) != (want == nil) || err != nil && !strings.HasPrefix(err.Error(), "Missing required fields: ") {
			t.Errorf("%s: %v, want the like of %v", typ.Descriptor().FullName(), err, want)
		}
		text, err := encoder.Marshal(typ.New().Interface())
		if err != nil || string(text) != `{}` {
			t.Errorf("%s: %s, %v", typ.Descriptor().FullName(), text, err)
		}
	}
}

// Where the two forms agree, which is everywhere but for durations, protobuf's own
// codec reads what ours writes, and ours reads what that one writes.
func TestProtojsonAgrees(t *testing.T) {
	encoder, decoder := wirejson.Options{Infinity: true}.NewEncoder(), wirejson.NewDecoder()
	types := allTypes(t)
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SampledFrom(types).Draw(t, "type").New()
		fill(t, message, 4)
		complete(t, message)
		dropDurations(message)
		m := message.Interface()
		theirs, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := message.New().Interface()
		if err := decoder.Unmarshal(theirs, got); err != nil {
			t.Fatalf("%v: %s", err, theirs)
		}
		if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
			t.Errorf("read %s: %s", theirs, diff)
		}
		ours, err := encoder.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got = message.New().Interface()
		if err := protojson.Unmarshal(ours, got); err != nil {
			t.Fatalf("%v: %s", err, ours)
		}
		if diff := cmp.Diff(m, got, protocmp.Transform()); diff != "" {
			t.Errorf("wrote %s: %s", ours, diff)
		}
	})
}

func dropDurations(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || fd.IsMap() && fd.MapValue().Message() == nil:
		case fd.Message().FullName() == "google.protobuf.Duration":
			m.Clear(fd)
		case fd.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				dropDurations(v.Message())
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				dropDurations(v.List().Get(i).Message())
			}
		default:
			dropDurations(v.Message())
		}
		return true
	})
}

// Whatever comes: no panic; what is no JSON is said to be none; what is read is
// written and read again as the same.
func FuzzUnmarshal(f *testing.F) {
	for i, seed := range []string{
		`{"type":"ACCEPT","framework_id":{"value":"f"},"accept":{"offer_ids":[{"value":"o"},null],"operations":{"type":"LAUNCH"},"filters":null}}`,
		`{"value":"Infinity","x":[1e5,-0.5,"\ud83d\ude00",true,{"a":null}]}`,
		`{"limits":{"cpus":{"value":"1.5"}},"data":"+/8AAQ==","healthy":"true","begin":18446744073709551615}`,
		`{"since":"2026-11-21T07:30:00.12Z","default":[{"a":1}]}`,
		`[[[[[[[[`,
	} {
		f.Add([]byte(seed), uint16(i))
	}
	encoder, decoder := wirejson.Options{Infinity: true}.NewEncoder(), wirejson.NewDecoder()
	types := allTypes(f)
	byName := func(a, b protoreflect.MessageType) int {
		return strings.Compare(string(a.Descriptor().FullName()), string(b.Descriptor().FullName()))
	}
	slices.SortFunc(types, byName)
	f.Fuzz(func(t *testing.T, text []byte, choice uint16) {
		message := types[int(choice)%len(types)].New().Interface()
		err := decoder.Unmarshal(text, message)
		var syntax *wirejson.SyntaxError
		switch isSyntax := errors.As(err, &syntax); {
		case !json.Valid(text) && !isSyntax:
			t.Fatalf("took %q for JSON: %v", text, err)
		case isSyntax && json.Valid(text) && !stricter(syntax.Problem):
			t.Fatalf("did not take %q for JSON: %v", text, err)
		}
		if err != nil {
			return
		}
		written, err := encoder.Marshal(message)
		if err != nil {
			t.Fatalf("read, but not written: %v", err)
		}
		again := message.ProtoReflect().New().Interface()
		if err := decoder.Unmarshal(written, again); err != nil || !proto.Equal(message, again) {
			t.Fatalf("%q was written as %q: %v", text, written, err)
		}
	})
}

// stricter reports whether encoding/json lets a problem pass.
func stricter(problem string) bool {
	for _, p := range []string{"inside each other", "surrogate pair", "not valid UTF-8"} {
		if strings.Contains(problem, p) {
			return true
		}
	}
	return false
}
