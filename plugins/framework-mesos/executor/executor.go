// Package executor serves the Mesos v1 executor API, POST /api/v1/executor at an
// agent, and speaks to Mezzo's agent over the native Executor service. It holds
// no state of an executor: the agent knows who is subscribed, and this package
// only turns one form into the other. So it can be killed at any time; executors
// then subscribe again, with what was not acknowledged, as they do when an agent
// is restarted.
//
// Terms. A *subscription* is the answer to a SUBSCRIBE, which stays open. Any
// other call is answered at once: 202 means that the agent has taken it.
package executor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/line"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// firstOwn is the number from which on fields are Mezzo's own.
const firstOwn = 10000

// Options of the API.
type Options struct {
	// Client is the agent's native service.
	Client executorv1.ExecutorClient
	// Patience is how long the agent may take for an answer. Default 10 s.
	Patience time.Duration
	Logger   *slog.Logger // nil: nothing is logged
}

// API serves the executor API. Safe for concurrent use.
type API struct {
	options Options
	parser  *validate.Parser
	json    *wirejson.Encoder
	convert *convert.Converter
	lines   *line.Lines[executorv1.Call, executorv1.CallResult]
}

// New returns the API. Register it, and Close it when nobody calls any more.
func New(o Options) *API {
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &API{
		options: o, parser: validate.NewParser(), convert: convert.New(),
		json: wirejson.Options{Defaults: true, Infinity: true, ASCII: true, MaxField: firstOwn - 1}.NewEncoder(),
		lines: line.New(line.Service[executorv1.Call, executorv1.CallResult]{
			Open: func(ctx context.Context) (grpc.BidiStreamingClient[executorv1.Call, executorv1.CallResult], error) {
				return o.Client.Calls(ctx)
			},
			Number:   func(call *executorv1.Call, number uint64) { call.Sequence = proto.Uint64(number) },
			NumberOf: (*executorv1.CallResult).GetSequence,
		}),
	}
}

// Register has the server serve the API.
func (a *API) Register(s *transport.Server) {
	s.Handle("", "/api/v1/executor", transport.Endpoint{
		Realm: transport.Executor, Methods: []string{http.MethodPost}, Serve: a.serve,
	})
}

// Close ends the stream of calls. Calls that wait are answered with 503.
func (a *API) Close() { a.lines.Close() }

// serve answers one request.
func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	call, failure := transport.ReadCall(w, r, a.parser.Executor, validate.Executor)
	if failure != nil {
		failure.Write(w)
		return
	}
	call.Token = nil // an executor says it in a header, as Mesos has it
	if token := transport.TokenOf(r); token != "" {
		call.Token = &token
	}
	switch {
	case call.GetType() == executorv1.Call_UNKNOWN:
		transport.Fail(w, http.StatusNotImplemented, "")
	case call.GetType() == executorv1.Call_HEARTBEAT:
		transport.Empty(w, http.StatusAccepted)
	case call.GetType() == executorv1.Call_SUBSCRIBE:
		a.subscribe(w, r, call)
	default:
		a.call(w, r, call)
	}
}

// call answers a call beside the stream.
func (a *API) call(w http.ResponseWriter, r *http.Request, call *executorv1.Call) {
	ctx, cancel := context.WithTimeout(r.Context(), a.options.Patience)
	defer cancel()
	result, err := a.lines.Call(ctx, transport.PrincipalName(r), call)
	switch {
	case err == nil:
	case r.Context().Err() != nil:
		return // nobody is there to be answered
	default:
		unavailable(err).Write(w)
		return
	}
	switch result.GetCode() {
	case executorv1.CallResult_ACCEPTED:
		transport.Empty(w, http.StatusAccepted)
	case executorv1.CallResult_UNKNOWN_EXECUTOR, executorv1.CallResult_INVALID:
		transport.Fail(w, http.StatusBadRequest, result.GetMessage())
	case executorv1.CallResult_UNAUTHENTICATED:
		transport.BadToken(r, transport.Executor, result.GetMessage()).Write(w)
	case executorv1.CallResult_UNAUTHORIZED:
		transport.Fail(w, http.StatusForbidden, result.GetMessage())
	case executorv1.CallResult_NOT_SUBSCRIBED:
		transport.Fail(w, http.StatusForbidden, "Executor is not subscribed")
	default:
		transport.Fail(w, http.StatusInternalServerError, "The agent gave an answer that is not known here: "+result.GetMessage())
	}
}

