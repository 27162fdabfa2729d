package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var _ operatorv1.AgentOperatorServer = (*Agent)(nil)

const (
	logChunk = 64 << 10
	// How often a follower looks for more: soon after there was something, more
	// seldom when there is not.
	followMin = 20 * time.Millisecond
	followMax = 320 * time.Millisecond
)

// edge is an error as it is told to a caller.
func edge(err error) error {
	if errors.Is(err, ErrStopped) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return rpc.Status(err)
}

func (a *Agent) authorize(ctx context.Context, action rpc.Action, object rpc.Object) error {
	return edge(a.options.Authorizer.Authorize(ctx, rpc.PrincipalFrom(ctx), action, object))
}

// objectOf is a task, for who decides about access to it.
func objectOf(t state.TaskView) rpc.Object {
	return rpc.Object{ID: t.ID, FrameworkID: t.FrameworkID, Role: t.Role, User: t.User, Owner: t.Owner}
}

// GetState serves what the agent shows of itself.
func (a *Agent) GetState(ctx context.Context, q *operatorv1.GetAgentStateRequest) (*operatorv1.AgentStateResponse, error) {
	if err := a.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	v, err := a.State(ctx)
	if err != nil {
		return nil, edge(err)
	}
	r := &operatorv1.AgentStateResponse{
		AgentId: v.AgentID, Hostname: v.Hostname, State: v.State, Master: v.Master, Resources: quantities(v.Resources), Withheld: v.Withheld,
	}
	for _, t := range v.Tasks {
		r.Tasks = append(r.Tasks, taskMessage(v.AgentID, t))
	}
	for _, t := range v.Completed {
		r.Tasks = append(r.Tasks, taskMessage(v.AgentID, t))
	}
	for _, c := range v.Containers {
		r.Containers = append(r.Containers, &operatorv1.Container{
			Id: c.ID, FrameworkId: c.FrameworkID, TaskId: c.TaskID, Launcher: c.Launcher, Chain: c.Chain, Pid: c.PID, State: c.State,
			Sandbox: a.work.path(c.Sandbox), Standalone: c.Standalone,
		})
	}
	for _, e := range v.Endpoints {
		r.Endpoints = append(r.Endpoints, &operatorv1.Endpoint{Name: e.GetName(), Address: e.GetAddress()})
	}
	if a.options.Plugins != nil {
		r.Plugins = a.options.Plugins()
	}
	for _, p := range r.Plugins {
		if p.Host == "" {
			p.Host = v.AgentID
		}
	}
	if q.GetDetail() {
		if r.Detail, err = a.detail(ctx); err != nil {
			return nil, edge(err)
		}
	}
	return r, nil
}

