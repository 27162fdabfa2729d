package agentapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/agentapi"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/files"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/metric"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// core is an agent with a running command task, one that has ended, and a
// sandbox with one file.
type core struct {
	operatorv1.AgentOperatorClient
	state string
	asked int             // how often statistics were asked for
	alone map[string]bool // standalone containers, by whether they have ended
}

const sandbox = "/w/agents/m-1-S0/frameworks/m-1-0000/executors/t-running/runs/c1"

func (c *core) GetState(_ context.Context, q *operatorv1.GetAgentStateRequest, _ ...grpc.CallOption) (*operatorv1.AgentStateResponse, error) {
	out := &operatorv1.AgentStateResponse{AgentId: "m-1-S0", Hostname: "host0", State: c.state, Master: "10.0.0.9:5061"}
	if !q.GetDetail() {
		return out, nil
	}
	events := mirrortest.Sample()
	a, f := events[1].GetAgentDetail(), events[4].GetFrameworkDetail()
	running, over := mirrortest.NewTask("t-running", 20, mezzov1.TaskState_TASK_RUNNING), mirrortest.NewTask("t-over", 22, mezzov1.TaskState_TASK_FINISHED)
	over.Task.Statuses[len(over.Task.Statuses)-1].ExitCode = proto.Int32(0)
	over.Task.FrameworkId = &mezzov1.FrameworkID{Value: proto.String("m-1-0007")}
	running.Task.Statuses[0].ContainerStatus = &mezzov1.ContainerStatus{ContainerId: &mezzov1.ContainerID{Value: proto.String("c1")}, ExecutorPid: proto.Uint32(7)}
	bare := func(framework, id string) *mezzov1.ExecutorInfo {
		return &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String(framework)}}
	}
	out.Detail = &operatorv1.AgentStateDetail{
		Info:    &mezzov1.AgentInfo{Hostname: proto.String("host0"), Id: &mezzov1.AgentID{Value: proto.String("m-1-S0")}, Resources: a.Total, Attributes: a.Attributes},
		Started: mirrortest.At(0), Frameworks: []*mezzov1.FrameworkInfo{f.Info},
		Executors: []*operatorv1.AgentExecutor{
			{FrameworkId: "m-1-0000", Info: bare("m-1-0000", "t-running"), Role: "ads", ContainerId: "c1", Directory: sandbox, Command: true},
			{FrameworkId: "m-1-0007", Info: bare("m-1-0007", "t-over"), Role: "ads", ContainerId: "c0", Directory: "/w/c0", Command: true, Completed: true},
		},
		Tasks: []*operatorv1.AgentTask{
			{Task: running.Task, Role: "ads", Place: "launched", Run: "c1"}, {Task: over.Task, Role: "ads", Place: "completed", Run: "c0"},
		},
		Ended: []*operatorv1.EndedTasks{{State: mezzov1.TaskState_TASK_FINISHED.Enum(), Count: 3}},
		Operations: []*mezzov1.Operation{{
			AgentId: &mezzov1.AgentID{Value: proto.String("m-1-S0")}, Uuid: &mezzov1.UUID{Value: []byte("0123456789abcdef")},
			Info:         &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_RESERVE.Enum()},
			LatestStatus: &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_PENDING.Enum()},
		}},
	}
	out.Containers = []*operatorv1.Container{{Id: "c1", FrameworkId: "m-1-0000", TaskId: "t-running", Pid: 7}, {Id: "n1", FrameworkId: "m-1-0000"}}
	for id, ended := range c.alone {
		if !ended {
			out.Containers = append(out.Containers, &operatorv1.Container{Id: id, Standalone: true, Pid: 9})
		}
	}
	return out, nil
}

