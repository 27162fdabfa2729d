// Package trace sends OpenTelemetry spans to a collector, by OTLP, without ever
// waiting for it: what does not fit in the queue is dropped, and counted.
//
// A process that traces nothing has a nil *Tracer, and asks it for nothing. The
// state machines know of no trace: shells make spans of what goes in and what
// comes out.
//
// Life cycle: New, Start as often as there is something to tell, Close.
//
//	tracer, err := trace.New(trace.Options{Config: *config.Tracing, Service: "mezzo-master", Logger: logger})
//	span := tracer.Start(trace.Parse(call.GetTraceparent()), "accept", time.Now(), trace.Framework.String(id))
//	run.Traceparent = trace.Format(span.SpanContext())
//	span.End()
//	tracer.Close(ctx)
//
// Where a span belongs goes between processes as W3C Trace Context's
// traceparent.
package trace

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/mezzo-os/mezzo/config"
)

const (
	// sendTimeout bounds one attempt to send a batch.
	sendTimeout = 10 * time.Second
	// sendInterval is how old a span may become before it is sent.
	sendInterval = time.Second
	// batchSize is how many spans are sent together.
	batchSize = 512
	// header is the name of a traceparent in gRPC's metadata and in HTTP.
	header = "traceparent"
)

// What spans tell of: the same keys in every process.
const (
	Task          = attribute.Key("mezzo.task.id")
	Tasks         = attribute.Key("mezzo.tasks") // how many
	Framework     = attribute.Key("mezzo.framework.id")
	FrameworkName = attribute.Key("mezzo.framework.name")
	Agent         = attribute.Key("mezzo.agent.id")
	Offer         = attribute.Key("mezzo.offer.id")
	Executor      = attribute.Key("mezzo.executor.id")
	Container     = attribute.Key("mezzo.container.id")
	Plugin        = attribute.Key("mezzo.plugin")
	State         = attribute.Key("mezzo.task.state")
	Reason        = attribute.Key("mezzo.reason")
	Outcome       = attribute.Key("mezzo.outcome")
)

// Options of a tracer.
type Options struct {
	Config config.Tracing
	// Service is the process as the collector shows it: "mezzo-agent".
	Service string
	Version string
	// Host is the machine's name, and Instance the process's own: its rpc address.
	Host     string
	Instance string
	// Logger is told when the collector cannot be reached, and when it can again.
	Logger hclog.Logger
}

// Tracer makes spans. Its methods may be called from any goroutine, and never
// wait but for Close.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   oteltrace.Tracer
	counted  *counted
}

// New makes a tracer. That the collector is not there is no error.
func New(o Options) (*Tracer, error) {
	client, err := dial(&o.Config)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	// No connection is awaited here.
	exporter, err := otlptrace.New(context.Background(), client)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	counted := newCounted(exporter, o.Config.Endpoint, o.Logger)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", o.Service), attribute.String("service.version", o.Version),
			attribute.String("service.instance.id", o.Instance), attribute.String("host.name", o.Host),
		)),
		// A caller that has decided to trace is followed.
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(o.Config.SampleRatio))),
		sdktrace.WithSpanProcessor(endings{counted.ended}),
		sdktrace.WithSpanProcessor(sdktrace.NewBatchSpanProcessor(counted,
			sdktrace.WithMaxQueueSize(o.Config.QueueSize), sdktrace.WithMaxExportBatchSize(min(batchSize, o.Config.QueueSize)),
			sdktrace.WithBatchTimeout(sendInterval), sdktrace.WithExportTimeout(2*sendTimeout))),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/mezzo-os/mezzo"), counted: counted}, nil
}

func dial(c *config.Tracing) (otlptrace.Client, error) {
	security, err := c.TLS()
	if err != nil {
		return nil, err
	}
	address := c.Endpoint[strings.Index(c.Endpoint, "://")+3:]
	address = strings.TrimRight(address, "/")
	if c.Protocol == "grpc" {
		options := []otlptracegrpc.Option{
			otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithTimeout(sendTimeout), otlptracegrpc.WithInsecure(),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTimeout, MaxElapsedTime: 2 * sendTimeout}),
		}
		if security != nil {
			options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(security)))
		}
		return otlptracegrpc.NewClient(options...), nil
	}
	options := []otlptracehttp.Option{
		otlptracehttp.WithEndpoint(address), otlptracehttp.WithTimeout(sendTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: sendTimeout, MaxElapsedTime: 2 * sendTimeout}),
	}
	if security != nil {
		options = append(options, otlptracehttp.WithTLSClientConfig(security))
	} else {
		options = append(options, otlptracehttp.WithInsecure())
	}
	return otlptracehttp.NewClient(options...), nil
}

