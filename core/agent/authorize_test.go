package agent_test

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// refusing denies everything, and remembers what it was asked for last.
type refusing struct {
	mu     sync.Mutex
	action rpc.Action
	object rpc.Object
}

func (r *refusing) Authorize(_ context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.action, r.object = action, object
	return rpc.Denied(who, action, object)
}

func (r *refusing) last() (rpc.Action, rpc.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.action, r.object
}

// Whoever is asked about access to a task knows whose it is, while it runs, once
// it has ended, and after a restart.
func TestAuthorizerKnowsWhoseASandboxIs(t *testing.T) {
	k, m, asked := newKernel(), newMaster(t), &refusing{}
	o := options(t, m, newIsolator(t, k).up())
	o.Authorizer = asked
	p := start(t, o)
	m.ready()
	x := task("t1")
	for _, r := range x.Resources {
		r.AllocationInfo = &mezzov1.Resource_AllocationInfo{Role: proto.String("web")}
	}
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: &linkv1.Run{
		Framework: &mezzov1.FrameworkInfo{
			User: proto.String("other"), Name: proto.String("f"), Id: &mezzov1.FrameworkID{Value: proto.String("F1")}, Principal: proto.String("ann"),
		},
		Tasks: []*mezzov1.TaskInfo{x},
	}}})
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	want := rpc.Object{ID: "t1", FrameworkID: "F1", Role: "web", User: me(), Owner: "ann"}
	look := func(p *process, when string) {
		t.Helper()
		client := operatorClient(t, p)
		for name, ask := range map[string]func() error{
			"logs": func() error {
				stream, err := client.Logs(within(t), &operatorv1.LogsRequest{TaskId: "t1"})
				if err == nil {
					_, err = stream.Recv()
				}
				return err
			},
			"files": func() error {
				_, err := client.ListFiles(within(t), &operatorv1.ListFilesRequest{Path: "/frameworks/F1/executors/t1/runs/" + id})
				return err
			},
			"sandbox": func() error {
				path := filepath.Join(p.options.WorkDir, "agents/A1/frameworks/F1/executors/t1/runs", id)
				_, err := client.ReadFile(within(t), &operatorv1.ReadFileRequest{Path: path + "/stdout", Length: 1})
				return err
			},
		} {
			if err := ask(); status.Code(err) != codes.PermissionDenied {
				t.Errorf("%s, %s: %v", when, name, err)
			}
			if action, object := asked.last(); action != rpc.ReadSandbox || object != want {
				t.Errorf("%s, %s: asked for %s (-want +got):\n%s", when, name, action, cmp.Diff(want, object))
			}
		}
	}
	look(p, "running")
	stream, err := operatorClient(t, p).Exec(within(t))
	if err == nil {
		err = stream.Send(&operatorv1.ExecRequest{Start: &operatorv1.ExecStart{TaskId: "t1", Command: &mezzov1.CommandInfo{Value: proto.String("id")}}})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if action, object := asked.last(); status.Code(err) != codes.PermissionDenied || action != rpc.RunCommand || object != want {
		t.Errorf("exec: %v, asked for %s (-want +got):\n%s", err, action, cmp.Diff(want, object))
	}
	k.exit(id, &isolatorv1.ExitStatus{Known: true})
	finished := m.update(mezzov1.TaskState_TASK_FINISHED)
	look(p, "ended")
	p = start(t, p.crashed(t))
	m.registered()
	m.ready()
	look(p, "after a restart")
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Acknowledge{Acknowledge: &linkv1.Acknowledge{
		Task: &linkv1.TaskRef{FrameworkId: "F1", TaskId: "t1"}, Uuid: finished.GetUuid(),
	}}})
	for { // the acknowledgement takes a moment
		v, err := p.State(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Completed) == 1 && len(v.Containers) == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	look(p, "acknowledged")
	look(start(t, p.crashed(t)), "after another")
}

func operatorClient(t *testing.T, p *process) operatorv1.AgentOperatorClient {
	t.Helper()
	return operatorv1.NewAgentOperatorClient(operatorConn(t, p))
}

func operatorConn(t *testing.T, p *process) *grpc.ClientConn {
	t.Helper()
	address, stop := serve(t, func(s *grpc.Server) { operatorv1.RegisterAgentOperatorServer(s, p) })
	t.Cleanup(stop)
	conn, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Whoever is allowed nothing gets nothing of an agent, by whatever call there is:
// one that is added and asks nobody is found here.
func TestNoAgentCallIsOpen(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	o := options(t, m, newIsolator(t, k).up())
	o.Authorizer = &refusing{}
	conn := operatorConn(t, start(t, o))
	m.ready()
	// What is refused before anybody is asked needs a request that makes sense.
	exec := &operatorv1.ExecStart{ContainerId: "c"}
	requests := map[string]proto.Message{
		"ReadFile":    &operatorv1.ReadFileRequest{Path: "/frameworks/F1/executors/e/runs/r/stdout"},
		"ListFiles":   &operatorv1.ListFilesRequest{Path: "/frameworks/F1/executors/e/runs/r"},
		"Signal":      &operatorv1.SignalRequest{ContainerId: "c", Signal: 9},
		"Attach":      &operatorv1.ExecRequest{Start: exec},
		"Exec":        &operatorv1.ExecRequest{Start: &operatorv1.ExecStart{ContainerId: "c", Command: &mezzov1.CommandInfo{Value: proto.String("id")}}},
		"RemoveImage": &operatorv1.RemoveImageRequest{Name: "i"},
	}
	got := rpctest.Open(t, conn, operatorv1.File_mezzo_operator_v1_agent_operator_proto.Services().ByName("AgentOperator"), requests)
	want := map[string]codes.Code{
		"Logs": codes.NotFound, // there is no task to ask about
		// These are the process's, which an agent alone is not.
		"Reload": codes.Unimplemented, "SetLogLevel": codes.Unimplemented, "GetLogLevel": codes.Unimplemented,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what is not denied (-want +got):\n%s", diff)
	}
}
