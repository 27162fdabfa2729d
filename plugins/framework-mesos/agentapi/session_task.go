package agentapi

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
)

// known finds a container of a task or an executor.
func (h *Handler) known(ctx context.Context, id *mezzov1.ContainerID) (*operatorv1.AgentStateResponse, *transport.Error) {
	// It is the adapter that has to know: what the client may do with a container
	// the agent is asked for then.
	state, failure := h.detailFrom(metadata.NewOutgoingContext(ctx, nil), h.options.Own)
	if failure != nil {
		return nil, failure
	}
	for _, c := range state.GetContainers() {
		if c.GetId() == id.GetValue() {
			return state, nil
		}
	}
	return state, notFound(id)
}

// containerOf is the container that a task runs in, as far as it is known.
func containerOf(t *operatorv1.AgentTask) string {
	if list := t.GetTask().GetStatuses(); len(list) > 0 {
		if id := list[len(list)-1].GetContainerStatus().GetContainerId().GetValue(); id != "" {
			return id
		}
	}
	return t.GetRun()
}

// hasTerminal is whether a container was made with one.
func hasTerminal(state *operatorv1.AgentStateResponse, container string) bool {
	for _, t := range state.GetDetail().GetTasks() {
		if containerOf(t) == container && t.GetTask().GetContainer().GetTtyInfo() != nil {
			return true
		}
	}
	for _, e := range state.GetDetail().GetExecutors() {
		if e.GetContainerId() == container && e.GetInfo().GetContainer().GetTtyInfo() != nil {
			return true
		}
	}
	return false
}

// attach connects to the process of a task or an executor, for as long as the
// request lasts. read is who reads what it writes; nil: nobody.
func (s *sessions) attach(r *http.Request, id *mezzov1.ContainerID, read *reader) (*session, *transport.Error) {
	x := &session{id: path(id), main: read, sending: make(chan struct{}, 1)}
	x.ctx, x.cancel = context.WithCancelCause(transport.CallContext(r))
	x.over, x.finish = context.WithCancel(context.Background())
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.runs.Add(1)
	}
	s.mu.Unlock()
	if closed {
		x.ended(ending{})
		return nil, ending503()
	}
	late := time.AfterFunc(startPatience, func() { x.cancel(context.DeadlineExceeded) })
	defer late.Stop()
	far, err := s.agent.Attach(x.ctx)
	if err == nil {
		err = begin(far, &operatorv1.ExecRequest{Start: &operatorv1.ExecStart{ContainerId: id.GetValue(), Tty: true}})
	}
	if err != nil {
		x.ended(ending{})
		s.runs.Done()
		return nil, refusal(err)
	}
	x.far = far
	go func() {
		defer s.runs.Done()
		x.run()
	}()
	return x, nil
}

// The pauses between two looks at a container that cannot be waited for at once.
const (
	waitMin = 50 * time.Millisecond
	waitMax = 5 * time.Second
)

// waitTask waits for the end of a container of a task or an executor.
func (h *Handler) waitTask(r *http.Request, id *mezzov1.ContainerID) (*agentv1.Response_WaitContainer, *transport.Error) {
	leave, failure := h.sessions.place()
	if failure != nil {
		return nil, failure
	}
	defer leave()
	if failure := transport.MayView(r); failure != nil {
		return nil, failure
	}
	ctx := transport.CallContext(r)
	for pause := waitMin; ; pause = min(2*pause, waitMax) {
		state, failure := h.known(ctx, id)
		if failure != nil {
			if end := endedTask(state, id); end != nil {
				return end, nil
			}
			return nil, failure
		}
		x, failure := h.sessions.attach(r, id, nil)
		switch {
		case failure == nil:
			<-x.over.Done()
			if x.end.status != nil {
				return waited(x.end), nil
			}
		case failure.Code == http.StatusNotImplemented || failure.Code == http.StatusForbidden:
			return nil, failure
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return nil, ending503()
		}
	}
}

// endedTask is what the agent still knows of a task whose container is gone.
func endedTask(state *operatorv1.AgentStateResponse, id *mezzov1.ContainerID) *agentv1.Response_WaitContainer {
	command := map[string]bool{}
	for _, e := range state.GetDetail().GetExecutors() {
		command[e.GetContainerId()] = e.GetCommand()
	}
	for _, t := range state.GetDetail().GetTasks() {
		list := t.GetTask().GetStatuses()
		own := containerOf(t) != t.GetRun() || command[t.GetRun()] // it shares its container with no other task
		if !own || containerOf(t) != id.GetValue() || len(list) == 0 || t.GetPlace() != "terminated" && t.GetPlace() != "completed" {
			continue
		}
		s := list[len(list)-1]
		return &agentv1.Response_WaitContainer{ExitStatus: waitStatus(s), State: s.State, Reason: s.Reason, Limitation: s.Limitation, Message: s.Message}
	}
	return nil
}

// waitStatus is how a task's process ended, as wait(2) has it; nil: nobody knows.
func waitStatus(s *mezzov1.TaskStatus) *int32 {
	switch {
	case s.ExitSignal != nil:
		return s.ExitSignal
	case s.ExitCode != nil:
		raw := s.GetExitCode() << 8
		return &raw
	}
	return nil
}
