package agent

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// execStream is what a caller has with the agent; isolatorStream is what the
// agent has with the isolator for it.
type (
	execStream     = grpc.BidiStreamingServer[operatorv1.ExecRequest, operatorv1.ExecResponse]
	isolatorStream = grpc.BidiStreamingClient[isolatorv1.ExecInput, isolatorv1.ExecOutput]
)

// Exec runs a command in a container, for as long as the stream lasts.
func (a *Agent) Exec(stream execStream) error {
	return edge(a.session(stream, true))
}

// Attach connects to the process of a container.
func (a *Agent) Attach(stream execStream) error {
	return edge(a.session(stream, false))
}

// Signal signals the process of a container.
func (a *Agent) Signal(ctx context.Context, r *operatorv1.SignalRequest) (*operatorv1.SignalResponse, error) {
	if r.GetContainerId() == "" || r.GetSignal() < 1 || r.GetSignal() > 64 {
		return nil, status.Errorf(codes.InvalidArgument, "a signal has a container and a number from 1 to 64: %q and %d are not", r.GetContainerId(), r.GetSignal())
	}
	plan, err := a.target(ctx, &operatorv1.ExecStart{ContainerId: r.GetContainerId()})
	if err != nil {
		return nil, edge(err)
	}
	i, err := a.boxes.isolator(state.Launcher(plan.Chain))
	if err != nil {
		return nil, edge(err)
	}
	client, err := i.awaitSoon(ctx)
	if err == nil {
		_, err = client.Signal(ctx, &isolatorv1.SignalRequest{Container: plan.Container, Signal: r.GetSignal()})
	}
	return &operatorv1.SignalResponse{}, edge(err)
}

func (a *Agent) session(stream execStream, exec bool) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	switch {
	case start == nil:
		return status.Error(codes.InvalidArgument, "the first message of an exec must have its start")
	case exec && start.GetCommand() == nil:
		return status.Error(codes.InvalidArgument, "an exec needs a command")
	case !exec && start.GetCommand() != nil:
		return status.Error(codes.InvalidArgument, "an attach connects to the task's own process: it has no command")
	}
	plan, err := a.target(stream.Context(), start)
	if err != nil {
		return err
	}
	i, err := a.boxes.isolator(state.Launcher(plan.Chain))
	if err != nil {
		return err
	}
	begin := &isolatorv1.ExecStart{
		Container: plan.Container, Tty: start.GetTty(),
		Size: &isolatorv1.WindowSize{Rows: start.GetSize().GetRows(), Columns: start.GetSize().GetColumns()},
	}
	if exec {
		if begin.Process, err = a.boxes.process(plan, start.GetCommand(), start.GetTty()); err != nil {
			return status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	client, err := i.awaitSoon(stream.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	call := client.Attach
	if exec {
		call = client.Exec
	}
	far, err := call(ctx)
	if err != nil {
		return err
	}
	input := execInput(first)
	input.Start = begin
	if err := far.Send(input); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	go carryInput(stream, far)
	return carryOutput(far, stream)
}

// target finds the container that a caller means, and asks whether it may.
func (a *Agent) target(ctx context.Context, start *operatorv1.ExecStart) (*state.Plan, error) {
	container, name := start.GetContainerId(), "container "+start.GetContainerId()
	object := rpc.Object{ID: container, FrameworkID: start.GetFrameworkId()}
	if container == "" {
		t, err := a.find(ctx, start.GetFrameworkId(), start.GetTaskId())
		if err != nil {
			return nil, err
		}
		container, name = t.Container, "task "+t.ID
		object = objectOf(t)
	}
	var plan *state.Plan
	if err := a.query(ctx, func(m *state.Machine) {
		if plan = m.Running(container); plan != nil {
			object.Owner = m.Owner(plan.Task.GetFrameworkId())
		}
	}); err != nil {
		return nil, err
	}
	if plan != nil {
		object.User, object.FrameworkID, object.Role = plan.Task.GetUser(), plan.Task.GetFrameworkId(), plan.Task.GetRole()
	}
	if err := a.authorize(ctx, rpc.RunCommand, object); err != nil {
		return nil, err
	}
	if plan == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "%s does not run on this agent: there is nothing to connect to", name)
	}
	return plan, nil
}

func execInput(r *operatorv1.ExecRequest) *isolatorv1.ExecInput {
	in := &isolatorv1.ExecInput{Stdin: r.GetStdin(), StdinClosed: r.GetStdinClosed(), Signal: r.GetSignal()}
	if size := r.GetResize(); size != nil {
		in.Resize = &isolatorv1.WindowSize{Rows: size.GetRows(), Columns: size.GetColumns()}
	}
	return in
}

// carryInput passes on what the caller sends, until that or the process ends.
func carryInput(from execStream, to isolatorStream) {
	for {
		r, err := from.Recv()
		if err != nil {
			_ = to.CloseSend()
			return
		}
		if to.Send(execInput(r)) != nil {
			return
		}
	}
}

func carryOutput(from isolatorStream, to execStream) error {
	for {
		out, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r := &operatorv1.ExecResponse{Started: out.GetStarted(), Stdout: out.GetStdout(), Stderr: out.GetStderr()}
		if end := out.GetStatus(); end != nil {
			r.End = &operatorv1.ExecEnd{Code: end.GetCode(), Signal: end.GetSignal()}
		}
		if err := to.Send(r); err != nil {
			return err
		}
	}
}
