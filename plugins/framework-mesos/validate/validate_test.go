package validate_test

import (
	"bytes"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
)

// check reads and checks a body the way the API does.
func check(api, body, media, principal string) (proto.Message, error) {
	parser := validate.NewParser()
	switch api {
	case "scheduler":
		call, err := parser.Scheduler([]byte(body), media)
		if err != nil {
			return nil, err
		}
		return call, validate.Scheduler(call, principal)
	case "executor":
		call, err := parser.Executor([]byte(body), media)
		if err != nil {
			return nil, err
		}
		return call, validate.Executor(call)
	case "master":
		call, err := parser.Master([]byte(body), media)
		if err != nil {
			return nil, err
		}
		return call, validate.Master(call)
	}
	call, err := parser.Agent([]byte(body), media)
	if err != nil {
		return nil, err
	}
	return call, validate.Agent(call)
}

const (
	uuid = `"7cBd9f6lRH+JoUzCZfZG7w=="` // version 4
	ids  = `"executor_id":{"value":"e"},"framework_id":{"value":"f"}`
)

func TestTexts(t *testing.T) {
	for _, test := range []struct{ api, body, want string }{
		// What is no call at all.
		{"scheduler", `{`, "Failed to parse body into JSON: syntax error at line 1, column 2: "},
		{"scheduler", `{"type":`, "Failed to parse body into JSON: "},
		{"scheduler", `[]`, "Failed to convert JSON into Call protobuf: Expecting a JSON object"},
		{"scheduler", `{"type":1}`, "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'type'"},
		{"executor", `{"type":"SUBSCRIBE"}`, "Failed to validate Executor::Call: Expecting 'executor_id' to be present"},
		{"master", `{"type":"LIST_FILES","list_files":{}}`, "Failed to convert JSON into Call protobuf: Missing required fields: list_files.path"},
		{"agent", `{"type":`, "Failed to parse body into JSON: "},
		{"agent", `{"type":1}`, "Not expecting a JSON number for field 'type'"},

		{"scheduler", `{}`, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{"scheduler", `{"type":"NO_SUCH_CALL"}`, "Failed to validate scheduler::Call: Expecting 'type' to be present"},
		{"scheduler", `{"type":"UNKNOWN"}`, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		{"scheduler", `{"type":"UNKNOWN","framework_id":{"value":"f"}}`, ""},
		{"scheduler", `{"type":"TEARDOWN"}`, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"},
		{"scheduler", `{"type":"TEARDOWN","framework_id":{"value":"f"}}`, ""},
		{"scheduler", `{"type":"REVIVE","framework_id":{"value":"f"}}`, ""},
		{"scheduler", `{"type":"ACCEPT","framework_id":{"value":"f"},"decline":{}}`, "Failed to validate scheduler::Call: Expecting 'accept' to be present"},
		{"scheduler", `{"type":"ACCEPT_INVERSE_OFFERS","framework_id":{"value":"f"}}`, "Failed to validate scheduler::Call: Expecting 'accept_inverse_offers' to be present"},
		{"scheduler", `{"type":"SUBSCRIBE"}`, "Failed to validate scheduler::Call: Expecting 'subscribe' to be present"},
		{"scheduler", `{"type":"SUBSCRIBE","framework_id":null,"subscribe":{"framework_info":{"user":"root","name":"x","id":null}}}`, ""},
		{"scheduler", `{"type":"SUBSCRIBE","framework_id":{"value":""},"subscribe":{"framework_info":{"user":"u","name":"n"}}}`, ""},
		{"scheduler", `{"type":"SUBSCRIBE","framework_id":{"value":"f"},"subscribe":{"framework_info":{"user":"u","name":"n"}}}`, "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'"},
		{"scheduler", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"f"}}}}`, "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'"},
		{"scheduler", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","principal":"q"}}}`, "Failed to validate scheduler::Call: Authenticated principal 'p' does not match principal 'q' set in `FrameworkInfo`"},
		{"scheduler", `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","principal":"p"}}}`, ""},
		{"scheduler", `{"type":"UPDATE_FRAMEWORK","framework_id":{"value":"f"},"update_framework":{"framework_info":{"user":"u","name":"n","id":{"value":"g"}}}}`, "Failed to validate scheduler::Call: 'framework_id' differs from 'update_framework.framework_info.id'"},
		{"scheduler", `{"type":"ACKNOWLEDGE","framework_id":{"value":"f"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":` + uuid + `}}`, ""},
		{"scheduler", `{"type":"ACKNOWLEDGE","framework_id":{"value":"f"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAA"}}`, "Failed to validate scheduler::Call: Not a valid UUID"},
		{"scheduler", `{"type":"ACKNOWLEDGE","framework_id":{"value":"f"},"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"AAAAAAAAAAAAAAAAAAAAAA=="}}`, "Failed to validate scheduler::Call: Not a valid UUID"},
		{"scheduler", `{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":{"value":"f"},"acknowledge_operation_status":{"operation_id":{"value":"o"},"uuid":` + uuid + `}}`, "Failed to validate scheduler::Call: Expecting 'agent_id' to be present"},
		{"scheduler", `{"type":"ACKNOWLEDGE_OPERATION_STATUS","framework_id":{"value":"f"},"acknowledge_operation_status":{"agent_id":{"value":"a"},"operation_id":{"value":"o"},"uuid":"AAAA"}}`, "Failed to validate scheduler::Call: Not a valid UUID"},

		{"executor", `{` + ids + `}`, "Failed to validate Executor::Call: Expecting 'type' to be present"},
		{"executor", `{"type":"HEARTBEAT",` + ids + `}`, ""},
		{"executor", `{"type":"SUBSCRIBE",` + ids + `}`, "Failed to validate Executor::Call: Expecting 'subscribe' to be present"},
		{"executor", `{"type":"SUBSCRIBE","subscribe":{},` + ids + `}`, ""},
		{"executor", `{"type":"MESSAGE",` + ids + `}`, "Failed to validate Executor::Call: Expecting 'message' to be present"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING"`), ""},
		{"executor", status(`"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING"`), "Failed to validate Executor::Call: Expecting 'uuid' to be present"},
		{"executor", status(`"uuid":"AAAA","source":"SOURCE_EXECUTOR","state":"TASK_RUNNING"`), "Failed to validate Executor::Call: Not a valid UUID"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","executor_id":{"value":"x"}`), "Failed to validate Executor::Call: ExecutorID in Call: e does not match ExecutorID in TaskStatus: x"},
		{"executor", status(`"uuid":` + uuid + `,"state":"TASK_RUNNING"`), "Failed to validate Executor::Call: Received Call from executor e of framework f with invalid source, expecting 'SOURCE_EXECUTOR'"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_STAGING"`), "Failed to validate Executor::Call: Received TASK_STAGING from executor e of framework f which is not allowed"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","check_status":{}`), "Failed to validate Executor::Call: CheckStatusInfo must specify 'type'"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","check_status":{"type":"UNKNOWN"}`), "Failed to validate Executor::Call: 'UNKNOWN' is not a valid check's status type"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","check_status":{"type":"HTTP","tcp":{}}`), "Failed to validate Executor::Call: Expecting 'http' to be set for HTTP check's status"},
		{"executor", status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING","check_status":{"type":"TCP","tcp":{}}`), ""},

		{"master", `{}`, "Failed to validate master::Call: Expecting 'type' to be present"},
		{"master", `{"type":"GET_METRICS"}`, "Failed to validate master::Call: Expecting 'get_metrics' to be present"},
		{"master", `{"type":"GET_METRICS","get_metrics":{}}`, ""},
		{"master", `{"type":"GET_STATE"}`, ""},
		{"master", `{"type":"TEARDOWN"}`, "Failed to validate master::Call: Expecting 'teardown' to be present"},
		{"master", `{"type":"UPDATE_QUOTA"}`, "Failed to validate master::Call: Expecting 'update_quota' to be present"},
		{"master", `{"type":"SHRINK_VOLUME","shrink_volume":{"volume":{"name":"disk","type":"SCALAR"},"subtract":{"value":1}}}`, "Failed to validate master::Call: Expecting 'agent_id' to be present"},

		{"agent", `{}`, "Failed to validate agent::Call: Expecting 'type' to be present"},
		{"agent", `{"type":"GET_CONTAINERS"}`, ""},
		{"agent", `{"type":"PRUNE_IMAGES"}`, ""},
		{"agent", `{"type":"READ_FILE"}`, "Failed to validate agent::Call: Expecting 'read_file' to be present"},
		{"agent", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"a"}}}`, ""},
		{"agent", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"../a"}}}`, "Failed to validate agent::Call: 'kill_container.container_id' is invalid: '../a' contains invalid characters"},
		{"agent", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"a.b"}}}`, "Failed to validate agent::Call: 'kill_container.container_id' is invalid: 'ContainerID.value' 'a.b' contains invalid characters"},
		{"agent", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"a","parent":{"value":""}}}}`, "Failed to validate agent::Call: 'wait_container.container_id' is invalid: 'ContainerID.parent' is invalid: ID must not be empty"},
		{"agent", `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"container_id":{"value":"a"}}}`, "Failed to validate agent::Call: Expecting 'wait_nested_container.container_id.parent' to be present"},
		{"agent", `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"container_id":{"value":"a","parent":{"value":"b"}}}}`, ""},
		{"agent", `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{}}`, "Failed to validate agent::Call: Expecting 'attach_container_input.type' to be present"},
		{"agent", `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"PROCESS_IO"}}`, "Failed to validate agent::Call: Expecting 'attach_container_input.type' to be CONTAINER_ID"},
		{"agent", `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID"}}`, "Failed to validate agent::Call: Expecting 'attach_container_input.container_id' to be present"},
		{"agent", `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID","container_id":{"value":"."}}}`, "Failed to validate agent::Call: 'attach_container_input.container_id' is invalid: '.' is disallowed"},
		{"agent", `{"type":"ADD_RESOURCE_PROVIDER_CONFIG","add_resource_provider_config":{"info":{"type":"t","name":"n","id":{"value":"i"}}}}`, "Failed to validate agent::Call: Expecting 'add_resource_provider_config.info.id' to be unset"},
	} {
		_, err := check(test.api, test.body, validate.JSON, "p")
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s %s: %v", test.api, test.body, err)
		case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)):
			t.Errorf("%s %s: want %q, got %v", test.api, test.body, test.want, err)
		}
	}
}

