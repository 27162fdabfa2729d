package agentapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// sessions are those that run and those that ended lately. Safe for concurrent
// use.
type sessions struct {
	agent operatorv1.AgentOperatorClient
	life  context.Context
	stop  context.CancelCauseFunc
	runs  sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	byID     map[string]*session
	running  int
	attached int
	over     []*session // those that ended, the oldest first
}

func newSessions(agent operatorv1.AgentOperatorClient) *sessions {
	s := &sessions{agent: agent, byID: map[string]*session{}}
	s.life, s.stop = context.WithCancelCause(context.Background())
	return s
}

// close ends all sessions and waits for their ends.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop(errors.New("the adapter ended"))
	s.runs.Wait()
}

// path is an id with those of its parents.
func path(id *mezzov1.ContainerID) string {
	if id.Parent == nil {
		return id.GetValue()
	}
	return path(id.Parent) + "." + id.GetValue()
}

// find returns a session; nil: there is none. It belongs to who started it.
func (s *sessions) find(r *http.Request, id *mezzov1.ContainerID) (*session, *transport.Error) {
	s.mu.Lock()
	s.forget()
	x := s.byID[path(id)]
	s.mu.Unlock()
	if x != nil && x.owner != transport.PrincipalName(r) {
		return nil, transport.Failed(http.StatusForbidden, "Container "+path(id)+" is another principal's session")
	}
	return x, nil
}

// forget drops ended sessions that nobody can ask for any more. The lock is held.
func (s *sessions) forget() {
	for len(s.over) > 0 && (len(s.over) > endedMost || time.Since(s.over[0].end.at) > endedFor) {
		if x := s.over[0]; s.byID[x.id] == x {
			delete(s.byID, x.id)
		}
		s.over = s.over[1:]
	}
}

// remove drops a session that has ended.
func (s *sessions) remove(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[x.id] == x {
		delete(s.byID, x.id)
	}
}

// errRunsAlready is the answer to the launch of a container that is there.
var errRunsAlready = &transport.Error{Code: http.StatusAccepted}

// plan is a session that is to be.
type plan struct {
	id      *mezzov1.ContainerID
	command *mezzov1.CommandInfo
	tty     bool
	size    *mezzov1.TTYInfo_WindowSize
	bound   bool // it lives by the connection of the request, which reads it
}

// launch starts a session and returns when its command runs.
func (s *sessions) launch(r *http.Request, p plan) (*session, *transport.Error) {
	x := &session{
		id: path(p.id), owner: transport.PrincipalName(r), tty: p.tty, sending: make(chan struct{}, 1), attached: map[*reader]bool{},
	}
	if p.bound {
		x.main = newReader(0)
	}
	x.ctx, x.cancel = context.WithCancelCause(transport.WithPrincipal(s.life, transport.PrincipalOf(r)))
	x.over, x.finish = context.WithCancel(context.Background())
	if failure := s.add(x); failure != nil {
		x.cancel(nil)
		x.finish()
		return nil, failure
	}
	leave := context.AfterFunc(r.Context(), func() { x.cancel(errDetached) })
	x.sending <- struct{}{} // nobody else may, before it runs
	err := s.begin(x, p)
	if cause := context.Cause(x.ctx); err != nil && cause != nil {
		err = status.Error(codes.Unavailable, "The command was not started: "+cause.Error())
	}
	if !p.bound {
		leave()
	}
	if err != nil {
		s.remove(x)
		x.ended(ending{failed: err})
		s.done(x)
		return nil, refusal(err)
	}
	<-x.sending
	go func() {
		defer s.done(x)
		x.run()
	}()
	return x, nil
}

// add makes room for a session.
func (s *sessions) add(x *session) *transport.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	switch {
	case s.closed:
		return ending503()
	case s.byID[x.id] != nil:
		return errRunsAlready
	case s.running >= sessionMost:
		return transport.Failed(http.StatusServiceUnavailable, "As many sessions run on this agent as may; end some, or try again")
	}
	if parent := s.byID[x.id[:max(0, strings.LastIndexByte(x.id, '.'))]]; parent != nil {
		return transport.Failed(http.StatusBadRequest, "Container "+parent.id+" is a session: nothing can be nested in it")
	}
	s.byID[x.id] = x
	s.running++
	s.runs.Add(1)
	return nil
}

// done is when a session has ended.
func (s *sessions) done(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.byID[x.id] == x {
		s.over = append(s.over, x)
		s.forget()
	}
	s.runs.Done()
}

// begin opens the session's stream and waits until its command runs.
func (s *sessions) begin(x *session, p plan) error {
	late := time.AfterFunc(startPatience, func() { x.cancel(errors.New("the agent did not answer in time")) })
	defer late.Stop()
	far, err := s.agent.Exec(x.ctx)
	if err != nil {
		return err
	}
	start := &operatorv1.ExecStart{ContainerId: p.id.GetParent().GetValue(), Command: p.command, Tty: p.tty}
	if p.size != nil {
		start.Size = &operatorv1.WindowSize{Rows: p.size.GetRows(), Columns: p.size.GetColumns()}
	}
	// What nobody is connected to, and has no terminal, gets no input.
	if err := begin(far, &operatorv1.ExecRequest{Start: start, StdinClosed: !p.bound && !p.tty}); err != nil {
		return err
	}
	x.far = far
	return nil
}

// begin sends the first message and waits for the first answer.
func begin(far execution, first *operatorv1.ExecRequest) error {
	_ = far.Send(first) // Recv tells why it failed
	out, err := far.Recv()
	if err == nil && !out.GetStarted() {
		return status.Error(codes.Internal, "the agent's first answer is not that the command runs")
	}
	return err
}

// refusal is the answer when the agent does not run a command or attach to it.
func refusal(err error) *transport.Error {
	code := http.StatusInternalServerError
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.InvalidArgument, codes.NotFound:
		code = http.StatusBadRequest
	case codes.PermissionDenied, codes.Unauthenticated:
		code = http.StatusForbidden
	case codes.Unimplemented:
		code = http.StatusNotImplemented
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		code = http.StatusServiceUnavailable
	}
	return transport.Failed(code, status.Convert(err).Message())
}

// place takes one of the places for those who attach.
func (s *sessions) place() (leave func(), failure *transport.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attached >= attachedMost {
		return nil, transport.Failed(http.StatusServiceUnavailable, "As many clients are attached to containers of this agent as may be; try again")
	}
	s.attached++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.attached--
	}, nil
}
