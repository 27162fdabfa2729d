package agentapi

import (
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
)

// launchStandalone launches a container that belongs to no framework.
func (h *Handler) launchStandalone(q *request, x *agentv1.Call_LaunchContainer) *transport.Error {
	for _, r := range x.GetResources() {
		convert.Upgrade(r)
	}
	answer, err := h.options.Agent.LaunchContainer(transport.CallContext(q.r), &operatorv1.LaunchContainerRequest{
		ContainerId: x.GetContainerId().GetValue(), Command: x.GetCommand(), Resources: x.GetResources(), Limits: x.GetLimits(), Container: x.GetContainer(),
	})
	if err != nil {
		return refusal(err)
	}
	if answer.GetAlready() {
		launched(q.w, errRunsAlready)
		return nil
	}
	launched(q.w, nil)
	return nil
}

// noStandalone is whether the agent says that a container is none of that kind.
func noStandalone(err error) bool {
	code := status.Code(err)
	return code == codes.NotFound || code == codes.Unimplemented
}

// waitStandalone waits for the end of such a container; nil: it is none.
func (h *Handler) waitStandalone(r *http.Request, id *mezzov1.ContainerID) (*agentv1.Response_WaitContainer, *transport.Error) {
	if id.Parent != nil {
		return nil, nil
	}
	leave, failure := h.sessions.place()
	if failure != nil {
		return nil, failure
	}
	defer leave()
	answer, err := h.options.Agent.WaitContainer(transport.CallContext(r), &operatorv1.WaitContainerRequest{ContainerId: id.GetValue()})
	if noStandalone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, refusal(err)
	}
	out := &agentv1.Response_WaitContainer{}
	switch end := answer.GetEnd(); {
	case end == nil:
		out.State = mezzov1.TaskState_TASK_FAILED.Enum()
	case end.GetSignal() != 0:
		out.ExitStatus = proto.Int32(end.GetSignal())
	default:
		out.ExitStatus = proto.Int32(end.GetCode() << 8)
	}
	if answer.Reason != nil {
		out.State, out.Reason, out.Message = mezzov1.TaskState_TASK_FAILED.Enum(), answer.Reason, proto.String(answer.GetMessage())
		out.Limitation = &mezzov1.TaskResourceLimitation{Resources: answer.GetExceeded()}
	}
	return out, nil
}

// removeStandalone removes what is left of such a container; false: it is none.
func (h *Handler) removeStandalone(r *http.Request, id *mezzov1.ContainerID) (bool, *transport.Error) {
	if id.Parent != nil {
		return false, nil
	}
	_, err := h.options.Agent.RemoveContainer(transport.CallContext(r), &operatorv1.RemoveContainerRequest{ContainerId: id.GetValue()})
	switch {
	case err == nil:
		return true, nil
	case noStandalone(err):
		return false, nil
	case status.Code(err) == codes.FailedPrecondition:
		return false, transport.Failed(http.StatusInternalServerError, "Container "+path(id)+" has not terminated yet")
	}
	return false, refusal(err)
}
