package agentapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// beat is how often streams have heartbeats here.
const beat = 20 * time.Millisecond

const patience = time.Minute

// agent is an agent behind gRPC, whose containers c1 (of a command task with a
// terminal) and n1 run what stands for commands: see run.
type agent struct {
	operatorv1.UnimplementedAgentOperatorServer
	*core
	exit    chan struct{} // closed: the containers' own processes exit with 3
	sent    atomic.Int64  // bytes of floods
	live    atomic.Int64  // commands
	signals chan int32    // for containers
}

func (a *agent) GetState(ctx context.Context, q *operatorv1.GetAgentStateRequest) (*operatorv1.AgentStateResponse, error) {
	out, err := a.core.GetState(ctx, q)
	if q.GetDetail() {
		out.Detail.Tasks[0].Task.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), TtyInfo: &mezzov1.TTYInfo{}}
	}
	return out, err
}

func (a *agent) Usage(ctx context.Context, q *operatorv1.ContainerUsageRequest) (*operatorv1.ContainerUsageResponse, error) {
	return a.core.Usage(ctx, q)
}

func (a *agent) ListFiles(ctx context.Context, q *operatorv1.ListFilesRequest) (*operatorv1.ListFilesResponse, error) {
	return a.core.ListFiles(ctx, q)
}

func (a *agent) ReadFile(ctx context.Context, q *operatorv1.ReadFileRequest) (*operatorv1.ReadFileResponse, error) {
	return a.core.ReadFile(ctx, q)
}

func (a *agent) LaunchContainer(ctx context.Context, q *operatorv1.LaunchContainerRequest) (*operatorv1.LaunchContainerResponse, error) {
	return a.core.LaunchContainer(ctx, q)
}

func (a *agent) WaitContainer(ctx context.Context, q *operatorv1.WaitContainerRequest) (*operatorv1.WaitContainerResponse, error) {
	return a.core.WaitContainer(ctx, q)
}

func (a *agent) RemoveContainer(ctx context.Context, q *operatorv1.RemoveContainerRequest) (*operatorv1.RemoveContainerResponse, error) {
	return a.core.RemoveContainer(ctx, q)
}

func (a *agent) GetMetrics(ctx context.Context, q *operatorv1.GetMetricsRequest) (*operatorv1.GetMetricsResponse, error) {
	return a.core.GetMetrics(ctx, q)
}

func (a *agent) PruneImages(ctx context.Context, q *operatorv1.PruneImagesRequest) (*operatorv1.PruneImagesResponse, error) {
	return a.core.PruneImages(ctx, q)
}

func (a *agent) Signal(_ context.Context, r *operatorv1.SignalRequest) (*operatorv1.SignalResponse, error) {
	a.signals <- r.GetSignal()
	return &operatorv1.SignalResponse{}, nil
}

type stream = grpc.BidiStreamingServer[operatorv1.ExecRequest, operatorv1.ExecResponse]

func (a *agent) Exec(s stream) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	switch {
	case start.GetContainerId() == "forbidden":
		return status.Error(codes.PermissionDenied, "not yours")
	case start.GetContainerId() != "c1" && start.GetContainerId() != "n1":
		return status.Errorf(codes.FailedPrecondition, "container %s does not run on this agent", start.GetContainerId())
	case start.GetCommand().GetValue() == "missing":
		return status.Error(codes.FailedPrecondition, "missing: no such file")
	}
	a.live.Add(1)
	defer a.live.Add(-1)
	return a.run(s, start, first.GetStdinClosed(), start.GetCommand().GetValue(), nil)
}

func (a *agent) Attach(s stream) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	return a.run(s, first.GetStart(), false, "cat", a.exit)
}

