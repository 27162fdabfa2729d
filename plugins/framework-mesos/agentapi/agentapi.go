// Package agentapi serves an agent's operator API, POST /api/v1, and the endpoints
// that Mesos's agents had before it: /state, /containers, /monitor/statistics.
package agentapi

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/files"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// Options of a Handler.
type Options struct {
	Agent operatorv1.AgentOperatorClient
	// Own is the same agent, for what the adapter has to know itself.
	Own   operatorv1.AgentOperatorClient
	Files *files.Files
	// Port and PID are how clients know the agent: "slave(1)@10.0.0.2:5051".
	Port  int
	PID   string
	About transport.About
	// Metrics are what /metrics/snapshot tells, sorted by name. nil: nothing.
	Metrics   func(context.Context) []*mezzov1.Metric
	Verbosity *operator.Verbosity
	// Heartbeat is the time between two heartbeats of a stream. 0: 30 s, as Mesos
	// has it.
	Heartbeat time.Duration
}

// Handler answers the calls and the endpoints. Safe for concurrent use.
type Handler struct {
	options Options
	parser  *validate.Parser
	json    *wirejson.Encoder // of the records of streams
	// sessions are the commands that clients have started in containers.
	sessions *sessions

	usageMu sync.Mutex // held while usage is asked for
	usage   []*operatorv1.ContainerUsage
	asked   time.Time
}

// New makes a handler. Close it in the end.
func New(o Options) *Handler {
	if o.Metrics == nil {
		o.Metrics = func(context.Context) []*mezzov1.Metric { return nil }
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 30 * time.Second
	}
	return &Handler{
		options: o, parser: validate.NewParser(), sessions: newSessions(o.Agent),
		json: wirejson.Options{Defaults: true, Infinity: true, ASCII: true, MaxField: 9999}.NewEncoder(),
	}
}

// Close ends the commands that run for clients. It is called when no request is
// under way any more.
func (h *Handler) Close() { h.sessions.close() }

// Register has the handler serve its endpoints.
func (h *Handler) Register(s *transport.Server) {
	s.Handle("", "/api/v1", transport.Endpoint{Realm: transport.ReadWrite, Gate: h.recovered, Methods: []string{http.MethodPost}, Serve: h.serve})
	for _, path := range []string{"/state", "/state.json"} {
		s.Handle("", path, transport.Endpoint{Realm: transport.ReadOnly, Serve: failing(h.state)})
	}
	s.Handle("", "/containers", transport.Endpoint{Realm: transport.ReadOnly, Serve: failing(h.containers)})
	for _, path := range []string{"/monitor/statistics", "/monitor/statistics.json"} {
		s.Handle("", path, transport.Endpoint{Realm: transport.ReadOnly, Methods: []string{http.MethodGet}, Serve: failing(h.statistics)})
	}
}

func failing(serve func(http.ResponseWriter, *http.Request) *transport.Error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if failure := serve(w, r); failure != nil {
			failure.Write(w)
		}
	}
}

// recovering is the answer while the agent has not asked all its isolators yet.
func recovering() *transport.Error {
	return transport.Failed(http.StatusServiceUnavailable, "Agent has not finished recovery")
}

// recovered lets a request pass once the agent has recovered.
func (h *Handler) recovered(r *http.Request) *transport.Error {
	state, err := h.options.Own.GetState(r.Context(), &operatorv1.GetAgentStateRequest{})
	if err != nil || state.GetState() == "recovering" {
		return recovering()
	}
	return nil
}

// detail asks the agent for all that it shows to a client.
func (h *Handler) detail(ctx context.Context) (*operatorv1.AgentStateResponse, *transport.Error) {
	return h.detailFrom(ctx, h.options.Agent)
}

func (h *Handler) detailFrom(ctx context.Context, agent operatorv1.AgentOperatorClient) (*operatorv1.AgentStateResponse, *transport.Error) {
	state, err := agent.GetState(ctx, &operatorv1.GetAgentStateRequest{Detail: true})
	if err != nil {
		return nil, files.Failed(err)
	}
	if state.GetState() == "recovering" {
		return nil, recovering()
	}
	if info := state.GetDetail().GetInfo(); info != nil {
		info.Port = proto.Int32(int32(h.options.Port))
	}
	return state, nil
}

// request is a call that was found valid.
type request struct {
	w     http.ResponseWriter
	r     *http.Request
	call  *agentv1.Call
	media string // of the answer
	inner string // of its records, when that is RecordIO
}