func (c *core) Usage(context.Context, *operatorv1.ContainerUsageRequest, ...grpc.CallOption) (*operatorv1.ContainerUsageResponse, error) {
	c.asked++
	return &operatorv1.ContainerUsageResponse{Usages: []*operatorv1.ContainerUsage{
		{Container: "c1", Statistics: &mezzov1.ResourceStatistics{Timestamp: proto.Float64(1), MemRssBytes: proto.Uint64(1 << 20), CpusLimit: proto.Float64(1)}},
		{Container: "n1", Parent: "c1"},
	}}, nil
}

func (c *core) LaunchContainer(_ context.Context, q *operatorv1.LaunchContainerRequest, _ ...grpc.CallOption) (*operatorv1.LaunchContainerResponse, error) {
	ended, known := c.alone[q.GetContainerId()]
	switch {
	case strings.HasPrefix(q.GetContainerId(), "bad"):
		return nil, status.Error(codes.InvalidArgument, "container bad: no")
	case len(q.GetResources()) > 0 && q.GetResources()[0].Role != nil:
		return nil, status.Error(codes.Internal, "a resource in the old form")
	case known && ended:
		return nil, status.Error(codes.FailedPrecondition, "it has ended")
	case known:
		return &operatorv1.LaunchContainerResponse{Already: true}, nil
	}
	c.alone = map[string]bool{q.GetContainerId(): false}
	return &operatorv1.LaunchContainerResponse{}, nil
}

func (c *core) WaitContainer(_ context.Context, q *operatorv1.WaitContainerRequest, _ ...grpc.CallOption) (*operatorv1.WaitContainerResponse, error) {
	if _, known := c.alone[q.GetContainerId()]; !known {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	c.alone[q.GetContainerId()] = true
	return &operatorv1.WaitContainerResponse{
		End: &operatorv1.ExecEnd{Code: 3}, Reason: mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY.Enum(), Message: "too much",
	}, nil
}

func (c *core) RemoveContainer(_ context.Context, q *operatorv1.RemoveContainerRequest, _ ...grpc.CallOption) (*operatorv1.RemoveContainerResponse, error) {
	ended, known := c.alone[q.GetContainerId()]
	switch {
	case !known:
		return nil, status.Error(codes.NotFound, "no such container")
	case !ended:
		return nil, status.Error(codes.FailedPrecondition, "it has not ended")
	}
	delete(c.alone, q.GetContainerId())
	return &operatorv1.RemoveContainerResponse{}, nil
}

// PruneImages wants busybox to stay; an agent that is asked for nothing keeps none.
func (c *core) PruneImages(_ context.Context, q *operatorv1.PruneImagesRequest, _ ...grpc.CallOption) (*operatorv1.PruneImagesResponse, error) {
	switch {
	case len(q.GetExcluded()) == 0:
		return nil, status.Error(codes.Unimplemented, "none of this agent's isolators keeps images")
	case len(q.GetExcluded()) != 1 || q.GetExcluded()[0] != "busybox":
		return nil, status.Errorf(codes.InvalidArgument, "excluded are %v", q.GetExcluded())
	}
	return &operatorv1.PruneImagesResponse{}, nil
}

func (c *core) GetMetrics(context.Context, *operatorv1.GetMetricsRequest, ...grpc.CallOption) (*operatorv1.GetMetricsResponse, error) {
	out := &operatorv1.GetMetricsResponse{}
	for name, v := range map[string]float64{
		"mezzo_agent_registered": 1, "mezzo_agent_start_time_seconds": float64(time.Now().Add(-time.Hour).Unix()), "mezzo_agent_recovery_seconds": 0.25,
		"mezzo_agent_frameworks": 2, "mezzo_agent_tasks state=task_running": 1, "mezzo_agent_tasks_ended_total state=task_finished": 3,
		"mezzo_agent_executors state=starting": 4, "mezzo_agent_executors state=running": 5, "mezzo_agent_executors state=ending": 6,
		"mezzo_agent_executors_ended_total": 7, "mezzo_agent_tasks_revoked_total": 8, "mezzo_agent_launch_failures_total": 9,
		"mezzo_agent_cleanup_failures_total": 10, "mezzo_agent_status_updates_total valid=true": 11, "mezzo_agent_status_updates_total valid=false": 12,
		"mezzo_agent_framework_messages_total valid=true": 13, "mezzo_agent_framework_messages_total valid=false": 14,
		"mezzo_agent_sandbox_age_seconds": 15, "mezzo_agent_sandboxes_waiting": 16, "mezzo_agent_sandboxes_removed_total outcome=succeeded": 17,
		"mezzo_agent_sandboxes_removed_total outcome=failed": 18, "mezzo_agent_fetch_cache_bytes": 19, "mezzo_agent_fetch_cache_used_bytes": 20,
		"mezzo_agent_fetches_total outcome=succeeded": 21, "mezzo_agent_fetches_total outcome=failed": 22,
		"mezzo_agent_resources resource=cpus revocable=false": 10, "mezzo_agent_resources_used resource=cpus revocable=false": 1,
		"mezzo_agent_resources resource=mem revocable=true": 512, "mezzo_agent_of_a_newer_version": 1,
	} {
		words := strings.Fields(name)
		m := &operatorv1.Metric{Name: words[0], Value: v, Labels: map[string]string{}}
		for _, pair := range words[1:] {
			label, value, _ := strings.Cut(pair, "=")
			m.Labels[label] = value
		}
		out.Metrics = append(out.Metrics, m)
	}
	return out, nil
}

const content = "a line\nand é\n"

func (c *core) ListFiles(_ context.Context, q *operatorv1.ListFilesRequest, _ ...grpc.CallOption) (*operatorv1.ListFilesResponse, error) {
	switch q.GetPath() {
	case sandbox:
		return &operatorv1.ListFilesResponse{Files: []*mezzov1.FileInfo{{
			Path: proto.String(sandbox + "/stdout"), Nlink: proto.Int32(1), Size: proto.Uint64(uint64(len(content))), Mode: proto.Uint32(0o100644),
			Mtime: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(5e9)}, Uid: proto.String("root"), Gid: proto.String("root"),
		}}}, nil
	case sandbox + "/out":
		return nil, status.Error(codes.InvalidArgument, "'out' is inaccessible")
	}
	return nil, status.Error(codes.NotFound, "not there")
}

