package wirejson_test

import (
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// Each is a way of writing that Mesos takes, and what it means there.
func TestUnmarshal(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want proto.Message
	}{
		"empty": {`{}`, &schedulerv1.Call{}},
		"white space": {" \t\r\n{ \"type\" : \"REVIVE\" , \"revive\" : { } }\n",
			&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Revive: &schedulerv1.Call_Revive{}}},
		"unknown fields": {`{"type":"REVIVE","x":[{"a":[1,2.5e3,-0,"\u00e9",true,false,null,{}]}],"frameworkId":{"value":"f"}}`,
			&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum()}},
		"null": {`{"type":null,"framework_id":null,"revive":{"roles":null},"accept":{"offer_ids":[null,{"value":"a"},null]}}`,
			&schedulerv1.Call{Revive: &schedulerv1.Call_Revive{}, Accept: &schedulerv1.Call_Accept{OfferIds: []*mezzov1.OfferID{{Value: proto.String("a")}}}}},
		"null in a list of scalars, and in a map": {`{"subscribe":{"framework_info":{"user":"u","name":"n","roles":["a",null],"offer_filters":{"a":null}}}}`,
			&schedulerv1.Call{Subscribe: &schedulerv1.Call_Subscribe{FrameworkInfo: &mezzov1.FrameworkInfo{User: proto.String("u"), Name: proto.String("n"), Roles: []string{"a"}}}}},
		"an object for a list": {`{"accept":{"operations":{"type":"LAUNCH","launch":{}}}}`,
			&schedulerv1.Call{Accept: &schedulerv1.Call_Accept{Operations: []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{}}}}}},
		"a scalar for a list": {`{"roles":"a"}`, &schedulerv1.Call_Revive{Roles: []string{"a"}}},
		"an empty list":       {`{"roles":[]}`, &schedulerv1.Call_Revive{}},

		"the last of two":         {`{"value":1,"value":2}`, scalar(2)},
		"the last of two, a null": {`{"key":"k","value":"v","value":null}`, &mezzov1.Label{Key: proto.String("k")}},
		"the last of two lists":   {`{"roles":["a","b"],"roles":["c"]}`, &schedulerv1.Call_Revive{Roles: []string{"c"}}},
		"the last of two messages": {`{"framework_id":{"value":"a"},"revive":{"roles":["a"]},"revive":{}}`,
			&schedulerv1.Call{FrameworkId: &mezzov1.FrameworkID{Value: proto.String("a")}, Revive: &schedulerv1.Call_Revive{}}},
		"the last of two entries": {`{"limits":{"a":{"value":1},"b":{"value":1},"a":{"value":2},"b":null},"container_id":{"value":"c"}}`,
			&agentv1.Call_LaunchContainer{ContainerId: container("c"), Limits: map[string]*mezzov1.Value_Scalar{"a": scalar(2).(*mezzov1.Value_Scalar)}}},

		"numbers in strings":       {`{"begin":"5","end":" 18446744073709551615 "}`, ranges(5, math.MaxUint64)},
		"fractions are cut":        {`{"begin":1.9,"end":"2.999999"}`, ranges(1, 2)},
		"exponents":                {`{"begin":1e3,"end":12345E-2}`, ranges(1000, 123)},
		"long, then small":         {`{"begin":100000000000000000000000e-20,"end":0}`, ranges(1000, 0)},
		"no negative nothing":      {`{"begin":-0,"end":-0.5}`, ranges(0, 0)},
		"every digit":              {`{"begin":9007199254740993,"end":18446744073709551615.7}`, ranges(9007199254740993, math.MaxUint64)},
		"the smallest":             {`{"nanoseconds":-9223372036854775808}`, &mezzov1.TimeInfo{Nanoseconds: proto.Int64(math.MinInt64)}},
		"the largest":              {`{"nanoseconds":9223372036854775807}`, &mezzov1.TimeInfo{Nanoseconds: proto.Int64(math.MaxInt64)}},
		"an integer for a double":  {`{"value":3}`, scalar(3)},
		"a double in a string":     {`{"value":"1.5e-7"}`, scalar(1.5e-7)},
		"infinity":                 {`{"value":"Infinity"}`, scalar(math.Inf(1))},
		"negative infinity":        {`{"value":"-Infinity"}`, scalar(math.Inf(-1))},
		"bool in a string":         {`{"shell":"false"}`, &mezzov1.CommandInfo{Shell: proto.Bool(false)}},
		"true in a string":         {`{"shell":" true"}`, &mezzov1.CommandInfo{Shell: proto.Bool(true)}},
		"an enum that is unknown":  {`{"type":"NO_SUCH_CALL"}`, &schedulerv1.Call{}},
		"unknown, then it is null": {`{"type":"REVIVE","type":"NO_SUCH_CALL"}`, &schedulerv1.Call{}},

		"bytes":                      {`{"data":"+/8AAQ=="}`, &mezzov1.TaskStatus{Data: []byte{0xfb, 0xff, 0, 1}}},
		"bytes without padding":      {`{"data":"+/8AAQ"}`, &mezzov1.TaskStatus{Data: []byte{0xfb, 0xff, 0, 1}}},
		"bytes with little padding":  {`{"data":"+/8AAQ="}`, &mezzov1.TaskStatus{Data: []byte{0xfb, 0xff, 0, 1}}},
		"bytes with white space":     {`{"data":" +/8A\nAQ\t= = "}`, &mezzov1.TaskStatus{Data: []byte{0xfb, 0xff, 0, 1}}},
		"bytes, none":                {`{"data":""}`, &mezzov1.TaskStatus{Data: []byte{}}},
		"escapes":                    {`{"key":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000é😀"}`, &mezzov1.Label{Key: proto.String("\"\\/\b\f\n\r\té😀\x00é😀")}},
		"an escaped key":             {`{"k\u0065y":"k"}`, &mezzov1.Label{Key: proto.String("k")}},
		"a duration is a message":    {`{"seconds":600}`, durationpb.New(600e9)},
		"timestamp":                  {`"2026-11-21T07:30:00.12Z"`, &timestamppb.Timestamp{Seconds: 1795246200, Nanos: 120_000_000}},
		"timestamp in another place": {`{"since":"1970-01-01T01:00:01+01:00"}`, &pluginv1.HealthStatus{Since: &timestamppb.Timestamp{Seconds: 1}}},
		"an open enum's number":      {`{"name":"a","type":77}`, &pluginv1.Attribute{Name: "a", Type: 77}},
		"struct": {`{"a":[1,{"b":null}],"c":true,"d":"x","c":false}`, &structpb.Struct{Fields: map[string]*structpb.Value{
			"a": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{number(1),
				structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"b": structpb.NewNullValue()}})}}),
			"c": structpb.NewBoolValue(false), "d": structpb.NewStringValue("x"),
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			// What was there before is gone.
			got := proto.Clone(test.want)
			if err := wirejson.NewDecoder().Unmarshal([]byte(test.text), got); err != nil && !partial(test.want, err) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// partial reports whether the message of a test is one that lacks required fields