// Start begins a span at a time. With no parent (the zero SpanContext) it is the
// first of a trace, which is sampled or not; else it is so as its parent is. End
// it; one that is not sampled costs next to nothing.
func (t *Tracer) Start(parent oteltrace.SpanContext, name string, at time.Time, attributes ...attribute.KeyValue) oteltrace.Span {
	ctx := oteltrace.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := t.tracer.Start(ctx, name, oteltrace.WithTimestamp(at), oteltrace.WithAttributes(attributes...))
	return span
}

// Register has a registry show the numbers of spans. A nil tracer has none.
func (t *Tracer) Register(r prometheus.Registerer) {
	if t != nil {
		r.MustRegister(t.counted.ended, t.counted.sent)
	}
}

// Close sends what waits, until the context ends.
func (t *Tracer) Close(ctx context.Context) {
	if t != nil {
		_ = t.provider.Shutdown(ctx) // what could not be sent is counted
	}
}

// Format is a span's place as traceparent; empty for the zero SpanContext.
func Format(sc oteltrace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(oteltrace.ContextWithSpanContext(context.Background(), sc), carrier)
	return carrier[header]
}

// Parse undoes Format. What is no traceparent is the zero SpanContext.
func Parse(traceparent string) oteltrace.SpanContext {
	if traceparent == "" {
		return oteltrace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{header: traceparent})
	return oteltrace.SpanContextFromContext(ctx)
}

// Outgoing has a gRPC call tell the called where it belongs.
func Outgoing(ctx context.Context, sc oteltrace.SpanContext) context.Context {
	if text := Format(sc); text != "" {
		return metadata.AppendToOutgoingContext(ctx, header, text)
	}
	return ctx
}

// counted counts spans on their way to the collector, and says when it cannot be
// reached, once, and when it can again. The SDK tells errors only to a handler
// that the whole process shares; so nothing of them gets there.
type counted struct {
	sdktrace.SpanExporter
	endpoint string
	logger   hclog.Logger
	failing  atomic.Bool
	ended    prometheus.Counter
	sent     *prometheus.CounterVec
}

func newCounted(e sdktrace.SpanExporter, endpoint string, logger hclog.Logger) *counted {
	c := &counted{
		SpanExporter: e, endpoint: endpoint, logger: logger,
		ended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mezzo_trace_spans_ended_total", Help: "Spans that were to be sent to the collector of traces.",
		}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_trace_spans_exported_total", Help: "Spans sent to the collector of traces, by what came of it: succeeded or failed. What is in neither waits, or found the queue full.",
		}, []string{"outcome"}),
	}
	if c.logger == nil {
		c.logger = hclog.NewNullLogger()
	}
	c.sent.WithLabelValues("succeeded")
	c.sent.WithLabelValues("failed")
	return c
}

// ExportSpans implements sdktrace.SpanExporter. Its error is always nil.
func (c *counted) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.sent.WithLabelValues("succeeded").Add(float64(len(spans)))
		if c.failing.Swap(false) {
			c.logger.Info("traces are taken again", "endpoint", c.endpoint)
		}
		return nil
	}
	c.sent.WithLabelValues("failed").Add(float64(len(spans)))
	if !c.failing.Swap(true) {
		c.logger.Warn("traces cannot be sent; they are dropped until it works again", "endpoint", c.endpoint, "error", err)
	}
	return nil
}

// endings counts the spans that are to be sent: what the queue drops, the SDK
// does not tell.
type endings struct{ counter prometheus.Counter }

// OnStart implements sdktrace.SpanProcessor.
func (endings) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (e endings) OnEnd(span sdktrace.ReadOnlySpan) {
	if span.SpanContext().IsSampled() {
		e.counter.Inc()
	}
}

// Shutdown implements sdktrace.SpanProcessor.
func (endings) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (endings) ForceFlush(context.Context) error { return nil }