func (c *core) ReadFile(_ context.Context, q *operatorv1.ReadFileRequest, _ ...grpc.CallOption) (*operatorv1.ReadFileResponse, error) {
	switch q.GetPath() {
	case sandbox:
		return nil, status.Error(codes.InvalidArgument, "Cannot read a directory.")
	case sandbox + "/stdout", sandbox + "/a\"b.txt":
		from := min(q.GetOffset(), uint64(len(content)))
		return &operatorv1.ReadFileResponse{Size: uint64(len(content)), Data: []byte(content[from:min(from+q.GetLength(), uint64(len(content)))])}, nil
	}
	return nil, status.Error(codes.NotFound, "not there")
}

type rig struct {
	t      *testing.T
	core   *core
	server *transport.Server
}

func start(t *testing.T) *rig {
	t.Helper()
	c := &core{state: "registered"}
	return serve(t, c, c, transport.Limits{})
}

// serve serves what the agent behind a client says. c is what the agent is.
func serve(t *testing.T, agent operatorv1.AgentOperatorClient, c *core, limits transport.Limits) *rig {
	t.Helper()
	server, err := transport.Listen(transport.Options{Side: transport.Agent, Address: "127.0.0.1:0", Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	f := &files.Files{Agent: agent}
	numbers := &metric.Agent{Agent: agent}
	f.Register(server)
	metric.Register(server, numbers)
	api := agentapi.New(agentapi.Options{
		Agent: agent, Own: agent, Files: f, Port: 5051, PID: "slave(1)@10.0.0.1:5051", Verbosity: operator.NewVerbosity(&mirrortest.LogLevels{}, nil), Heartbeat: beat,
		About:   transport.About{Flags: func() map[string]string { return map[string]string{"port": "5051"} }},
		Metrics: func(ctx context.Context) []*mezzov1.Metric { return metric.List(ctx, numbers) },
	})
	api.Register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
		api.Close()
	})
	return &rig{t, c, server}
}

