package agent

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// requests are operators' requests that the machine will answer.
type requests struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]chan state.AnswerStandalone
}

func newRequests() *requests { return &requests{open: map[uint64]chan state.AnswerStandalone{}} }

func (r *requests) begin() (uint64, <-chan state.AnswerStandalone) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	c := make(chan state.AnswerStandalone, 1)
	r.open[r.last] = c
	return r.last, c
}

func (r *requests) end(request uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, request)
}

func (r *requests) answer(a state.AnswerStandalone) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.open[a.Request]; c != nil {
		delete(r.open, a.Request)
		c <- a
	}
}

// ask gives the machine a request and waits for its answer.
func (a *Agent) ask(ctx context.Context, id string, input func(request uint64) state.Input) (state.AnswerStandalone, error) {
	select {
	case <-a.running:
	default:
		return state.AnswerStandalone{}, status.Error(codes.Unavailable, ErrStopped.Error())
	}
	request, answered := a.requests.begin()
	defer a.requests.end(request)
	a.post(ctx, input(request))
	select {
	case answer := <-answered:
		code := map[state.StandaloneResult]codes.Code{
			state.StandaloneUnknown: codes.NotFound, state.StandaloneInvalid: codes.InvalidArgument, state.StandaloneRefused: codes.FailedPrecondition,
		}[answer.Result]
		if code != codes.OK {
			return answer, status.Errorf(code, "container %s: %s", id, answer.Message)
		}
		return answer, nil
	case <-ctx.Done():
		a.post(a.life, state.DropStandalone{Request: request})
		return state.AnswerStandalone{}, status.FromContextError(ctx.Err()).Err()
	case <-a.ended:
		return state.AnswerStandalone{}, status.Error(codes.Unavailable, ErrStopped.Error())
	}
}

// authorizeContainer asks whether the caller may run, or remove, such a container
// of that user; empty: of the one of the container named of, or of nobody in
// particular.
func (a *Agent) authorizeContainer(ctx context.Context, id, user, of string) error {
	if user == "" {
		if err := a.query(ctx, func(m *state.Machine) { user = m.StandaloneUser(of) }); err != nil {
			return edge(err)
		}
	}
	return a.authorize(ctx, rpc.RunContainer, rpc.Object{ID: id, User: user})
}

// LaunchContainer runs an operator's command in a container of its own.
func (a *Agent) LaunchContainer(ctx context.Context, q *operatorv1.LaunchContainerRequest) (*operatorv1.LaunchContainerResponse, error) {
	if err := a.authorizeContainer(ctx, q.GetContainerId(), q.GetCommand().GetUser(), ""); err != nil {
		return nil, err
	}
	answer, err := a.ask(ctx, q.GetContainerId(), func(request uint64) state.Input {
		return state.LaunchStandalone{Request: request, ID: q.GetContainerId(), Spec: state.StandaloneSpec{
			Command: q.GetCommand(), Container: q.GetContainer(), Resources: q.GetResources(), Limits: q.GetLimits(),
		}}
	})
	return &operatorv1.LaunchContainerResponse{Already: answer.Result == state.StandaloneAlready}, err
}

// WaitContainer answers when such a container has ended.
func (a *Agent) WaitContainer(ctx context.Context, q *operatorv1.WaitContainerRequest) (*operatorv1.WaitContainerResponse, error) {
	if err := a.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	answer, err := a.ask(ctx, q.GetContainerId(), func(request uint64) state.Input {
		return state.WaitStandalone{Request: request, ID: q.GetContainerId()}
	})
	if err != nil {
		return nil, err
	}
	out := &operatorv1.WaitContainerResponse{}
	if answer.Exit.GetKnown() {
		out.End = &operatorv1.ExecEnd{Code: answer.Exit.GetCode(), Signal: answer.Exit.GetSignal()}
	}
	if l := answer.Limitation; l != nil {
		out.Reason, out.Message, out.Exceeded = l.Reason, l.GetMessage(), l.GetResources()
	}
	return out, nil
}

// RemoveContainer removes what is left of such a container.
func (a *Agent) RemoveContainer(ctx context.Context, q *operatorv1.RemoveContainerRequest) (*operatorv1.RemoveContainerResponse, error) {
	if err := a.authorizeContainer(ctx, q.GetContainerId(), "", q.GetContainerId()); err != nil {
		return nil, err
	}
	_, err := a.ask(ctx, q.GetContainerId(), func(request uint64) state.Input {
		return state.RemoveStandalone{Request: request, ID: q.GetContainerId()}
	})
	return &operatorv1.RemoveContainerResponse{}, err
}

// removeSandbox removes a sandbox, after all else that is done with its container.
func (c *containers) removeSandbox(o state.RemoveSandbox) {
	c.enqueue(o.Container, func(context.Context) {
		dir := c.work.path(o.Sandbox)
		mounts, err := mountPoints()
		if err != nil || slices.ContainsFunc(mounts, func(m string) bool { return m == dir || strings.HasPrefix(m, dir+"/") }) {
			return // what is mounted there is somebody's data
		}
		_ = os.RemoveAll(dir) // what cannot be removed stays, as the disk shows
		c.mu.Lock()
		defer c.mu.Unlock()
		if w := c.workers[o.Container]; w != nil && len(w.ops) == 0 {
			delete(c.workers, o.Container) // it is not being launched anew
		}
	})
}