// unsupported is the answer to a body of the wrong media type.
func unsupported(text string) *transport.Error {
	return transport.Failed(http.StatusUnsupportedMediaType, text)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	failing(func(w http.ResponseWriter, r *http.Request) *transport.Error {
		media, failure := transport.ContentType(r, transport.RecordIO)
		if failure != nil {
			return failure
		}
		if media == transport.RecordIO {
			return h.attachInput(w, r)
		}
		if r.Header.Get("Message-Content-Type") != "" {
			return unsupported("Expecting 'Message-Content-Type' to be not set for non-streaming requests")
		}
		call, failure := transport.ReadCall(w, r, h.parser.Agent, validate.Agent)
		if failure != nil {
			return failure
		}
		q := &request{w: w, r: r, call: call}
		if q.call.GetType() == agentv1.Call_ATTACH_CONTAINER_INPUT {
			return unsupported("Expecting 'Content-Type' to be 'application/recordio' for ATTACH_CONTAINER_INPUT")
		}
		if failure := q.negotiate(); failure != nil {
			return failure
		}
		return h.answer(q)
	})(w, r)
}

// streaming are the calls whose answer is a stream.
func streaming(kind agentv1.Call_Type) bool {
	return kind == agentv1.Call_LAUNCH_NESTED_CONTAINER_SESSION || kind == agentv1.Call_ATTACH_CONTAINER_OUTPUT
}

// negotiate finds the media type of the answer (A.4).
func (q *request) negotiate() *transport.Error {
	media, ok := transport.Accept(q.r, "Accept", transport.JSON, transport.Protobuf, transport.RecordIO)
	refuse := func(text string) *transport.Error { return transport.Failed(http.StatusNotAcceptable, text) }
	_, inner := q.r.Header["Message-Accept"]
	switch {
	case !ok:
		return refuse("Expecting 'Accept' to allow application/json or application/x-protobuf or application/recordio")
	case media == transport.RecordIO && !streaming(q.call.GetType()):
		return refuse("Streaming response is not supported for '" + q.call.GetType().String() + "' call")
	case media == transport.RecordIO:
		if q.inner, ok = transport.Accept(q.r, "Message-Accept", transport.JSON, transport.Protobuf); !ok {
			return refuse("Expecting 'Message-Accept' to allow application/json or application/x-protobuf")
		}
	case inner:
		return refuse("Expecting 'Message-Accept' to be not set for non-streaming responses")
	}
	q.media = media
	return nil
}

func (q *request) respond(kind agentv1.Response_Type, response *agentv1.Response) *transport.Error {
	response.Type = kind.Enum()
	operator.Write(q.w, q.media, response)
	return nil
}

// answer answers a call.
func (h *Handler) answer(q *request) *transport.Error {
	switch kind := q.call.GetType(); kind {
	case agentv1.Call_UNKNOWN:
		return transport.Failed(http.StatusNotImplemented, "")
	case agentv1.Call_GET_HEALTH, agentv1.Call_GET_FLAGS, agentv1.Call_GET_VERSION, agentv1.Call_GET_METRICS, agentv1.Call_GET_LOGGING_LEVEL,
		agentv1.Call_SET_LOGGING_LEVEL, agentv1.Call_LIST_FILES, agentv1.Call_READ_FILE:
		return h.own(q)
	case agentv1.Call_GET_STATE, agentv1.Call_GET_FRAMEWORKS, agentv1.Call_GET_EXECUTORS, agentv1.Call_GET_TASKS, agentv1.Call_GET_AGENT,
		agentv1.Call_GET_OPERATIONS, agentv1.Call_GET_RESOURCE_PROVIDERS, agentv1.Call_GET_CONTAINERS:
		return h.question(q)
	case agentv1.Call_ADD_RESOURCE_PROVIDER_CONFIG, agentv1.Call_UPDATE_RESOURCE_PROVIDER_CONFIG, agentv1.Call_REMOVE_RESOURCE_PROVIDER_CONFIG,
		agentv1.Call_MARK_RESOURCE_PROVIDER_GONE:
		return transport.Failed(http.StatusNotImplemented, "The call "+kind.String()+" is not implemented: Mezzo has no resource providers")
	case agentv1.Call_PRUNE_IMAGES:
		return h.prune(q)
	default:
		return h.container(q)
	}
}

