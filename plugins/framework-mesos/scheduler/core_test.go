package scheduler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sdk "github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// core is a master's native service: it knows who is subscribed, and answers
// calls as a master does before it carries them out. What it was told is kept.
type core struct {
	schedulerv1.UnimplementedSchedulerServer

	mu         sync.Mutex
	last       int
	frameworks map[string]*framework
	calls      []*schedulerv1.Call
	principals []string // of the calls
	down       bool     // it does not lead
	silent     bool     // it does not answer
}

type framework struct {
	id, principal, stream string
	info                  *mezzov1.FrameworkInfo
	events                chan *schedulerv1.Event // to the current stream; closed ends it
}

func principalOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(sdk.PrincipalKey); len(v) > 0 {
		return v[0]
	}
	return ""
}

// native is the stream id of the n-th subscription.
func native(n int) string { return fmt.Sprintf("%032x", n) }

// uuid is how clients see it.
func uuid(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012x", n) }

func (c *core) Subscribe(call *schedulerv1.Call_Subscribe, stream grpc.ServerStreamingServer[schedulerv1.Event]) error {
	info := call.GetFrameworkInfo()
	c.mu.Lock()
	down, silent := c.down, c.silent
	c.mu.Unlock()
	switch {
	case silent:
		<-stream.Context().Done()
		return nil
	case down:
		return status.Error(codes.Unavailable, "unavailable: this master does not lead")
	case info.GetName() == "denied":
		return status.Error(codes.PermissionDenied, "denied: nobody may")
	case info.GetName() == "refused":
		return stream.Send(&schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: proto.String("Framework has been removed")}})
	}
	c.mu.Lock()
	c.last++
	f := c.frameworks[info.GetId().GetValue()]
	if f == nil {
		f = &framework{id: info.GetId().GetValue(), principal: info.GetPrincipal()}
		if f.id == "" {
			f.id = fmt.Sprintf("m-%04d", c.last)
		}
		if f.principal == "" {
			f.principal = principalOf(stream.Context())
		}
		c.frameworks[f.id] = f
	}
	if f.events != nil {
		f.events <- &schedulerv1.Event{Type: schedulerv1.Event_ERROR.Enum(), Error: &schedulerv1.Event_Error{Message: proto.String("Framework failed over")}}
		close(f.events)
	}
	events := make(chan *schedulerv1.Event, 100)
	f.events, f.stream, f.info = events, native(c.last), info
	id := f.stream
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.stream == id {
			f.stream, f.events = "", nil
		}
	}()
	events <- &schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()}
	if err := stream.Send(&schedulerv1.Event{Type: schedulerv1.Event_SUBSCRIBED.Enum(), Subscribed: &schedulerv1.Event_Subscribed{
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String(f.id)}, HeartbeatIntervalSeconds: proto.Float64(15), StreamId: proto.String(id),
		MasterInfo: &mezzov1.MasterInfo{Id: proto.String("m"), Ip: proto.Uint32(1), Port: proto.Uint32(5061)},
	}}); err != nil {
		return err
	}
	for {
		select {
		case event, open := <-events:
			if !open {
				return status.Error(codes.FailedPrecondition, "conflict: it is over")
			}
			if err := stream.Send(event); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (c *core) Calls(stream grpc.BidiStreamingServer[schedulerv1.Call, schedulerv1.CallResult]) error {
	principal := principalOf(stream.Context())
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if down {
		return status.Error(codes.Unavailable, "unavailable: this master does not lead")
	}
	for {
		call, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		silent := c.silent
		c.mu.Unlock()
		if silent {
			continue
		}
		code, message := c.answer(principal, call)
		if err := stream.Send(&schedulerv1.CallResult{Sequence: call.Sequence, Code: code.Enum(), Message: proto.String(message)}); err != nil {
			return err
		}
	}
}

func (c *core) answer(principal string, call *schedulerv1.Call) (schedulerv1.CallResult_Code, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.frameworks[call.GetFrameworkId().GetValue()]
	switch {
	case call.GetKill().GetTaskId().GetValue() == "forbidden":
		return schedulerv1.CallResult_UNAUTHORIZED, "denied: not this one"
	case f == nil:
		return schedulerv1.CallResult_UNKNOWN_FRAMEWORK, "it is not known"
	case principal != "" && principal != f.principal:
		return schedulerv1.CallResult_WRONG_PRINCIPAL, fmt.Sprintf("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", principal, f.principal)
	case f.stream == "":
		return schedulerv1.CallResult_NOT_SUBSCRIBED, "it is not subscribed"
	case call.GetStreamId() == "":
		return schedulerv1.CallResult_NO_STREAM, "which?"
	case call.GetStreamId() != f.stream:
		return schedulerv1.CallResult_SUPERSEDED, "another"
	case call.GetType() == schedulerv1.Call_UNKNOWN:
		return schedulerv1.CallResult_INVALID, "Unknown call type"
	case call.GetUpdateFramework().GetFrameworkInfo().GetUser() == "changed":
		return schedulerv1.CallResult_INVALID, "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported"
	}
	c.calls = append(c.calls, call)
	c.principals = append(c.principals, principal)
	if call.GetType() == schedulerv1.Call_TEARDOWN {
		close(f.events)
		f.stream, f.events = "", nil
		delete(c.frameworks, f.id)
	}
	return schedulerv1.CallResult_ACCEPTED, ""
}

// send sends an event to a framework's current stream.
func (c *core) send(id string, event *schedulerv1.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frameworks[id].events <- event
}

// told returns the calls that were carried out since it was last asked.
func (c *core) told() []*schedulerv1.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls, c.principals = nil, nil
	return out
}

func (c *core) set(change func(*core)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// waitGone waits until a framework has no stream.
func (c *core) waitGone(t *testing.T, id string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		f := c.frameworks[id]
		gone := f == nil || f.stream == ""
		c.mu.Unlock()
		if gone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("framework %s is still connected", id)
		}
	}
}

// startCore serves a core and returns a client of it.
func startCore(t testing.TB) (*core, schedulerv1.SchedulerClient) {
	t.Helper()
	c := &core{frameworks: map[string]*framework{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	schedulerv1.RegisterSchedulerServer(server, c)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient(strings.TrimPrefix(listener.Addr().String(), "tcp://"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-served
	})
	return c, schedulerv1.NewSchedulerClient(conn)
}