// only since the test is about something else.
func partial(want proto.Message, err error) bool {
	return proto.CheckInitialized(want) != nil && strings.HasPrefix(err.Error(), "Missing required fields: ")
}

func container(id string) *mezzov1.ContainerID { return &mezzov1.ContainerID{Value: &id} }

func ranges(begin, end uint64) *mezzov1.Value_Range {
	return &mezzov1.Value_Range{Begin: &begin, End: &end}
}

// The texts are those that Mesos answers with.
func TestMisfits(t *testing.T) {
	call, status, task := &schedulerv1.Call{}, &mezzov1.TaskStatus{}, &mezzov1.TaskInfo{}
	for _, test := range []struct {
		text    string
		message proto.Message
		want    string
	}{
		{`[]`, call, "Expecting a JSON object"},
		{`"x"`, call, "Expecting a JSON object"},
		{`null`, call, "Expecting a JSON object"},
		{`{"framework_id":[]}`, call, "Not expecting a JSON array for field 'framework_id'"},
		{`{"framework_id":"f"}`, call, "Not expecting a JSON string for field 'framework_id'"},
		{`{"framework_id":{"value":{}}}`, call, "Not expecting a JSON object for field 'value'"},
		{`{"framework_id":{"value":5}}`, call, "Not expecting a JSON number for field 'value'"},
		{`{"framework_id":{"value":true}}`, call, "Not expecting a JSON boolean for field 'value'"},
		{`{"revive":{"roles":[["a"]]}}`, call, "Not expecting a JSON array for field 'roles'"},
		{`{"accept":{"offer_ids":["a"]}}`, call, "Not expecting a JSON string for field 'offer_ids'"},
		{`{"accept":{"offer_ids":"a"}}`, call, "Not expecting a JSON string for field 'offer_ids'"},
		{`{"limits":[]}`, task, "Not expecting a JSON array for field 'limits'"},
		{`{"limits":{"cpus":5}}`, task, "Not expecting a JSON number for field 'limits'"},
		{`{"type":5}`, call, "Not expecting a JSON number for field 'type'"},
		{`{"healthy":1}`, status, "Not expecting a JSON number for field 'healthy'"},
		{`{"healthy":"yes"}`, status, "Failed to parse 'yes' as a JSON boolean for field 'healthy'"},
		{`{"timestamp":true}`, status, "Not expecting a JSON boolean for field 'timestamp'"},
		{`{"timestamp":"NaN"}`, status, "Failed to parse 'NaN' as a JSON number for field 'timestamp': "},
		{`{"timestamp":"1 2"}`, status, "Failed to parse '1 2' as a JSON number for field 'timestamp': "},
		{`{"timestamp":""}`, status, "Failed to parse '' as a JSON number for field 'timestamp': "},
		{`{"timestamp":1e400}`, status, "Number 1e400 is out of range for field 'timestamp'"},
		{`{"begin":-1,"end":0}`, &mezzov1.Value_Range{}, "Number -1 is out of range for field 'begin'"},
		{`{"begin":18446744073709551616,"end":0}`, &mezzov1.Value_Range{}, "Number 18446744073709551616 is out of range for field 'begin'"},
		{`{"nanoseconds":9223372036854775808}`, &mezzov1.TimeInfo{}, "Number 9223372036854775808 is out of range for field 'nanoseconds'"},
		{`{"nanoseconds":-9223372036854775809}`, &mezzov1.TimeInfo{}, "Number -9223372036854775809 is out of range for field 'nanoseconds'"},
		{`{"nanoseconds":1e19}`, &mezzov1.TimeInfo{}, "Number 1e19 is out of range for field 'nanoseconds'"},
		{`{"signal":2147483648}`, &agentv1.Call_KillContainer{}, "Number 2147483648 is out of range for field 'signal'"},
		{`{"state":"TASK_BORED","task_id":{"value":"t"}}`, status, "Failed to find enum for 'TASK_BORED'"},
		{`{"data":"a-b_"}`, status, "Failed to base64 decode bytes field 'data': Invalid character '-'"},
		{`{"data":"ab==c"}`, status, "Failed to base64 decode bytes field 'data': Invalid character 'c'"},
		{`{"data":"é"}`, status, "Failed to base64 decode bytes field 'data': Invalid character 'é'"},
		{`{"data":"abcde"}`, status, "Failed to base64 decode bytes field 'data': Invalid length"},
		{`{"kill":{},"subscribe":{"framework_info":{"id":{}}}}`, call,
			"Missing required fields: subscribe.framework_info.user, subscribe.framework_info.name, subscribe.framework_info.id.value, kill.task_id"},
		{`{"accept":{"operations":{"launch":{"task_infos":[{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"}},{"name":"n"}]}}}}`, call,
			"Missing required fields: accept.operations[0].launch.task_infos[1].task_id, accept.operations[0].launch.task_infos[1].agent_id"},
		{`{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"},"limits":{"cpus":{}}}`, task, `Missing required fields: limits["cpus"].value`},
		{`{"since":5}`, &pluginv1.HealthStatus{}, "Expecting a JSON string for a google.protobuf.Timestamp"},
		{`{"since":"today"}`, &pluginv1.HealthStatus{}, "Failed to parse 'today' as a time"},
	} {
		err := wirejson.NewDecoder().Unmarshal([]byte(test.text), proto.Clone(test.message))
		var syntax *wirejson.SyntaxError
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || errors.As(err, &syntax) {
			t.Errorf("%s: want %q, got %v", test.text, test.want, err)
		}
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                       "line 1, column 1: the text ends where a value should be",
		"{\n  \"type\": }":       "line 2, column 11: found '}' where a value should be",
		`{"type":"REVIVE"`:       "the text ends where a comma or the end of the object should be",
		`{"type":"REVIVE"}}`:     "found '}' where the end of the text should be",
		`{"type":"REVIVE",}`:     "a key in quotes",
		`{type:"REVIVE"}`:        "found 't' where a key in quotes should be",
		`{"type" "REVIVE"}`:      "where a colon should be",
		`{"x":[1,]}`:             "found ']' where a value should be",
		`{"x":[1 2]}`:            "found '2' where a comma or the end of the array should be",
		`{"x":01}`:               "found '1' where a comma",
		`{"x":+1}`:               "found '+' where a value",
		`{"x":1.}`:               "found '}' where a digit",
		`{"x":-}`:                "found '}' where a digit",
		`{"x":1e}`:               "found '}' where a digit",
		`{"x":nul}`:              "found 'n' where a value",
		`{"x":truer}`:            "found 'r' where a comma",
		`{"x":NaN}`:              "found 'N' where a value",
		`{"x":'a'}`:              `found '\'' where a value`,
		`{"x":"a`:                "the text ends inside a string",
		`{"x":"a\`:               "the text ends inside a string",
		"{\"x\":\"a\nb\"}":       "control character 0x0a",
		"{\"x\":\"\\n\nb\"}":     "control character 0x0a",
		`{"x":"\x"}`:             "unknown escape",
		`{"x":"\u12g4"}`:         "four hexadecimal digits",
		`{"x":"\ud83d"}`:         "surrogate",
		`{"x":"\ude00\ud83d"}`:   "surrogate",
		`{"x":"\ud83dx1234567"}`: "surrogate",
		"{\"x\":\"a\xff\"}":      "not valid UTF-8",
		"{\"x\":\"\\n\xff\"}":    "not valid UTF-8",
		"{\xff}":                 "found the byte 0xff",
		"\xef\xbb\xbf{}":         "found '\\ufeff' where a value",
		"{}\x00":                 "found '\\x00' where the end",
		// What does not fit matters only in what is JSON.
		`{"type":5`:                  "the text ends where a comma",
		`[`:                          "the text ends where a value",
		`{"framework_id":[],"x":}`:   "found '}' where a value",
		`{"type":"REVIVE"} {"x":1}`:  "found '{' where the end",
		strings.Repeat("[", 1e6):     "more than 100 objects and arrays inside each other",
		strings.Repeat(`{"x":`, 1e6): "more than 100 objects",
	} {
		err := wirejson.NewDecoder().Unmarshal([]byte(text), &schedulerv1.Call{})
		var syntax *wirejson.SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: want %q, got %v", text, want, err)
		}
	}
}

func TestDepth(t *testing.T) {
	nested := func(n int) []byte {
		return []byte(strings.Repeat(`{"value":"v","parent":`, n-1) + `{"value":"v"}` + strings.Repeat("}", n-1))
	}
	if err := wirejson.NewDecoder().Unmarshal(nested(100), &mezzov1.ContainerID{}); err != nil {
		t.Error(err)
	}
	if err := wirejson.NewDecoder().Unmarshal(nested(101), &mezzov1.ContainerID{}); err == nil {
		t.Error("no error about depth")
	}
}

func TestUnmarshalList(t *testing.T) {
	decoder := wirejson.NewDecoder()
	got, err := wirejson.UnmarshalList[*mezzov1.MachineID](decoder, []byte(` [{"ip":"10.0.0.1"},null,{"hostname":"h"}] `))
	if err != nil {
		t.Fatal(err)
	}
	want := []*mezzov1.MachineID{{Ip: proto.String("10.0.0.1")}, {Hostname: proto.String("h")}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		`{}`:              "Expecting a JSON array",
		`[1]`:             "Expecting a JSON object",
		`[{"role":"a"}]`:  "Missing required fields: weight",
		`[{"weight":1}],`: "syntax error",
		`[{"weight":[]}`:  "syntax error",
		``:                "syntax error",
	} {
		if got, err := wirejson.UnmarshalList[*mezzov1.WeightInfo](decoder, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want %q, got %v, %v", text, want, got, err)
		}
	}
}

// Mezzo's own fields are neither written nor read for those who do not know them.
func TestMaxField(t *testing.T) {
	mesos := wirejson.Options{MaxField: 9999}
	call := &schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(), Sequence: proto.Uint64(5)}
	text, err := mesos.NewEncoder().Marshal(call)
	if err != nil || string(text) != `{"type":"REVIVE"}` {
		t.Errorf("%s, %v", text, err)
	}
	got := &schedulerv1.Call{}
	if err := mesos.NewDecoder().Unmarshal([]byte(`{"type":"REVIVE","stream_id":"s","sequence":[]}`), got); err != nil || got.StreamId != nil {
		t.Errorf("%v, %v", got, err)
	}
	if err := wirejson.NewDecoder().Unmarshal([]byte(`{"stream_id":"s"}`), got); err != nil || got.GetStreamId() != "s" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMaxMessages(t *testing.T) {
	decoder := wirejson.Options{MaxMessages: 5}.NewDecoder()
	text := func(n int) []byte { // the call, what is in it, and n offers
		return []byte(`{"x":[{},{},{},{},{}],"decline":{"offer_ids":[` + strings.Repeat(`{"value":"o"},`, n-1) + `{"value":"o"}]}}`)
	}
	if err := decoder.Unmarshal(text(3), &schedulerv1.Call{}); err != nil {
		t.Error(err)
	}
	if err := decoder.Unmarshal(text(4), &schedulerv1.Call{}); err == nil || err.Error() != "The text holds more objects than are allowed" {
		t.Error(err)
	}
	if err := wirejson.NewDecoder().Unmarshal(text(100_000), &schedulerv1.Call{}); err != nil {
		t.Error(err)
	}
	if err := decoder.Unmarshal([]byte(`{"a":[1,2,3,4,5]}`), &structpb.Struct{}); err == nil {
		t.Error("plain values are messages too")
	}
}

// An error quotes some of what was sent, not all.
func TestLongErrors(t *testing.T) {
	for _, text := range []string{
		`{"kill":{"task_id":{"value":"t"}},"type":` + strings.Repeat("9", 1e6) + `}`,
		`{"subscribe":{"framework_info":{"user":"u","name":"n","failover_timeout":"` + strings.Repeat("é", 1e6) + `"}}}`,
		`{"reconcile":{"tasks":[` + strings.Repeat(`{},`, 1e5) + `{}]}}`,
	} {
		err := wirejson.NewDecoder().Unmarshal([]byte(text), &schedulerv1.Call{})
		if err == nil || len(err.Error()) > 1010 || !utf8.ValidString(err.Error()) {
			t.Errorf("%.60q: %.60q…", text, err)
		}
	}
}

func TestConcurrentDecoding(t *testing.T) {
	decoder := wirejson.NewDecoder()
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				id, call := &mezzov1.ContainerID{}, &schedulerv1.Call{}
				if err := decoder.Unmarshal([]byte(`{"value":"a","parent":{"value":"b"}}`), id); err != nil || id.GetParent().GetValue() != "b" {
					t.Errorf("%v, %v", id, err)
				}
				if err := decoder.Unmarshal([]byte(`{"type":"REVIVE"}`), call); err != nil || call.GetType() != schedulerv1.Call_REVIVE {
					t.Errorf("%v, %v", call, err)
				}
			}
		})
	}
	group.Wait()
}
