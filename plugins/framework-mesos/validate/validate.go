package validate

import (
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// The calls that are whole without the field of their name. Calls of type UNKNOWN
// are valid everywhere, and answered with 501.
var (
	schedulerFields = fieldsOf(&schedulerv1.Call{}, "UNKNOWN", "TEARDOWN", "REVIVE", "SUPPRESS")
	executorFields  = fieldsOf(&executorv1.Call{}, "UNKNOWN", "HEARTBEAT")
	masterFields    = fieldsOf(&masterv1.Call{}, "UNKNOWN",
		"GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS",
		"GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_ROLES", "GET_WEIGHTS", "GET_MASTER", "SUBSCRIBE",
		"GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE", "GET_QUOTA")
	agentFields = fieldsOf(&agentv1.Call{}, "UNKNOWN",
		"GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_LOGGING_LEVEL", "GET_STATE", "GET_CONTAINERS", "GET_FRAMEWORKS",
		"GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_AGENT", "GET_RESOURCE_PROVIDERS", "PRUNE_IMAGES")
)

// fieldsOf returns, by type of call, the field that must be set. It has the type's
// name in lower case.
func fieldsOf(call proto.Message, bare ...string) map[protoreflect.EnumNumber]protoreflect.FieldDescriptor {
	needed := map[protoreflect.EnumNumber]protoreflect.FieldDescriptor{}
	fields := call.ProtoReflect().Descriptor().Fields()
	types := fields.ByName("type").Enum().Values()
	for i := range types.Len() {
		needed[types.Get(i).Number()] = fields.ByName(protoreflect.Name(strings.ToLower(string(types.Get(i).Name()))))
	}
	for _, name := range bare {
		delete(needed, types.ByName(protoreflect.Name(name)).Number())
	}
	return needed
}

func expecting(field string) error { return text("Expecting '" + field + "' to be present") }

// present checks that the field that belongs to the call's type is set.
func present(needed map[protoreflect.EnumNumber]protoreflect.FieldDescriptor, call proto.Message, number protoreflect.EnumNumber) error {
	if field := needed[number]; field != nil && !call.ProtoReflect().Has(field) {
		return expecting(string(field.Name()))
	}
	return nil
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return text("Failed to validate " + what + ": " + err.Error())
}

// Scheduler checks a scheduler's call. principal is who the caller has proven to
// be; "" if it did not have to.
func Scheduler(call *schedulerv1.Call, principal string) error {
	return failed("scheduler::Call", scheduler(call, principal))
}

func scheduler(call *schedulerv1.Call, principal string) error {
	if call.Type == nil {
		return expecting("type")
	}
	if call.GetType() != schedulerv1.Call_SUBSCRIBE && call.FrameworkId == nil {
		return expecting("framework_id")
	}
	if err := present(schedulerFields, call, call.GetType().Number()); err != nil {
		return err
	}
	switch call.GetType() {
	case schedulerv1.Call_SUBSCRIBE:
		return frameworkInfo(call, "subscribe", call.GetSubscribe().GetFrameworkInfo(), principal)
	case schedulerv1.Call_UPDATE_FRAMEWORK:
		return frameworkInfo(call, "update_framework", call.GetUpdateFramework().GetFrameworkInfo(), principal)
	case schedulerv1.Call_ACKNOWLEDGE:
		return UUID(call.GetAcknowledge().GetUuid())
	case schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS:
		if call.GetAcknowledgeOperationStatus().AgentId == nil {
			return expecting("agent_id")
		}
		return UUID(call.GetAcknowledgeOperationStatus().GetUuid())
	}
	return nil
}

func frameworkInfo(call *schedulerv1.Call, field string, info *mezzov1.FrameworkInfo, principal string) error {
	if call.GetFrameworkId().GetValue() != info.GetId().GetValue() {
		return text("'framework_id' differs from '" + field + ".framework_info.id'")
	}
	if principal != "" && info.Principal != nil && info.GetPrincipal() != principal {
		return text(fmt.Sprintf("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", principal, info.GetPrincipal()))
	}
	return nil
}

// UUID checks the raw bytes of a UUID: sixteen, with a version of RFC 4122, which
// the UUID of zeros has not.
func UUID(raw []byte) error {
	if len(raw) != 16 || raw[6]>>4 < 1 || raw[6]>>4 > 5 {
		return text("Not a valid UUID")
	}
	return nil
}

// Executor checks an executor's call.
func Executor(call *executorv1.Call) error { return failed("Executor::Call", executor(call)) }

func executor(call *executorv1.Call) error {
	switch {
	case call.Type == nil:
		return expecting("type")
	case call.GetType() == executorv1.Call_HEARTBEAT:
		return nil
	case call.ExecutorId == nil:
		return expecting("executor_id")
	case call.FrameworkId == nil:
		return expecting("framework_id")
	}
	if err := present(executorFields, call, call.GetType().Number()); err != nil {
		return err
	}
	if call.GetType() == executorv1.Call_UPDATE {
		return update(call, call.GetUpdate().GetStatus())
	}
	return nil
}

func update(call *executorv1.Call, status *mezzov1.TaskStatus) error {
	executor, framework := call.GetExecutorId().GetValue(), call.GetFrameworkId().GetValue()
	if status.Uuid == nil {
		return expecting("uuid")
	}
	if err := UUID(status.GetUuid()); err != nil {
		return err
	}
	switch {
	case status.ExecutorId != nil && status.GetExecutorId().GetValue() != executor:
		return text(fmt.Sprintf("ExecutorID in Call: %s does not match ExecutorID in TaskStatus: %s", executor, status.GetExecutorId().GetValue()))
	case status.GetSource() != mezzov1.TaskStatus_SOURCE_EXECUTOR:
		return text(fmt.Sprintf("Received Call from executor %s of framework %s with invalid source, expecting 'SOURCE_EXECUTOR'", executor, framework))
	case status.GetState() == mezzov1.TaskState_TASK_STAGING:
		return text(fmt.Sprintf("Received TASK_STAGING from executor %s of framework %s which is not allowed", executor, framework))
	case status.CheckStatus != nil:
		return checkStatus(status.GetCheckStatus())
	}
	return nil
}

func checkStatus(status *mezzov1.CheckStatusInfo) error {
	if status.Type == nil {
		return text("CheckStatusInfo must specify 'type'")
	}
	missing := false
	switch status.GetType() {
	case mezzov1.CheckInfo_COMMAND:
		missing = status.Command == nil
	case mezzov1.CheckInfo_HTTP:
		missing = status.Http == nil
	case mezzov1.CheckInfo_TCP:
		missing = status.Tcp == nil
	default:
		return text("'" + status.GetType().String() + "' is not a valid check's status type")
	}
	if missing {
		name := status.GetType().String()
		return text(fmt.Sprintf("Expecting '%s' to be set for %s check's status", strings.ToLower(name), name))
	}
	return nil
}

// Master checks a call of the master's operator API.
func Master(call *masterv1.Call) error { return failed("master::Call", master(call)) }

func master(call *masterv1.Call) error {
	if call.Type == nil {
		return expecting("type")
	}
	if err := present(masterFields, call, call.GetType().Number()); err != nil {
		return err
	}
	switch {
	case call.GetType() == masterv1.Call_GROW_VOLUME && call.GetGrowVolume().AgentId == nil,
		call.GetType() == masterv1.Call_SHRINK_VOLUME && call.GetShrinkVolume().AgentId == nil:
		return expecting("agent_id")
	}
	return nil
}

// Agent checks a call of the agent's operator API. Of the calls that attach an
// input it takes the first of the stream only.
func Agent(call *agentv1.Call) error { return failed("agent::Call", agent(call)) }

func agent(call *agentv1.Call) error {
	if call.Type == nil {
		return expecting("type")
	}
	if err := present(agentFields, call, call.GetType().Number()); err != nil {
		return err
	}
	switch call.GetType() {
	case agentv1.Call_ATTACH_CONTAINER_INPUT:
		return attachInput(call.GetAttachContainerInput())
	case agentv1.Call_ADD_RESOURCE_PROVIDER_CONFIG:
		return newProvider("add_resource_provider_config", call.GetAddResourceProviderConfig().GetInfo())
	case agentv1.Call_UPDATE_RESOURCE_PROVIDER_CONFIG:
		return newProvider("update_resource_provider_config", call.GetUpdateResourceProviderConfig().GetInfo())
	}
	id, nested := containerOf(call)
	if id == nil {
		return nil
	}
	field := strings.ToLower(call.GetType().String()) + ".container_id"
	if err := ContainerID(id); err != nil {
		return text("'" + field + "' is invalid: " + err.Error())
	}
	if nested && id.Parent == nil {
		return expecting(field + ".parent")
	}
	return nil
}

func newProvider(field string, info *mezzov1.ResourceProviderInfo) error {
	if info.Id != nil {
		return text("Expecting '" + field + ".info.id' to be unset")
	}
	return nil
}

func attachInput(input *agentv1.Call_AttachContainerInput) error {
	switch {
	case input.Type == nil:
		return expecting("attach_container_input.type")
	case input.GetType() != agentv1.Call_AttachContainerInput_CONTAINER_ID:
		return text("Expecting 'attach_container_input.type' to be CONTAINER_ID")
	case input.ContainerId == nil:
		return expecting("attach_container_input.container_id")
	}
	if err := ContainerID(input.GetContainerId()); err != nil {
		return text("'attach_container_input.container_id' is invalid: " + err.Error())
	}
	return nil
}

// containerOf returns the container that a call is about, if it is about one, and
// whether that must be nested.
func containerOf(call *agentv1.Call) (id *mezzov1.ContainerID, nested bool) {
	switch call.GetType() {
	case agentv1.Call_LAUNCH_NESTED_CONTAINER:
		return call.GetLaunchNestedContainer().GetContainerId(), true
	case agentv1.Call_WAIT_NESTED_CONTAINER:
		return call.GetWaitNestedContainer().GetContainerId(), true
	case agentv1.Call_KILL_NESTED_CONTAINER:
		return call.GetKillNestedContainer().GetContainerId(), true
	case agentv1.Call_REMOVE_NESTED_CONTAINER:
		return call.GetRemoveNestedContainer().GetContainerId(), true
	case agentv1.Call_LAUNCH_NESTED_CONTAINER_SESSION:
		return call.GetLaunchNestedContainerSession().GetContainerId(), true
	case agentv1.Call_ATTACH_CONTAINER_OUTPUT:
		return call.GetAttachContainerOutput().GetContainerId(), false
	case agentv1.Call_LAUNCH_CONTAINER:
		return call.GetLaunchContainer().GetContainerId(), false
	case agentv1.Call_WAIT_CONTAINER:
		return call.GetWaitContainer().GetContainerId(), false
	case agentv1.Call_KILL_CONTAINER:
		return call.GetKillContainer().GetContainerId(), false
	case agentv1.Call_REMOVE_CONTAINER:
		return call.GetRemoveContainer().GetContainerId(), false
	}
	return nil, false
}

// ContainerID checks the id of a container and of those that it is in. Since ids
// become names of directories, and are written with points between them, they may
// hold neither slashes nor points.
func ContainerID(id *mezzov1.ContainerID) error {
	if err := ID(id.GetValue()); err != nil {
		return err
	}
	if strings.ContainsAny(id.GetValue(), ". ") {
		return text("'ContainerID.value' '" + id.GetValue() + "' contains invalid characters")
	}
	if id.Parent == nil {
		return nil
	}
	if err := ContainerID(id.Parent); err != nil {
		return text("'ContainerID.parent' is invalid: " + err.Error())
	}
	return nil
}

// ID checks an id that a client chose, of a task, an executor, a framework, an
// agent or a persistent volume.
func ID(id string) error {
	switch {
	case id == "":
		return text("ID must not be empty")
	case len(id) > 255:
		return text("ID must not be greater than 255 characters")
	case id == "." || id == "..":
		return text("'" + id + "' is disallowed")
	case strings.ContainsAny(id, `/\`) || strings.IndexFunc(id, unicode.IsControl) >= 0:
		return text("'" + id + "' contains invalid characters")
	}
	return nil
}