func status(fields string) string {
	return `{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},` + fields + `}},` + ids + `}`
}

// Who has not proven who they are may claim to be anyone.
func TestNoAuthentication(t *testing.T) {
	body := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","principal":"q"}}}`
	if _, err := check("scheduler", body, validate.JSON, ""); err != nil {
		t.Error(err)
	}
}

func TestProtobuf(t *testing.T) {
	for api, want := range map[string]string{
		"scheduler": "Failed to parse body into Call protobuf", "executor": "Failed to parse body into Call protobuf",
		"master": "Failed to parse body into Call protobuf", "agent": "Failed to parse body into a protobuf object",
	} {
		for _, body := range []string{"\xff", "{}"} {
			if _, err := check(api, body, validate.Protobuf, ""); err == nil || err.Error() != want {
				t.Errorf("%s: want %q, got %v", api, want, err)
			}
		}
	}
	// A type with a number that is not known is as good as none.
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 77)
	if _, err := check("scheduler", string(unknown), validate.Protobuf, ""); err == nil || err.Error() != "Failed to validate scheduler::Call: Expecting 'type' to be present" {
		t.Error(err)
	}
	// Of a required field with such a number, the whole call is none.
	launch := func(state mezzov1.TaskState) string {
		body, err := proto.Marshal(&executorv1.Call{
			ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
			Type:   executorv1.Call_MESSAGE.Enum(),
			Update: &executorv1.Call_Update{Status: &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: proto.String("t")}, State: &state}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if _, err := validate.NewParser().Executor([]byte(launch(mezzov1.TaskState_TASK_RUNNING)), validate.Protobuf); err != nil {
		t.Error(err)
	}
	if _, err := validate.NewParser().Executor([]byte(launch(777)), validate.Protobuf); err == nil || err.Error() != "Failed to parse body into Call protobuf" {
		t.Error(err)
	}
	// One in a list is left out.
	capabilities := []mezzov1.CapabilityInfo_Capability{mezzov1.CapabilityInfo_CHOWN, 7777, mezzov1.CapabilityInfo_KILL}
	body, err := proto.Marshal(&agentv1.Call{Type: agentv1.Call_LAUNCH_CONTAINER.Enum(), LaunchContainer: &agentv1.Call_LaunchContainer{
		ContainerId: &mezzov1.ContainerID{Value: proto.String("c")},
		Container: &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), LinuxInfo: &mezzov1.LinuxInfo{
			EffectiveCapabilities: &mezzov1.CapabilityInfo{Capabilities: capabilities},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	launched, err := validate.NewParser().Agent(body, validate.Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	got := launched.GetLaunchContainer().GetContainer().GetLinuxInfo().GetEffectiveCapabilities().GetCapabilities()
	if diff := cmp.Diff([]mezzov1.CapabilityInfo_Capability{mezzov1.CapabilityInfo_CHOWN, mezzov1.CapabilityInfo_KILL}, got); diff != "" {
		t.Error(diff)
	}
	// Fields that are Mezzo's own are not a client's to set.
	body, err = proto.Marshal(&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum(),
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")}, StreamId: proto.String("s"), Sequence: proto.Uint64(1)})
	if err != nil {
		t.Fatal(err)
	}
	call, err := check("scheduler", string(body), validate.Protobuf, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := call.(*schedulerv1.Call); got.StreamId != nil || got.Sequence != nil {
		t.Errorf("got %v", got)
	}
	body, err = proto.Marshal(&executorv1.Call{
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		Update: &executorv1.Call_Update{Status: &mezzov1.TaskStatus{
			TaskId: &mezzov1.TaskID{Value: proto.String("t")}, State: mezzov1.TaskState_TASK_RUNNING.Enum(), ExitCode: proto.Int32(1),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	updated, err := validate.NewParser().Executor(body, validate.Protobuf)
	if err != nil || updated.GetUpdate().GetStatus().ExitCode != nil {
		t.Errorf("%v, %v", updated, err)
	}
}

// Each type of call has a field of its name, or is known to need none: else a
// missing field would go unnoticed.
func TestEveryTypeIsKnown(t *testing.T) {
	for api, call := range map[string]proto.Message{
		"scheduler": &schedulerv1.Call{}, "executor": &executorv1.Call{}, "master": &masterv1.Call{}, "agent": &agentv1.Call{},
	} {
		fields := call.ProtoReflect().Descriptor().Fields()
		types := fields.ByName("type").Enum().Values()
		var valid []string
		for i := range types.Len() {
			m := call.ProtoReflect().New()
			m.Set(fields.ByName("type"), protoreflect.ValueOfEnum(types.Get(i).Number()))
			if id := fields.ByName("framework_id"); id != nil {
				m.Mutable(id)
			}
			if id := fields.ByName("executor_id"); id != nil {
				m.Mutable(id)
			}
			var err error
			switch call := m.Interface().(type) {
			case *schedulerv1.Call:
				err = validate.Scheduler(call, "")
			case *executorv1.Call:
				err = validate.Executor(call)
			case *masterv1.Call:
				err = validate.Master(call)
			case *agentv1.Call:
				err = validate.Agent(call)
			}
			name := strings.ToLower(string(types.Get(i).Name()))
			if err == nil {
				valid = append(valid, name)
			} else if !strings.HasSuffix(err.Error(), ": Expecting '"+name+"' to be present") || fields.ByName(protoreflect.Name(name)) == nil {
				t.Errorf("%s %s: %v", api, name, err)
			}
		}
		want := map[string]string{
			"scheduler": "unknown teardown revive suppress",
			"executor":  "unknown heartbeat",
			"master": "unknown get_health get_flags get_version get_logging_level get_state get_agents get_frameworks get_executors " +
				"get_tasks get_roles get_weights get_master subscribe get_maintenance_status get_maintenance_schedule get_quota get_operations",
			"agent": "unknown get_health get_flags get_version get_logging_level get_state get_containers get_frameworks get_executors " +
				"get_tasks get_agent get_resource_providers prune_images get_operations",
		}[api]
		if diff := cmp.Diff(sorted(strings.Fields(want)), sorted(valid)); diff != "" {
			t.Errorf("%s: calls that need no field: %s", api, diff)
		}
	}
}

// A small body cannot take much memory: messages are counted, not bytes.
func TestManyMessages(t *testing.T) {
	const many = 600_000
	binary := func(n int) string {
		list := bytes.Repeat([]byte{1<<3 | 2, 0}, n) // tasks to reconcile, with nothing in them
		body := protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), list)
		return string(body)
	}
	text := func(n int) string { return `{"reconcile":{"tasks":[` + strings.Repeat(`{},`, n-1) + `{}]}}` }
	for body, want := range map[string]string{
		text(many):   "Failed to convert JSON into Call protobuf: The text holds more objects than are allowed",
		text(1000):   "Failed to convert JSON into Call protobuf: Missing required fields: ",
		binary(many): "Failed to parse body into Call protobuf",
	} {
		media := validate.JSON
		if body[0] != '{' {
			media = validate.Protobuf
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := check("scheduler", body, media, "")
		runtime.ReadMemStats(&after)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40q: want %q, got %v", body, want, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; media == validate.Protobuf && got > 8<<20 {
			t.Errorf("%d bytes for a body that is refused", got)
		}
	}
}

func TestIDs(t *testing.T) {
	for id, valid := range map[string]bool{
		"": false, "a": true, ".": false, "..": false, "...": true, "a/b": false, `a\b`: false, "a\nb": false, "a b": true,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false, "é": true, "\x7f": false,
	} {
		if err := validate.ID(id); (err == nil) != valid {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Whatever comes, it is refused in words, or it is a call that says what it is.
func FuzzCall(f *testing.F) {
	for i, body := range []string{
		`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n"}}}`,
		`{"type":"ACCEPT","framework_id":{"value":"f"},"accept":{"offer_ids":[{"value":"o"}],"operations":{"type":"LAUNCH","launch":{"task_infos":[{"name":"n","task_id":{"value":"t"},"agent_id":{"value":"a"},"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]}]}},"filters":null}}`,
		status(`"uuid":` + uuid + `,"source":"SOURCE_EXECUTOR","state":"TASK_RUNNING"`),
		`{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"r","limits":{"cpus":{"value":"Infinity"}}}]}}`,
		`{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"a","parent":{"value":"b"}}}}`,
	} {
		f.Add([]byte(body), uint8(i), false)
	}
	for i, call := range []proto.Message{
		&schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String("t")}}},
		&agentv1.Call{Type: agentv1.Call_GET_AGENT.Enum()},
	} {
		body, err := proto.Marshal(call)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, uint8(3*i), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, api uint8, binary bool) {
		media := validate.JSON
		if binary {
			media = validate.Protobuf
		}
		call, err := check([]string{"scheduler", "executor", "master", "agent"}[api%4], string(body), media, "p")
		if err != nil {
			if err.Error() == "" {
				t.Error("refused without a word")
			}
			return
		}
		m := call.ProtoReflect()
		if !m.Has(m.Descriptor().Fields().ByName("type")) {
			t.Errorf("accepted %v", call)
		}
		if err := proto.CheckInitialized(call); err != nil {
			t.Errorf("accepted what cannot be sent on: %v", err)
		}
	})
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