// prune has the agent forget the images that no container uses. An agent that
// keeps none has nothing to forget.
func (h *Handler) prune(q *request) *transport.Error {
	r := &operatorv1.PruneImagesRequest{}
	for _, image := range q.call.GetPruneImages().GetExcludedImages() {
		if name := image.GetDocker().GetName(); name != "" {
			r.Excluded = append(r.Excluded, name)
		}
	}
	if _, err := h.options.Agent.PruneImages(transport.CallContext(q.r), r); err != nil && status.Code(err) != codes.Unimplemented {
		return refusal(err)
	}
	transport.Empty(q.w, http.StatusOK)
	return nil
}

// own answers what is asked of the process itself.
func (h *Handler) own(q *request) *transport.Error {
	ctx := transport.CallContext(q.r)
	switch q.call.GetType() {
	case agentv1.Call_GET_FLAGS:
		if failure := transport.MayView(q.r); failure != nil {
			return failure
		}
		return q.respond(agentv1.Response_GET_FLAGS, &agentv1.Response{GetFlags: &agentv1.Response_GetFlags{Flags: operator.Flags(h.options.About)}})
	case agentv1.Call_GET_VERSION:
		return q.respond(agentv1.Response_GET_VERSION, &agentv1.Response{GetVersion: &agentv1.Response_GetVersion{VersionInfo: operator.VersionInfo(h.options.About)}})
	case agentv1.Call_GET_METRICS:
		if failure := transport.MayView(q.r); failure != nil {
			return failure
		}
		ctx, cancel, failure := operator.MetricsContext(ctx, q.call.GetGetMetrics().GetTimeout())
		if failure != nil {
			return failure
		}
		defer cancel()
		return q.respond(agentv1.Response_GET_METRICS, &agentv1.Response{GetMetrics: &agentv1.Response_GetMetrics{Metrics: h.options.Metrics(ctx)}})
	case agentv1.Call_GET_LOGGING_LEVEL:
		level, failure := h.options.Verbosity.Level(ctx)
		if failure != nil {
			return failure
		}
		return q.respond(agentv1.Response_GET_LOGGING_LEVEL, &agentv1.Response{GetLoggingLevel: &agentv1.Response_GetLoggingLevel{Level: proto.Uint32(level)}})
	case agentv1.Call_SET_LOGGING_LEVEL:
		x := q.call.GetSetLoggingLevel()
		if failure := h.options.Verbosity.Set(ctx, x.GetLevel(), x.GetDuration().GetNanoseconds()); failure != nil {
			return failure
		}
		transport.Empty(q.w, http.StatusOK)
		return nil
	case agentv1.Call_LIST_FILES:
		list, err := h.options.Files.List(ctx, q.call.GetListFiles().GetPath())
		if err != nil {
			return fileFailed(q.w, err)
		}
		return q.respond(agentv1.Response_LIST_FILES, &agentv1.Response{ListFiles: &agentv1.Response_ListFiles{FileInfos: list}})
	case agentv1.Call_READ_FILE:
		return h.readFile(ctx, q)
	}
	return q.respond(agentv1.Response_GET_HEALTH, &agentv1.Response{GetHealth: &agentv1.Response_GetHealth{Healthy: proto.Bool(true)}})
}

// readMost bounds one READ_FILE: a client that wants all of a large file asks for
// it in parts, or downloads it.
const readMost = 16 << 20

func (h *Handler) readFile(ctx context.Context, q *request) *transport.Error {
	x := q.call.GetReadFile()
	left := uint64(readMost)
	if x.Length != nil {
		left = min(left, x.GetLength())
	}
	out := &agentv1.Response_ReadFile{Data: []byte{}}
	for first := true; first || left > 0; first = false {
		answer, err := h.options.Files.Read(ctx, x.GetPath(), x.GetOffset()+uint64(len(out.Data)), left)
		if err != nil {
			return fileFailed(q.w, err)
		}
		out.Size = proto.Uint64(answer.GetSize())
		if len(answer.GetData()) == 0 {
			break
		}
		out.Data = append(out.Data, answer.GetData()...)
		left -= uint64(len(answer.GetData()))
	}
	return q.respond(agentv1.Response_READ_FILE, &agentv1.Response{ReadFile: out})
}

// fileFailed is the answer when a file is not to be had; that to one that does
// not exist is empty.
func fileFailed(w http.ResponseWriter, err error) *transport.Error {
	failure := files.Failed(err)
	if failure.Code == http.StatusNotFound {
		transport.Empty(w, http.StatusNotFound)
		return nil
	}
	failure.Text = strings.TrimSuffix(failure.Text, "\n")
	return failure
}