func taskMessage(agent string, t state.TaskView) *operatorv1.Task {
	m := &operatorv1.Task{
		Id: t.ID, Name: t.Name, State: t.Status.State, Reason: t.Status.Reason, Message: t.Status.GetMessage(), FrameworkId: t.FrameworkID,
		AgentId: agent, ExecutorId: t.ExecutorID, Role: t.Role, Resources: quantities(t.Resources), Launched: stamp(t.Launched),
		Started: stamp(t.Started), Finished: stamp(t.Finished), Healthy: t.Status.Healthy, ContainerId: t.Container,
	}
	if t.Status.Source != nil {
		m.Source = t.Status.GetSource().String()
	}
	return m
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// quantities is resources by name: numbers for scalars, text for the others.
func quantities(list []*mezzov1.Resource) *structpb.Struct {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	resources, err := resource.FromProto(list)
	if err != nil {
		return s // they were checked when they came
	}
	for _, q := range resources.Quantities() {
		s.Fields[q.Name] = structpb.NewNumberValue(q.Amount.Float())
	}
	for i := range resources {
		r := &resources[i]
		switch r.Kind.Type() {
		case resource.TypeRanges:
			s.Fields[r.Kind.Name()] = structpb.NewStringValue(text(s.Fields[r.Kind.Name()], r.Ranges.String()))
		case resource.TypeSet:
			s.Fields[r.Kind.Name()] = structpb.NewStringValue(text(s.Fields[r.Kind.Name()], r.Set.String()))
		}
	}
	return s
}

// text adds to what is there already: the same resource reserved otherwise.
func text(before *structpb.Value, more string) string {
	if b := before.GetStringValue(); b != "" {
		return b + " " + more
	}
	return more
}

// find is the one task that a request means.
func (a *Agent) find(ctx context.Context, frameworkID, taskID string) (state.TaskView, error) {
	var list []state.TaskView
	if err := a.query(ctx, func(m *state.Machine) { list = m.Find(frameworkID, taskID) }); err != nil {
		return state.TaskView{}, edge(err)
	}
	if len(list) == 0 {
		return state.TaskView{}, status.Errorf(codes.NotFound, "this agent has no task %q, and none that ended lately", taskID)
	}
	for _, t := range list {
		if t.FrameworkID != list[0].FrameworkID {
			return state.TaskView{}, status.Errorf(codes.InvalidArgument, "several frameworks have a task %q here: say which", taskID)
		}
	}
	return list[0], nil
}

// Logs sends what a task has written, and with follow what it will.
func (a *Agent) Logs(r *operatorv1.LogsRequest, stream grpc.ServerStreamingServer[operatorv1.LogsChunk]) error {
	ctx := stream.Context()
	t, err := a.find(ctx, r.GetFrameworkId(), r.GetTaskId())
	if err != nil {
		return err
	}
	if err := a.authorize(ctx, rpc.ReadSandbox, objectOf(t)); err != nil {
		return err
	}
	name := "stdout"
	if r.GetStream() == operatorv1.LogStream_LOG_STREAM_STDERR {
		name = "stderr"
	}
	f := &follower{agent: a, task: t, name: name, send: stream.Send, pause: followMin}
	return edge(f.run(ctx, r))
}

// follower sends one output of one task.
type follower struct {
	agent  *Agent
	task   state.TaskView
	name   string
	files  *logFiles // nil: the sandbox is not there yet
	offset uint64
	sent   bool
	send   func(*operatorv1.LogsChunk) error
	pause  time.Duration
}

func (f *follower) run(ctx context.Context, r *operatorv1.LogsRequest) error {
	defer func() {
		if f.files != nil {
			f.files.close()
		}
	}()
	for first := true; ; first = false {
		// Asked before reading: what is there once it has ended is all.
		over := f.task.Exited || f.task.Container == ""
		if err := f.open(); err != nil {
			return err
		}
		if first {
			if err := f.begin(r); err != nil {
				return err
			}
		}
		if err := f.drain(ctx); err != nil {
			return err
		}
		if over || !r.GetFollow() {
			return nil
		}
		if err := f.wait(ctx); err != nil {
			return err
		}
	}
}

// open opens the sandbox once it is there.
func (f *follower) open() error {
	if f.files != nil || f.task.Sandbox == "" {
		return nil
	}
	root, err := f.agent.work.open(f.task.Sandbox)
	if errors.Is(err, fs.ErrNotExist) {
		if f.task.Exited && f.task.Started.IsZero() {
			return nil // it never ran
		}
		if f.task.Exited {
			return status.Errorf(codes.NotFound, "the sandbox of task %q has been removed", f.task.ID)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("sandbox of task %q: %w", f.task.ID, err)
	}
	f.files = &logFiles{root: root, name: f.name}
	return nil
}

// begin goes to where the caller wants to start.
func (f *follower) begin(r *operatorv1.LogsRequest) error {
	if f.files == nil || r.TailBytes == nil && r.TailLines == nil {
		return nil
	}
	tail := r.GetTailBytes()
	if r.TailLines != nil {
		var err error
		if tail, err = f.files.lastLines(r.GetTailLines()); err != nil {
			return err
		}
	}
	size := f.files.size()
	passed, err := f.files.skip(size - min(size, tail))
	f.offset = passed
	return err
}

// drain sends all that is there.
func (f *follower) drain(ctx context.Context) error {
	for f.files != nil && ctx.Err() == nil {
		b := make([]byte, logChunk)
		n, err := f.files.Read(b)
		if n > 0 {
			chunk := &operatorv1.LogsChunk{Data: b[:n]}
			if !f.sent {
				f.sent, chunk.Offset = true, f.offset
			}
			if err := f.send(chunk); err != nil {
				return err
			}
			f.pause = followMin
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s of task %q: %w", f.name, f.task.ID, err)
		}
	}
	return ctx.Err()
}

// wait waits a little, and then sees how the task is.
func (f *follower) wait(ctx context.Context) error {
	timer := time.NewTimer(f.pause)
	defer timer.Stop()
	f.pause = min(2*f.pause, followMax)
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.agent.ended:
		return ErrStopped
	}
	t, err := f.agent.find(ctx, f.task.FrameworkID, f.task.ID)
	switch {
	case status.Code(err) == codes.NotFound:
		f.task.Exited = true // ended, and forgotten since
		return nil
	case err != nil:
		return err
	case t.Container != f.task.Container && f.task.Container != "":
		f.task.Exited = true // another task of that name
		return nil
	}
	f.task = t
	return nil
}

// Usage sends statistics of containers.
func (a *Agent) Usage(ctx context.Context, r *operatorv1.ContainerUsageRequest) (*operatorv1.ContainerUsageResponse, error) {
	if err := a.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	v, err := a.State(ctx)
	if err != nil {
		return nil, edge(err)
	}
	statistics, err := a.boxes.usage(ctx, r.GetContainers())
	if err != nil {
		return nil, edge(err)
	}
	answer := &operatorv1.ContainerUsageResponse{}
	for _, c := range v.Containers {
		s := statistics[c.ID]
		if s == nil {
			continue
		}
		a.disk.fill(c, s)
		memory := s.GetMemRssBytes()
		if s.MemTotalBytes != nil {
			memory = s.GetMemTotalBytes()
		}
		answer.Usages = append(answer.Usages, &operatorv1.ContainerUsage{
			Container: c.ID, TaskId: c.TaskID, FrameworkId: c.FrameworkID,
			CpuSeconds:  s.GetCpusUserTimeSecs() + s.GetCpusSystemTimeSecs(),
			MemoryBytes: memory, MemoryLimitBytes: s.GetMemLimitBytes(), Processes: uint64(s.GetProcesses()),
			DiskBytes: s.GetDiskUsedBytes(), DiskLimitBytes: s.GetDiskLimitBytes(),
			ExecutorId: c.ExecutorID, Parent: c.Parent, Statistics: s,
		})
	}
	return answer, nil
}
