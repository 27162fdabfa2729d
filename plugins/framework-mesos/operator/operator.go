// Package operator serves the master's operator API, POST /api/v1: questions are
// answered from a mirror of the cluster, orders go to the core, and SUBSCRIBE is
// answered by a stream of events.
package operator

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
)

// Options of a Handler.
type Options struct {
	Mirror *mirror.Mirror
	// Operator carries out orders.
	Operator operatorv1.OperatorClient
	// MasterInfo is how this master is known to clients.
	MasterInfo func(*operatorv1.Status) *mezzov1.MasterInfo
	About      transport.About
	// Metrics are what /metrics/snapshot tells, sorted by name. nil: nothing.
	Metrics func(context.Context) []*mezzov1.Metric
	// Verbosity is how much is logged.
	Verbosity *Verbosity
	// Streams is how many clients may be subscribed; beyond it the oldest is cut
	// off. 0: 1000.
	Streams int
	// Queue bounds the changes that wait for one of them, in bytes; beyond it the
	// client is cut off. 0: 8 MiB.
	Queue  int
	Logger *slog.Logger // nil: nothing is logged
}

// Handler answers the calls. Safe for concurrent use.
type Handler struct {
	options Options
	parser  *validate.Parser
	convert *convert.Converter
	logger  *slog.Logger

	mu      sync.Mutex
	streams []*stream // oldest first
	// quota is held while quotas are set, for several roles are set together or
	// not at all.
	quota sync.Mutex
}

// New makes a handler.
func New(o Options) *Handler {
	if o.Streams <= 0 {
		o.Streams = 1000
	}
	if o.Queue <= 0 {
		o.Queue = 8 << 20
	}
	if o.Metrics == nil {
		o.Metrics = func(context.Context) []*mezzov1.Metric { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Handler{options: o, parser: validate.NewParser(), convert: convert.New(), logger: o.Logger}
}

// Register has the handler serve its endpoint.
func (h *Handler) Register(s *transport.Server) {
	s.Handle("", "/api/v1", transport.Endpoint{Realm: transport.ReadWrite, Leader: true, Methods: []string{http.MethodPost}, Serve: h.serve})
}

// Subscribers is how many clients are subscribed to events.
func (h *Handler) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// request is a call that was found valid.
type request struct {
	w     http.ResponseWriter
	r     *http.Request
	call  *masterv1.Call
	media string // of the answer
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	call, failure := transport.ReadCall(w, r, h.parser.Master, validate.Master)
	if failure != nil {
		failure.Write(w)
		return
	}
	accepted, ok := transport.Accept(r, "Accept", transport.JSON, transport.Protobuf)
	if !ok {
		transport.NotAcceptable().Write(w)
		return
	}
	q := &request{w: w, r: r, call: call, media: accepted}
	if failure := h.carryOut(q); failure != nil {
		failure.Write(w)
	}
}

// answer answers with a response.
func (q *request) answer(kind masterv1.Response_Type, response *masterv1.Response) *transport.Error {
	response.Type = kind.Enum()
	Write(q.w, q.media, response)
	return nil
}

// done answers that an order was carried out.
func (q *request) done() *transport.Error {
	transport.Empty(q.w, http.StatusOK)
	return nil
}

// carryOut answers a call.
func (h *Handler) carryOut(q *request) *transport.Error {
	kind := q.call.GetType()
	if agent, op := operationOf(q.call); op != nil {
		if failure := h.Apply(transport.CallContext(q.r), agent.GetValue(), op); failure != nil {
			return failure
		}
		transport.Empty(q.w, http.StatusAccepted)
		return nil
	}
	switch kind {
	case masterv1.Call_SUBSCRIBE:
		return h.subscribe(q)
	case masterv1.Call_SET_LOGGING_LEVEL, masterv1.Call_UPDATE_WEIGHTS, masterv1.Call_UPDATE_QUOTA,
		masterv1.Call_SET_QUOTA, masterv1.Call_REMOVE_QUOTA, masterv1.Call_TEARDOWN,
		masterv1.Call_DRAIN_AGENT, masterv1.Call_DEACTIVATE_AGENT, masterv1.Call_REACTIVATE_AGENT, masterv1.Call_MARK_AGENT_GONE,
		masterv1.Call_UPDATE_MAINTENANCE_SCHEDULE, masterv1.Call_START_MAINTENANCE, masterv1.Call_STOP_MAINTENANCE:
		return h.order(q)
	case masterv1.Call_GET_HEALTH, masterv1.Call_GET_FLAGS, masterv1.Call_GET_VERSION, masterv1.Call_GET_METRICS,
		masterv1.Call_GET_LOGGING_LEVEL, masterv1.Call_LIST_FILES, masterv1.Call_READ_FILE:
		return h.own(q)
	case masterv1.Call_UNKNOWN:
		return transport.Failed(http.StatusNotImplemented, "")
	}
	return h.question(q)
}

// own answers what is asked of the process itself.
func (h *Handler) own(q *request) *transport.Error {
	switch q.call.GetType() {
	case masterv1.Call_GET_FLAGS:
		if failure := transport.MayView(q.r); failure != nil {
			return failure
		}
		return q.answer(masterv1.Response_GET_FLAGS, &masterv1.Response{GetFlags: &masterv1.Response_GetFlags{Flags: Flags(h.options.About)}})
	case masterv1.Call_GET_VERSION:
		return q.answer(masterv1.Response_GET_VERSION, &masterv1.Response{GetVersion: &masterv1.Response_GetVersion{VersionInfo: VersionInfo(h.options.About)}})
	case masterv1.Call_GET_METRICS:
		if failure := transport.MayView(q.r); failure != nil {
			return failure
		}
		ctx, cancel, failure := MetricsContext(q.r.Context(), q.call.GetGetMetrics().GetTimeout())
		if failure != nil {
			return failure
		}
		defer cancel()
		return q.answer(masterv1.Response_GET_METRICS, &masterv1.Response{GetMetrics: &masterv1.Response_GetMetrics{Metrics: h.options.Metrics(ctx)}})
	case masterv1.Call_GET_LOGGING_LEVEL:
		level, failure := h.options.Verbosity.Level(transport.CallContext(q.r))
		if failure != nil {
			return failure
		}
		return q.answer(masterv1.Response_GET_LOGGING_LEVEL, &masterv1.Response{GetLoggingLevel: &masterv1.Response_GetLoggingLevel{Level: proto.Uint32(level)}})
	case masterv1.Call_LIST_FILES, masterv1.Call_READ_FILE: // a master shows no files
		transport.Empty(q.w, http.StatusNotFound)
		return nil
	}
	return q.answer(masterv1.Response_GET_HEALTH, &masterv1.Response{GetHealth: &masterv1.Response_GetHealth{Healthy: proto.Bool(true)}})
}

// ReadFailed is the answer when the mirror cannot be read.
func ReadFailed(err error) *transport.Error {
	if errors.Is(err, mirror.ErrNotReady) || status.Code(err) == codes.Unavailable {
		return transport.Failed(http.StatusServiceUnavailable, "Master has not finished recovery")
	}
	return orderFailed(err)
}

// orderFailed is the answer when the core has refused an order.
func orderFailed(err error) *transport.Error {
	code := http.StatusInternalServerError
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Aborted, codes.AlreadyExists, codes.OutOfRange:
		code = http.StatusBadRequest
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.Unauthenticated:
		code = http.StatusUnauthorized
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Canceled:
		code = http.StatusServiceUnavailable
	case codes.Unimplemented:
		code = http.StatusNotImplemented
	}
	return transport.Failed(code, status.Convert(err).Message())
}
