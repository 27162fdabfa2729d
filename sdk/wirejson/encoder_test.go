package wirejson_test

import (
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

func number(f float64) *structpb.Value { return structpb.NewNumberValue(f) }

func scalar(f float64) proto.Message { return &mezzov1.Value_Scalar{Value: &f} }

func label(value string) proto.Message { return &mezzov1.Label{Key: proto.String("k"), Value: &value} }

func TestMarshal(t *testing.T) {
	all := wirejson.Options{Defaults: true, Infinity: true, ASCII: true}
	for name, test := range map[string]struct {
		options wirejson.Options
		message proto.Message
		want    string
	}{
		"empty":     {message: &schedulerv1.Event{}, want: `{}`},
		"nil typed": {message: (*mezzov1.TaskID)(nil), want: `{}`},
		"enum, and no payload": {
			message: &schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()},
			want:    `{"type":"HEARTBEAT"}`,
		},
		"snake case, schema's order, message": {
			message: &schedulerv1.Event_Subscribed{
				HeartbeatIntervalSeconds: proto.Float64(15),
				FrameworkId:              &mezzov1.FrameworkID{Value: proto.String("f-1")},
			},
			want: `{"framework_id":{"value":"f-1"},"heartbeat_interval_seconds":15.0}`,
		},
		"64-bit integers are numbers": {
			message: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(math.MinInt64)},
			want:    `{"nanoseconds":-9223372036854775808}`,
		},
		"presence is kept, so a zero that was set is written": {
			message: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(0)},
			want:    `{"nanoseconds":0}`,
		},
		"zeros of fields without presence are not written": {
			message: &pluginv1.Attribute{Name: "a", Required: false, Type: pluginv1.Type_TYPE_UNSPECIFIED},
			want:    `{"name":"a"}`,
		},
		"an open enum's unknown number": {message: &pluginv1.Attribute{Type: 77}, want: `{"type":77}`},
		"bytes": {
			message: &mezzov1.TaskStatus{Data: []byte{0xfb, 0xff, 0x00, 0x01}},
			want:    `{"data":"+/8AAQ=="}`,
		},
		"empty bytes that were set": {message: &mezzov1.TaskStatus{Data: []byte{}}, want: `{"data":""}`},
		"lists; an empty one is left out": {
			message: &mezzov1.Value_Ranges{Range: []*mezzov1.Value_Range{
				{Begin: proto.Uint64(1), End: proto.Uint64(math.MaxUint64)}, {},
			}},
			want: `{"range":[{"begin":1,"end":18446744073709551615},{}]}`,
		},
		"sorted map": {
			message: &mezzov1.TaskInfo{Limits: map[string]*mezzov1.Value_Scalar{
				"mem": scalar(32).(*mezzov1.Value_Scalar), "cpus": scalar(0.5).(*mezzov1.Value_Scalar), `"`: {},
			}},
			want: `{"limits":{"\"":{},"cpus":{"value":0.5},"mem":{"value":32.0}}}`,
		},
		"duration is a message": {message: durationpb.New(600 * time.Second), want: `{"seconds":600}`},
		"timestamp": {
			message: timestamppb.New(time.Date(2026, 11, 21, 7, 30, 0, 120_000_000, time.UTC)),
			want:    `"2026-11-21T07:30:00.12Z"`,
		},
		"timestamp, whole seconds": {message: &timestamppb.Timestamp{}, want: `"1970-01-01T00:00:00Z"`},
		"timestamp in a field": {
			message: &pluginv1.HealthStatus{Since: timestamppb.New(time.Unix(1, 5))},
			want:    `{"since":"1970-01-01T00:00:01.000000005Z"}`,
		},
		"struct": {
			message: &structpb.Struct{Fields: map[string]*structpb.Value{
				"mem": number(1024), "cpus": number(1.5), "none": structpb.NewNullValue(), "unset": {},
				"ok": structpb.NewBoolValue(true), "s": structpb.NewStringValue("x\n"),
				"list": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{number(1e21), number(-3)}}),
				"map":  structpb.NewStructValue(&structpb.Struct{}),
			}},
			want: `{"cpus":1.5,"list":[1e+21,-3],"map":{},"mem":1024,"none":null,"ok":true,"s":"x\n","unset":null}`,
		},
		"list value": {message: &structpb.ListValue{}, want: `[]`},
		"value":      {message: number(0), want: `0`},

		"whole double":       {message: scalar(1e20), want: `{"value":100000000000000000000.0}`},
		"large double":       {message: scalar(1e21), want: `{"value":1e+21}`},
		"small double":       {message: scalar(1.5e-7), want: `{"value":1.5e-07}`},
		"shortest double":    {message: scalar(0.1), want: `{"value":0.1}`},
		"zero":               {message: scalar(0), want: `{"value":0.0}`},
		"negative zero":      {message: scalar(math.Copysign(0, -1)), want: `{"value":-0.0}`},
		"infinity":           {options: all, message: scalar(math.Inf(1)), want: `{"value":"Infinity"}`},
		"negative infinity":  {options: all, message: scalar(math.Inf(-1)), want: `{"value":"-Infinity"}`},
		"control characters": {message: label("\x00\x1f\t\r\n\"\\/\x7f"), want: `{"key":"k","value":"\u0000\u001f\t\r\n\"\\/` + "\x7f" + `"}`},
		"not ASCII":          {message: label("é €😀"), want: `{"key":"k","value":"é €😀"}`},
		"escaped":            {options: all, message: label("aé€😀b\u2028"), want: `{"key":"k","value":"a\u00e9\u20ac\ud83d\ude00b\u2028"}`},
		"not UTF-8":          {message: label("a\xffb\xc3"), want: `{"key":"k","value":"a` + "\uFFFD" + `b` + "\uFFFD" + `"}`},
		"not UTF-8, escaped": {options: all, message: label("a\xffb"), want: `{"key":"k","value":"a\ufffdb"}`},

		"defaults, but not deprecated ones": {
			options: all,
			message: &mezzov1.FrameworkInfo{User: proto.String("u"), Name: proto.String("n")},
			want:    `{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false}`,
		},
		"a default of an enum, and one inside": {
			options: all,
			message: &mezzov1.NetworkInfo{IpAddresses: []*mezzov1.NetworkInfo_IPAddress{{}}},
			want:    `{"ip_addresses":[{"protocol":"IPv4"}]}`,
		},
		"a value set beats its default": {
			options: all,
			message: &mezzov1.CommandInfo{Shell: proto.Bool(false)},
			want:    `{"shell":false}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.options.NewEncoder().Marshal(test.message)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	encoder := wirejson.NewEncoder()
	limits := map[string]*mezzov1.Value_Scalar{"cpus": scalar(math.NaN()).(*mezzov1.Value_Scalar)}
	for want, message := range map[string]proto.Message{
		`there is no message to write`:                                                                      nil,
		`mezzo.v1.Value.Scalar.value: JSON has no way to write an infinite number`:                          scalar(math.Inf(1)),
		`mezzo.v1.Offer.resources[1].scalar.value: JSON has no way to write NaN`:                            &mezzov1.Offer{Resources: []*mezzov1.Resource{{}, {Scalar: scalar(math.NaN()).(*mezzov1.Value_Scalar)}}},
		`mezzo.v1.TaskInfo.limits["cpus"].value: JSON has no way to write NaN`:                              &mezzov1.TaskInfo{Limits: limits},
		`google.protobuf.Timestamp: 0 seconds and -1 nanoseconds are no time between the years 1 and 9999`:  &timestamppb.Timestamp{Nanos: -1},
		`.since: 253402300800 seconds and 0 nanoseconds are no time between the years 1 and 9999`:           &pluginv1.HealthStatus{Since: &timestamppb.Timestamp{Seconds: 253402300800}},
		`google.protobuf.Struct["a"][1]: JSON has no way to write NaN`:                                      &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{number(1), number(math.NaN())}})}},
		`google.protobuf.Timestamp: 9223372036854775807 seconds and 0 nanoseconds are no time between the `: &timestamppb.Timestamp{Seconds: math.MaxInt64},
	} {
		dst, err := encoder.Append([]byte("kept"), message)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want error %q, got %v", want, err)
		}
		if string(dst) != "kept" {
			t.Errorf("an error changed what was there to %q", dst)
		}
	}
	// Infinity has a form where it is allowed; NaN never has.
	if _, err := (wirejson.Options{Infinity: true}).NewEncoder().Marshal(scalar(math.NaN())); err == nil {
		t.Error("no error about NaN")
	}
}

func TestMarshalIndent(t *testing.T) {
	encoder := wirejson.NewEncoder()
	got, err := encoder.MarshalIndent(&mezzov1.Offer{Id: &mezzov1.OfferID{Value: proto.String("o")}, AgentId: &mezzov1.AgentID{}})
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n  \"id\": {\n    \"value\": \"o\"\n  },\n  \"agent_id\": {}\n}"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if _, err := encoder.MarshalIndent(scalar(math.NaN())); err == nil {
		t.Error("no error about NaN")
	}
}

// Types of every kind of map key and number, which the schema has none of.
func TestKindsOutsideTheSchema(t *testing.T) {
	for typ, test := range map[descriptorpb.FieldDescriptorProto_Type]struct {
		keys []protoreflect.MapKey
		want string
	}{
		descriptorpb.FieldDescriptorProto_TYPE_INT32: {
			keys: mapKeys(int32(10), int32(-9), int32(2)), want: `{"m":{"-9":1.5,"2":1.5,"10":1.5}}`,
		},
		descriptorpb.FieldDescriptorProto_TYPE_SFIXED64: {
			keys: mapKeys(int64(math.MaxInt64), int64(math.MinInt64)), want: `{"m":{"-9223372036854775808":1.5,"9223372036854775807":1.5}}`,
		},
		descriptorpb.FieldDescriptorProto_TYPE_FIXED32: {
			keys: mapKeys(uint32(10), uint32(9)), want: `{"m":{"9":1.5,"10":1.5}}`,
		},
		descriptorpb.FieldDescriptorProto_TYPE_UINT64: {
			keys: mapKeys(uint64(math.MaxUint64), uint64(9)), want: `{"m":{"9":1.5,"18446744073709551615":1.5}}`,
		},
		descriptorpb.FieldDescriptorProto_TYPE_BOOL: {
			keys: mapKeys(true, false), want: `{"m":{"false":1.5,"true":1.5}}`,
		},
		descriptorpb.FieldDescriptorProto_TYPE_STRING: {
			keys: mapKeys("b", "a\n"), want: `{"m":{"a\n":1.5,"b":1.5}}`,
		},
	} {
		message := dynamicpb.NewMessage(mapOf(t, typ))
		field := message.Descriptor().Fields().Get(0)
		for _, key := range test.keys {
			message.Mutable(field).Map().Set(key, protoreflect.ValueOfFloat32(1.5))
		}
		got, err := wirejson.NewEncoder().Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, string(got)); diff != "" {
			t.Errorf("%s: %s", typ, diff)
		}
	}
}

func mapKeys(values ...any) (keys []protoreflect.MapKey) {
	for _, v := range values {
		keys = append(keys, protoreflect.ValueOf(v).MapKey())
	}
	return keys
}

// mapOf makes a type with one field, a map from keys of a type to floats.
func mapOf(t *testing.T, key descriptorpb.FieldDescriptorProto_Type) protoreflect.MessageDescriptor {
	t.Helper()
	optional := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("M"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("m"), Number: proto.Int32(1), TypeName: proto.String(".t.M.MEntry"),
				Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
			}},
			NestedType: []*descriptorpb.DescriptorProto{{
				Name: proto.String("MEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
				Field: []*descriptorpb.FieldDescriptorProto{
					{Name: proto.String("key"), Number: proto.Int32(1), Label: optional, Type: key.Enum()},
					{Name: proto.String("value"), Number: proto.Int32(2), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_FLOAT.Enum()},
				},
			}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// Two types of one name, from different files, have plans of their own.
func TestSameNameOtherType(t *testing.T) {
	encoder := wirejson.NewEncoder()
	for _, typ := range []descriptorpb.FieldDescriptorProto_Type{
		descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_BOOL,
	} {
		if _, err := encoder.Marshal(dynamicpb.NewMessage(mapOf(t, typ))); err != nil {
			t.Error(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	encoder := wirejson.NewEncoder()
	message := &mezzov1.ContainerID{Value: proto.String("a"), Parent: &mezzov1.ContainerID{Value: proto.String("b")}}
	want := `{"value":"a","parent":{"value":"b"}}`
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 100 {
				if got, err := encoder.Marshal(message); err != nil || string(got) != want {
					t.Errorf("%s, %v", got, err)
				}
				if _, err := encoder.Marshal(&schedulerv1.Event{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkMarshal(b *testing.B) {
	encoder := wirejson.NewEncoder()
	offer := &mezzov1.Offer{Id: &mezzov1.OfferID{Value: proto.String("o")}, Hostname: proto.String("host")}
	for _, name := range []string{"cpus", "mem", "disk"} {
		offer.Resources = append(offer.Resources, &mezzov1.Resource{
			Name: &name, Type: mezzov1.Value_SCALAR.Enum(), Scalar: scalar(4).(*mezzov1.Value_Scalar),
		})
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = encoder.Append(dst[:0], offer); err != nil {
			b.Fatal(err)
		}
	}
}