func (r *rig) do(method, path, body string, header ...string) (*http.Response, string) {
	r.t.Helper()
	q, err := http.NewRequest(method, "http://"+r.server.Address()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response, string(b)
}

// Each row is one of the tables A.3, A.4, B.5 or E.3.
func TestRows(t *testing.T) {
	r := start(t)
	for _, c := range []struct {
		row    string
		header []string
		body   string
		code   int
		text   string // what the body is, or begins with
	}{
		{"A.3 empty Content-Type", []string{"Content-Type", ""}, ``, 415, "Expecting 'Content-Type'"},
		{"A.3 Content-Type", []string{"Content-Type", "text/plain"}, ``, 415, "Expecting 'Content-Type'"},
		{"B.5 not JSON", nil, `{`, 400, "Failed to parse body into JSON: "},
		{"B.5 not protobuf", []string{"Content-Type", transport.Protobuf}, "\xff", 400, "Failed to parse body into a protobuf object"},
		{"B.5 no type", nil, `{}`, 400, "Failed to validate agent::Call: Expecting 'type' to be present"},
		{"A.4 recordio without inner type", []string{"Content-Type", transport.RecordIO}, ``, 400, "Expecting 'Message-Content-Type' to be set"},
		{"A.4 recordio with bad inner type", []string{"Content-Type", transport.RecordIO, "Message-Content-Type", "text/plain"}, ``, 415, "Expecting 'Message-Content-Type'"},
		{"A.4 inner type without recordio", []string{"Message-Content-Type", transport.JSON}, `{"type":"GET_HEALTH"}`, 415, "Expecting 'Message-Content-Type' to be not set"},
		{"A.4 input without recordio", nil, `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID","container_id":{"value":"c"}}}`, 415, "Expecting 'Content-Type' to be 'application/recordio'"},
		{"A.4 Accept", []string{"Accept", "text/html"}, `{"type":"GET_HEALTH"}`, 406, "Expecting 'Accept'"},
		{"A.4 Accept recordio", []string{"Accept", transport.RecordIO}, `{"type":"GET_HEALTH"}`, 406, "Streaming response is not supported"},
		{"A.4 Message-Accept", []string{"Message-Accept", transport.JSON}, `{"type":"GET_HEALTH"}`, 406, "Expecting 'Message-Accept' to be not set"},
		{"A.3 UNKNOWN", nil, `{"type":"UNKNOWN"}`, 501, "501 Not Implemented."},
		{"E.3 GET_HEALTH", nil, `{"type":"GET_HEALTH"}`, 200, `{"type":"GET_HEALTH","get_health":{"healthy":true}}`},
		{"E.3 GET_FLAGS", nil, `{"type":"GET_FLAGS"}`, 200, `{"type":"GET_FLAGS","get_flags":{"flags":[{"name":"port","value":"5051"}]}}`},
		{"E.3 GET_VERSION", nil, `{"type":"GET_VERSION"}`, 200, `{"type":"GET_VERSION","get_version":{"version_info":{"version":"1.11.0"`},
		{"E.3 GET_METRICS", nil, `{"type":"GET_METRICS","get_metrics":{}}`, 200, `{"type":"GET_METRICS","get_metrics":{"metrics":[{"name":"containerizer/`},
		{"E.3 SET_LOGGING_LEVEL", nil, `{"type":"SET_LOGGING_LEVEL","set_logging_level":{"level":1,"duration":{"nanoseconds":1}}}`, 200, ``},
		{"E.3 GET_LOGGING_LEVEL", nil, `{"type":"GET_LOGGING_LEVEL"}`, 200, `{"type":"GET_LOGGING_LEVEL","get_logging_level":{"level":1}}`},
		{"E.3 LIST_FILES", nil, `{"type":"LIST_FILES","list_files":{"path":"` + sandbox + `"}}`, 200, `{"type":"LIST_FILES","list_files":{"file_infos":[{"path":"` + sandbox + `/stdout"`},
		{"I.9 LIST_FILES missing", nil, `{"type":"LIST_FILES","list_files":{"path":"/x"}}`, 404, ``},
		{"E.3 READ_FILE", nil, `{"type":"READ_FILE","read_file":{"path":"` + sandbox + `/stdout","offset":2,"length":4}}`, 200, `{"type":"READ_FILE","read_file":{"size":14,"data":"bGluZQ=="}}`},
		{"E.3 READ_FILE to the end", nil, `{"type":"READ_FILE","read_file":{"path":"` + sandbox + `/stdout","offset":9}}`, 200, `{"type":"READ_FILE","read_file":{"size":14,"data":"ZCDDqQo="}}`},
		{"E.3 READ_FILE of a directory", nil, `{"type":"READ_FILE","read_file":{"path":"` + sandbox + `","offset":0}}`, 400, `Cannot read a directory.`},
		{"E.3 GET_AGENT", nil, `{"type":"GET_AGENT"}`, 200, `{"type":"GET_AGENT","get_agent":{"agent_info":{"hostname":"host0"`},
		{"E.3 GET_OPERATIONS", nil, `{"type":"GET_OPERATIONS"}`, 200, `{"type":"GET_OPERATIONS","get_operations":{"operations":[{"agent_id":{"value":"m-1-S0"},"info":{"type":"RESERVE"},"latest_status":{"state":"OPERATION_PENDING"},"uuid":{"value":"MDEyMzQ1Njc4OWFiY2RlZg=="}}]}}`},
		{"E.3 GET_RESOURCE_PROVIDERS", nil, `{"type":"GET_RESOURCE_PROVIDERS"}`, 200, `{"type":"GET_RESOURCE_PROVIDERS","get_resource_providers":{}}`},
		{"E.3 GET_EXECUTORS", nil, `{"type":"GET_EXECUTORS"}`, 200, `{"type":"GET_EXECUTORS","get_executors":{"executors":[{"executor_info":{"executor_id":{"value":"t-running"}`},
		{"E.3 GET_FRAMEWORKS", nil, `{"type":"GET_FRAMEWORKS"}`, 200, `{"type":"GET_FRAMEWORKS","get_frameworks":{"frameworks":[{"framework_info":{"user":"root","name":"marathon"`},
		{"E.3 GET_STATE", nil, `{"type":"GET_STATE"}`, 200, `{"type":"GET_STATE","get_state":{"get_tasks":{"launched_tasks":[`},
		{"E.3 PRUNE_IMAGES", nil, `{"type":"PRUNE_IMAGES","prune_images":{"excluded_images":[{"type":"DOCKER","docker":{"name":"busybox"}}]}}`, 200, ``},
		{"PRUNE_IMAGES where there are none", nil, `{"type":"PRUNE_IMAGES","prune_images":{}}`, 200, ``},
		{"out: MARK_RESOURCE_PROVIDER_GONE", nil, `{"type":"MARK_RESOURCE_PROVIDER_GONE","mark_resource_provider_gone":{"resource_provider_id":{"value":"x"}}}`, 501, `The call MARK_RESOURCE_PROVIDER_GONE is not implemented: Mezzo has no resource providers`},
		{"validation: parent", nil, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"container_id":{"value":"c"}}}`, 400, `Failed to validate agent::Call: Expecting 'wait_nested_container.container_id.parent' to be present`},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			response, body := r.do("POST", "/api/v1", c.body, append([]string{"Content-Type", transport.JSON}, c.header...)...)
			if response.StatusCode != c.code || !strings.HasPrefix(body, c.text) || c.text == "" && body != "" {
				t.Errorf("%s %q,\nwant %d %q", response.Status, body, c.code, c.text)
			}
			if response.ContentLength != int64(len(body)) {
				t.Errorf("checklist 3: Content-Length is %d of %d", response.ContentLength, len(body))
			}
		})
	}
	if response, _ := r.do("GET", "/slave(1)/api/v1", ""); response.StatusCode != 405 {
		t.Errorf("GET is answered with %s", response.Status)
	}
}

// The containers, in protobuf: nested ones are named by their parents.
func TestContainers(t *testing.T) {
	r := start(t)
	for nested, want := range map[string]int{`{"type":"GET_CONTAINERS"}`: 1, `{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}`: 2} {
		response, body := r.do("POST", "/api/v1", nested, "Content-Type", transport.JSON, "Accept", transport.Protobuf)
		var got agentv1.Response
		if err := proto.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v", response.Status, err)
		}
		list := got.GetGetContainers().GetContainers()
		if len(list) != want || list[0].GetContainerStatus().GetExecutorPid() != 7 || list[0].GetResourceStatistics().GetMemRssBytes() != 1<<20 {
			t.Errorf("%s: %v", nested, list)
		}
		if want == 2 && list[1].GetContainerId().GetParent().GetValue() != "c1" {
			t.Errorf("the nested one is %v", list[1])
		}
	}
	for path, want := range map[string]int{
		"/containers": 200, "/containers?container_id=c1": 200, "/containers?executor_id=x": 400, "/containers?container_id=c1&framework_id=f": 400,
	} {
		if response, body := r.do("GET", path, ""); response.StatusCode != want {
			t.Errorf("%s: %s %s", path, response.Status, body)
		}
	}
	if r.core.asked > 2 {
		t.Errorf("statistics were asked for %d times at once", r.core.asked)
	}
}

// E.3: a container without a parent belongs to no framework. The rows come one
// after the other.
func TestStandaloneContainer(t *testing.T) {
	r := start(t)
	const command = `"command":{"value":"date"}`
	for _, c := range []struct {
		row, body string
		code      int
		text      string // what the body begins with
	}{
		{"LAUNCH_CONTAINER without a parent", `{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"s1"},` + command + `,"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"role":"*"}]}}`, 200, ""},
		{"LAUNCH_CONTAINER of one that runs", `{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"s1"},` + command + `}}`, 202, ""},
		{"LAUNCH_CONTAINER that cannot be", `{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"bad"},` + command + `}}`, 400, "container bad: no"},
		{"GET_CONTAINERS", `{"type":"GET_CONTAINERS","get_containers":{"show_nested":true}}`, 200, `{"type":"GET_CONTAINERS","get_containers":{"containers":[{"framework_id":{"value":"m-1-0000"}`},
		{"REMOVE_CONTAINER of one that runs", `{"type":"REMOVE_CONTAINER","remove_container":{"container_id":{"value":"s1"}}}`, 500, "Container s1 has not terminated yet"},
		{"WAIT_CONTAINER", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s1"}}}`, 200, `{"type":"WAIT_CONTAINER","wait_container":{"exit_status":768,"state":"TASK_FAILED","reason":"REASON_CONTAINER_LIMITATION_MEMORY","limitation":{},"message":"too much"}}`},
		{"LAUNCH_CONTAINER of one that has ended", `{"type":"LAUNCH_CONTAINER","launch_container":{"container_id":{"value":"s1"},` + command + `}}`, 400, "it has ended"},
		{"KILL_CONTAINER of one that has ended", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"s1"}}}`, 404, "Container s1 cannot be found"},
		{"REMOVE_CONTAINER", `{"type":"REMOVE_CONTAINER","remove_container":{"container_id":{"value":"s1"}}}`, 200, ""},
		{"REMOVE_CONTAINER of one that there is not", `{"type":"REMOVE_CONTAINER","remove_container":{"container_id":{"value":"s1"}}}`, 200, ""},
		{"WAIT_CONTAINER of one that there is not", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"s1"}}}`, 404, "Container s1 cannot be found"},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			response, body := r.do("POST", "/api/v1", c.body, "Content-Type", transport.JSON)
			if response.StatusCode != c.code || !strings.HasPrefix(body, c.text) || c.text == "" && body != "" {
				t.Errorf("%s %q,\nwant %d %q", response.Status, body, c.code, c.text)
			}
			if c.row == "GET_CONTAINERS" {
				_, all := r.do("POST", "/api/v1", strings.Replace(c.body, "show_nested", "show_standalone", 1), "Content-Type", transport.JSON)
				if strings.Contains(body, `"s1"`) || strings.Contains(body, "n1") != true || !strings.Contains(all, `"s1"`) || strings.Contains(all, `"n1"`) {
					t.Errorf("nested ones: %s\nstandalone ones: %s", body, all)
				}
			}
		})
	}
}

