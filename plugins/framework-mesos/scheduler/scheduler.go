// Package scheduler serves the Mesos v1 scheduler API, POST /api/v1/scheduler,
// and speaks to Mezzo's master over the native Scheduler service. It holds no
// state of a framework: the master knows who is subscribed, and this package
// only turns one form into the other. So it can be killed at any time; schedulers
// then subscribe again with their framework id, as they do when a master fails.
//
// Terms. A *subscription* is the answer to a SUBSCRIBE, which stays open; its
// *stream id* names it, and each further call carries it. A *line* is a native
// stream of calls, which the calls of many schedulers share.
//
// Every call waits for the master's result and becomes an answer: 202 means that
// it was valid and will be carried out; what comes of it is told by events.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/line"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
	"github.com/mezzo-os/mezzo/sdk/metric"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// StreamHeader names a subscription.
const StreamHeader = "Mesos-Stream-Id"

// firstOwn is the number from which on fields are Mezzo's own.
const firstOwn = 10000

// Options of the API.
type Options struct {
	// Client is the master's native service.
	Client schedulerv1.SchedulerClient
	// Master completes what the core says of itself by where this adapter listens,
	// which is what clients take for the master. The message is the function's to
	// change. Nil: as the core says.
	Master func(*mezzov1.MasterInfo)
	// Endpoint is the name under which adapters of this kind publish where they
	// listen. Default "mesos".
	Endpoint string
	// Beat is after how much silence a stream gets a HEARTBEAT beside the core's
	// own: some clients take ten seconds of it for a lost connection. Default 7 s.
	Beat time.Duration
	// MaxStreams bounds the open subscriptions of one framework; the oldest, which
	// are over already and only have not been read to their end, are cut. Default 4.
	MaxStreams int
	// Patience is how long the master may take for an answer. Default 10 s.
	Patience time.Duration
	// Calls counts those but SUBSCRIBE, by type and what came of them. May be nil.
	Calls  *metric.Counter
	Logger *slog.Logger // nil: nothing is logged
}

// API serves the scheduler API. Safe for concurrent use.
type API struct {
	options Options
	parser  *validate.Parser
	json    *wirejson.Encoder
	convert *convert.Converter
	lines   *line.Lines[schedulerv1.Call, schedulerv1.CallResult]
	streams streams
	// heartbeats are HEARTBEAT by media type.
	heartbeats map[string][]byte
}

// New returns the API. Register it, and Close it when nobody calls any more.
func New(o Options) *API {
	if o.MaxStreams <= 0 {
		o.MaxStreams = 4
	}
	if o.Beat <= 0 {
		o.Beat = 7 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Endpoint == "" {
		o.Endpoint = "mesos"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	a := &API{
		options: o, parser: validate.NewParser(), convert: convert.New(),
		json: wirejson.Options{Defaults: true, Infinity: true, ASCII: true, MaxField: firstOwn - 1}.NewEncoder(),
	}
	a.lines = line.New(line.Service[schedulerv1.Call, schedulerv1.CallResult]{
		Open: func(ctx context.Context) (grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult], error) {
			return o.Client.Calls(ctx)
		},
		Number:   func(call *schedulerv1.Call, number uint64) { call.Sequence = proto.Uint64(number) },
		NumberOf: (*schedulerv1.CallResult).GetSequence,
	})
	heartbeat := &schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()}
	binary, err := proto.Marshal(heartbeat)
	text, err2 := a.json.Marshal(heartbeat)
	if err := errors.Join(err, err2); err != nil {
		panic("scheduler: a heartbeat does not encode: " + err.Error())
	}
	a.heartbeats = map[string][]byte{transport.Protobuf: binary, transport.JSON: text}
	a.streams.limit, a.streams.open = o.MaxStreams, map[string][]*subscription{}
	return a
}

// Register has the server serve the API.
func (a *API) Register(s *transport.Server) {
	s.Handle("", "/api/v1/scheduler", transport.Endpoint{
		Realm: transport.Scheduler, Leader: true, Methods: []string{http.MethodPost}, Serve: a.serve,
	})
}

// Close ends the streams of calls. Calls that wait are answered with 503.
func (a *API) Close() { a.lines.Close() }

// serve answers one request.
func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	call, failure := transport.ReadCall(w, r, a.parser.Scheduler, func(call *schedulerv1.Call) error {
		return validate.Scheduler(call, transport.PrincipalName(r))
	})
	if failure != nil {
		failure.Write(w)
		return
	}
	switch call.GetType() {
	case schedulerv1.Call_SUBSCRIBE:
		a.subscribe(w, r, call.GetSubscribe())
		return
	case schedulerv1.Call_RECONCILE_OPERATIONS:
		if _, ok := transport.Accept(r, "Accept", transport.JSON, transport.Protobuf); !ok {
			transport.NotAcceptable().Write(w)
			return
		}
	}
	a.call(w, r, call)
}