// run is a command: "cat" says what it reads, and how large its terminal is, and
// ends with its input; "flood" writes for ever; "deaf" reads nothing; "exit" writes
// something and exits with 7; "lost" loses its agent.
func (a *agent) run(s stream, start *operatorv1.ExecStart, closed bool, command string, exit <-chan struct{}) error {
	if err := s.Send(&operatorv1.ExecResponse{Started: true}); err != nil {
		return err
	}
	say := func(text string) error { return s.Send(&operatorv1.ExecResponse{Stdout: []byte(text)}) }
	switch command {
	case "exit":
		_ = say("out")
		_ = s.Send(&operatorv1.ExecResponse{Stderr: []byte("err")})
		return s.Send(&operatorv1.ExecResponse{End: &operatorv1.ExecEnd{Code: 7}})
	case "lost":
		return status.Error(codes.Unavailable, "the agent ends")
	case "deaf":
		<-s.Context().Done()
		return s.Context().Err()
	case "flood":
		for b := make([]byte, 32<<10); ; {
			if err := s.Send(&operatorv1.ExecResponse{Stdout: b}); err != nil {
				return err
			}
			a.sent.Add(int64(len(b)))
		}
	}
	if size := start.GetSize(); size.GetRows() != 0 {
		_ = say(fmt.Sprintf("%dx%d", size.GetRows(), size.GetColumns()))
	}
	inputs := make(chan *operatorv1.ExecRequest)
	go func() {
		defer close(inputs)
		for {
			in, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case inputs <- in:
			case <-s.Context().Done():
				return
			}
		}
	}()
	for !closed {
		select {
		case in, open := <-inputs:
			switch {
			case !open:
				return s.Context().Err()
			case in.GetSignal() != 0:
				return s.Send(&operatorv1.ExecResponse{End: &operatorv1.ExecEnd{Signal: in.GetSignal()}})
			case in.GetResize() != nil:
				_ = say(fmt.Sprintf("%dx%d", in.GetResize().GetRows(), in.GetResize().GetColumns()))
			case len(in.GetStdin()) > 0:
				_ = say(string(in.GetStdin()))
			}
			closed = in.GetStdinClosed()
		case <-exit:
			return s.Send(&operatorv1.ExecResponse{End: &operatorv1.ExecEnd{Code: 3}})
		}
	}
	return s.Send(&operatorv1.ExecResponse{End: &operatorv1.ExecEnd{}})
}

// sessionRig is a rig whose agent runs commands.
type sessionRig struct {
	*rig
	agent *agent
}

func startSessions(t *testing.T, limits transport.Limits) *sessionRig {
	t.Helper()
	a := &agent{core: &core{state: "registered"}, exit: make(chan struct{}), signals: make(chan int32, 10)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	operatorv1.RegisterAgentOperatorServer(server, a)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); served.Wait() })
	return &sessionRig{serve(t, operatorv1.NewAgentOperatorClient(conn), a.core, limits), a}
}