// G.2: what the endpoints say, key by key, by all their names.
func TestGolden(t *testing.T) {
	r := start(t)
	for name, paths := range map[string][]string{
		"state":      {"/state", "/slave(1)/state", "/slave%281%29/state", "/state.json", "/slave(1)/state.json"},
		"containers": {"/containers"},
		"statistics": {"/monitor/statistics", "/slave(1)/monitor/statistics", "/monitor/statistics.json"},
		"browse":     {"/files/browse?path=" + url.QueryEscape(sandbox), "/files/browse.json?path=" + sandbox},
		"debug":      {"/files/debug"},
	} {
		for _, path := range paths {
			response, body := r.do("GET", path, "")
			if response.StatusCode != 200 {
				t.Fatalf("%s: %s %s", path, response.Status, body)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, []byte(body), "", " "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
	}
}

// G.5: files, row by row.
func TestFiles(t *testing.T) {
	r := start(t)
	for _, c := range []struct {
		row, path string
		code      int
		text      string
	}{
		{"read from the end", "/files/read?path=" + sandbox + "/stdout", 200, `{"data":"","offset":14}`},
		{"read from -1", "/files/read?path=" + sandbox + "/stdout&offset=-1", 200, `{"data":"","offset":14}`},
		{"read", "/files/read?path=" + sandbox + "/stdout&offset=7", 200, `{"data":"and \u00e9\n","offset":7}`},
		{"read some", "/files/read.json?path=" + sandbox + "/stdout&offset=0&length=1", 200, `{"data":"a","offset":0}`},
		{"read without limit", "/files/read?path=" + sandbox + "/stdout&offset=12&length=-1", 200, `{"data":"\ufffd\n","offset":12}`},
		{"read beyond the end", "/files/read?path=" + sandbox + "/stdout&offset=99", 200, `{"data":"","offset":99}`},
		{"negative offset", "/files/read?path=x&offset=-2", 400, "Negative offset provided: -2.\n"},
		{"bad length", "/files/read?path=x&length=y", 400, "Failed to parse length: 'y' is not a number.\n"},
		{"no path", "/files/read", 400, "Expecting 'path=value' in query.\n"},
		{"a directory", "/files/read?path=" + sandbox + "&offset=0", 400, "Cannot read a directory.\n"},
		{"missing", "/files/read?path=/x&offset=0", 404, ""},
		{"browse missing", "/files/browse?path=/x", 404, ""},
		{"browse out of it", "/files/browse?path=" + sandbox + "/out", 400, "'out' is inaccessible\n"},
		{"download", "/files/download?path=" + sandbox + "/stdout", 200, content},
		{"download missing", "/files/download?path=/x", 404, ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			if response, body := r.do("GET", c.path, ""); response.StatusCode != c.code || body != c.text {
				t.Errorf("%s %q, want %d %q", response.Status, body, c.code, c.text)
			}
		})
	}
	response, _ := r.do("GET", "/files/download?path="+url.QueryEscape(sandbox+"/a\"b.txt"), "")
	if got := response.Header.Get("Content-Disposition"); got != "attachment; filename=a_b.txt" || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("a download is %v", response.Header)
	}
}