// unavailable is the answer when the agent gives none.
func unavailable(err error) *transport.Error {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "The agent did not answer in time"
	}
	return transport.Failed(http.StatusServiceUnavailable, text)
}

// subscribe answers SUBSCRIBE.
func (a *API) subscribe(w http.ResponseWriter, r *http.Request, call *executorv1.Call) {
	media, ok := transport.Accept(r, "Accept", transport.JSON, transport.Protobuf)
	if !ok {
		transport.NotAcceptable().Write(w)
		return
	}
	a.convert.Upgrade(call)
	ctx, cancel := context.WithCancel(transport.CallContext(r))
	defer cancel()
	stream, first, err := line.First(ctx, cancel, a.options.Patience, func(ctx context.Context) (grpc.ServerStreamingClient[executorv1.Event], error) {
		return a.options.Client.Subscribe(ctx, call)
	})
	switch {
	case r.Context().Err() != nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		unavailable(err).Write(w)
		return
	case err != nil:
		refused(r, err).Write(w)
		return
	}
	records, err := transport.OpenRecords(w, media)
	if err != nil {
		return
	}
	s := &subscription{api: a, media: media, form: convert.FormOf(first.GetSubscribed().GetFrameworkInfo())}
	if err := s.pass(first, stream, records); err != nil {
		a.options.Logger.Debug("an executor's stream has ended",
			"framework_id", call.GetFrameworkId().GetValue(), "executor_id", call.GetExecutorId().GetValue(), "reason", err)
	}
}

// refused is the answer to a subscription that the agent does not take.
func refused(r *http.Request, err error) *transport.Error {
	switch s, _ := status.FromError(err); s.Code() {
	case codes.NotFound, codes.InvalidArgument:
		return transport.Failed(http.StatusBadRequest, s.Message())
	case codes.Unauthenticated:
		return transport.BadToken(r, transport.Executor, s.Message())
	case codes.PermissionDenied:
		return transport.Failed(http.StatusForbidden, s.Message())
	}
	return unavailable(line.Plain(err))
}

// subscription is one open answer to a SUBSCRIBE.
type subscription struct {
	api    *API
	media  string
	form   convert.Form // that the framework reads
	buffer []byte
}

// pass writes events until there are no more, or nobody reads them.
func (s *subscription) pass(first *executorv1.Event, stream grpc.ServerStreamingClient[executorv1.Event], out *transport.RecordWriter) error {
	for event := first; ; {
		record, err := s.encode(event)
		if err != nil {
			s.api.options.Logger.Error("an event cannot be written; its executor is disconnected", "type", event.GetType().String(), "error", err)
			return err
		}
		if err := out.Write(record); err != nil {
			return err
		}
		if event, err = stream.Recv(); err != nil {
			return line.Plain(err)
		}
	}
}

// encode is an event as the executor reads it. The bytes are good until the next
// call.
func (s *subscription) encode(event *executorv1.Event) ([]byte, error) {
	s.api.convert.Downgrade(event, s.form)
	const keep = 64 << 10
	if cap(s.buffer) > keep {
		s.buffer = nil
	}
	var err error
	if s.media == transport.Protobuf {
		s.buffer, err = proto.MarshalOptions{}.MarshalAppend(s.buffer[:0], event)
	} else {
		s.buffer, err = s.api.json.Append(s.buffer[:0], event)
	}
	return s.buffer, err
}