func (r *sessionRig) await(what string, condition func() bool) {
	r.t.Helper()
	for late := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// call makes a call in JSON. nested is the id of a container in c1.
func (r *sessionRig) call(kind, nested, more string, header ...string) (*http.Response, string) {
	r.t.Helper()
	return r.do("POST", "/api/v1", body(kind, nested, more), append([]string{"Content-Type", transport.JSON}, header...)...)
}

func body(kind, nested, more string) string {
	return fmt.Sprintf(`{"type":%q,%q:{"container_id":{"value":%q,"parent":{"value":"c1"}}%s}}`, kind, strings.ToLower(kind), nested, more)
}

func (r *sessionRig) want(code int, text string) func(*http.Response, string) {
	r.t.Helper()
	return func(response *http.Response, body string) {
		r.t.Helper()
		if response.StatusCode != code || !strings.HasPrefix(body, text) || text == "" && body != "" {
			r.t.Errorf("%s %q, want %d %q", response.Status, body, code, text)
		}
	}
}

// output is an open stream of output.
type output struct {
	r        *sessionRig
	response *http.Response
	records  *recordio.Reader
	text     string // all data so far
	beats    int
	cancel   context.CancelFunc
}

func (r *sessionRig) open(kind, nested, more string, header ...string) *output {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	q, err := http.NewRequestWithContext(ctx, "POST", "http://"+r.server.Address()+"/api/v1", strings.NewReader(body(kind, nested, more)))
	if err != nil {
		r.t.Fatal(err)
	}
	if kind == "ATTACH_CONTAINER_OUTPUT" && nested == "" {
		q.Body = io.NopCloser(strings.NewReader(`{"type":"ATTACH_CONTAINER_OUTPUT","attach_container_output":{"container_id":{"value":"c1"}}}`))
		q.ContentLength = -1
	}
	for i, h := 0, append([]string{"Content-Type", transport.JSON, "Accept", transport.RecordIO, "Message-Accept", transport.JSON}, header...); i < len(h); i += 2 {
		q.Header.Set(h[i], h[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cancel(); response.Body.Close() })
	if response.StatusCode != 200 {
		text, _ := io.ReadAll(response.Body)
		r.t.Fatalf("%s: %s: %s", kind, response.Status, text)
	}
	return &output{r: r, response: response, records: recordio.NewReader(response.Body, 1<<20), cancel: cancel}
}

// next reads one record.
func (o *output) next() error {
	o.r.t.Helper()
	record, err := o.records.Next()
	if err != nil {
		return err
	}
	var got struct {
		Type string
		Data struct {
			Type string
			Data []byte
		}
		Control struct {
			Type      string
			Heartbeat struct{ Interval struct{ Nanoseconds int64 } }
		}
	}
	if err := json.Unmarshal(record, &got); err != nil {
		o.r.t.Fatalf("%s: %v", record, err)
	}
	switch {
	case got.Type == "DATA" && got.Data.Type == "STDOUT":
		o.text += string(got.Data.Data)
	case got.Type == "DATA" && got.Data.Type == "STDERR":
		o.text += "2:" + string(got.Data.Data)
	case got.Type == "CONTROL" && got.Control.Type == "HEARTBEAT" && got.Control.Heartbeat.Interval.Nanoseconds == int64(beat):
		o.beats++
	default:
		o.r.t.Errorf("a record is %s", record)
	}
	return nil
}

func (o *output) until(text string) {
	o.r.t.Helper()
	for !strings.HasSuffix(o.text, text) {
		if err := o.next(); err != nil {
			o.r.t.Fatalf("%v after %q, and no %q", err, o.text, text)
		}
	}
}

// rest reads to the end.
func (o *output) rest() error {
	o.r.t.Helper()
	for {
		if err := o.next(); err != nil {
			return err
		}
	}
}

// typing is an open stream of input.
type typing struct {
	r      *sessionRig
	w      *io.PipeWriter
	answer chan func() (*http.Response, string)
}

func containerRecord(id string) string {
	return `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID","container_id":` + id + `}}`
}

func ioRecord(process string) string {
	return `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"PROCESS_IO","process_io":` + process + `}}`
}

func stdin(text string) string {
	b, _ := json.Marshal([]byte(text))
	return ioRecord(`{"type":"DATA","data":{"type":"STDIN","data":` + string(b) + `}}`)
}

func nestedID(id string) string { return `{"value":"` + id + `","parent":{"value":"c1"}}` }

func (r *sessionRig) typeInto(id string) *typing {
	r.t.Helper()
	pr, pw := io.Pipe()
	q, err := http.NewRequest("POST", "http://"+r.server.Address()+"/api/v1", pr)
	if err != nil {
		r.t.Fatal(err)
	}
	q.Header.Set("Content-Type", transport.RecordIO)
	q.Header.Set("Message-Content-Type", transport.JSON)
	q.Header.Set("Connection", "close")
	i := &typing{r: r, w: pw, answer: make(chan func() (*http.Response, string), 1)}
	var done sync.WaitGroup
	done.Go(func() {
		response, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			i.answer <- func() (*http.Response, string) { r.t.Fatal(err); return nil, "" }
			return
		}
		b, _ := io.ReadAll(response.Body)
		response.Body.Close()
		i.answer <- func() (*http.Response, string) { return response, string(b) }
	})
	r.t.Cleanup(func() { pw.Close(); done.Wait() })
	i.send(containerRecord(id))
	return i
}

func (i *typing) send(record string) {
	_, _ = i.w.Write(recordio.Append(nil, []byte(record))) // the server may have answered already
}

func (i *typing) end() (*http.Response, string) {
	i.r.t.Helper()
	i.w.Close()
	return i.result()
}

func (i *typing) result() (*http.Response, string) {
	i.r.t.Helper()
	select {
	case f := <-i.answer:
		return f()
	case <-time.After(patience):
		i.r.t.Fatal("the input is not answered")
		return nil, ""
	}
}