func TestMode(t *testing.T) {
	for mode, want := range map[uint32]string{
		0o100644: "-rw-r--r--", 0o040755: "drwxr-xr-x", 0o120777: "lrwxrwxrwx", 0o104755: "-rwsr-xr-x", 0o041777: "drwxrwxrwt", 0o102644: "-rw-r-Sr--",
	} {
		if got := files.Mode(mode); got != want {
			t.Errorf("%o is %s, want %s", mode, got, want)
		}
	}
}

// While the agent recovers it says so, before it looks at the method.
func TestRecovering(t *testing.T) {
	r := start(t)
	r.core.state = "recovering"
	for _, c := range [][2]string{{"POST", "/api/v1"}, {"GET", "/api/v1"}, {"GET", "/state"}, {"GET", "/containers"}} {
		if response, body := r.do(c[0], c[1], `{"type":"GET_HEALTH"}`); response.StatusCode != 503 || body != "Agent has not finished recovery" {
			t.Errorf("%v: %s %q", c, response.Status, body)
		}
	}
}

// G.4: an exporter finds all that it asks for.
func TestMetrics(t *testing.T) {
	r := start(t)
	_, body := r.do("GET", "/metrics/snapshot", "")
	var got map[string]float64
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(`slave/cpus_total slave/cpus_used slave/cpus_percent slave/mem_total slave/mem_used slave/gpus_total slave/disk_total slave/disk_used
		slave/cpus_revocable_total slave/cpus_revocable_used slave/mem_revocable_total slave/disk_revocable_used slave/registered slave/uptime_secs
		slave/executors_registering slave/executors_running slave/executors_terminating slave/executors_terminated slave/executors_preempted slave/frameworks_active
		slave/tasks_failed slave/tasks_finished slave/tasks_killed slave/tasks_lost slave/tasks_running slave/tasks_staging slave/tasks_starting slave/tasks_error
		slave/valid_status_updates slave/invalid_status_updates slave/valid_framework_messages slave/invalid_framework_messages system/cpus_total`) {
		if _, has := got[name]; !has {
			t.Errorf("%s is missing", name)
		}
	}
	for name, want := range map[string]float64{
		"slave/registered": 1, "slave/recovery_time_secs": 0.25, "slave/frameworks_active": 2, "slave/tasks_running": 1, "slave/tasks_finished": 3,
		"slave/tasks_lost": 0, "slave/executors_registering": 4, "slave/executors_running": 5, "slave/executors_terminating": 6, "slave/executors_terminated": 7,
		"slave/executors_preempted": 8, "slave/container_launch_errors": 9, "containerizer/mesos/container_destroy_errors": 10,
		"slave/valid_status_updates": 11, "slave/invalid_status_updates": 12, "slave/valid_framework_messages": 13, "slave/invalid_framework_messages": 14,
		"slave/executor_directory_max_allowed_age_secs": 15, "gc/path_removals_pending": 16, "gc/path_removals_succeeded": 17, "gc/path_removals_failed": 18,
		"containerizer/fetcher/cache_size_total_bytes": 19, "containerizer/fetcher/cache_size_used_bytes": 20,
		"containerizer/fetcher/task_fetches_succeeded": 21, "containerizer/fetcher/task_fetches_failed": 22,
		"slave/cpus_total": 10, "slave/cpus_used": 1, "slave/cpus_percent": 0.1, "slave/mem_revocable_total": 512, "slave/gpus_total": 0,
	} {
		if v, has := got[name]; !has || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if up := got["slave/uptime_secs"]; up < 3600 || up > 3700 {
		t.Errorf("slave/uptime_secs is %v", up)
	}
}
