package trace_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	oteltrace "go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/trace"
	"github.com/mezzo-os/mezzo/core/trace/tracetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func open(t *testing.T, c config.Tracing) (*trace.Tracer, *log, *prometheus.Registry) {
	t.Helper()
	l, r := &log{}, prometheus.NewRegistry()
	tracer, err := trace.New(trace.Options{
		Config: c, Service: "test", Version: "1", Host: "h", Instance: "i", Logger: hclog.New(&hclog.LoggerOptions{Output: l}),
	})
	if err != nil {
		t.Fatal(err)
	}
	tracer.Register(r)
	t.Cleanup(func() { closeNow(t, tracer) })
	return tracer, l, r
}

func closeNow(t *testing.T, tracer *trace.Tracer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tracer.Close(ctx)
}

// TestSpansReachTheCollector, by both protocols, with what they tell, under the
// parent that another process gave.
func TestSpansReachTheCollector(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(strings.ReplaceAll(protocol, "/", "-"), func(t *testing.T) {
			c := tracetest.Start(t)
			endpoint := "http://" + c.GRPC
			if protocol != "grpc" {
				endpoint = "http://" + c.HTTP
			}
			tracer, _, _ := open(t, config.Tracing{Endpoint: endpoint, Protocol: protocol, SampleRatio: 1, QueueSize: 64})
			parent := tracer.Start(oteltrace.SpanContext{}, "parent", time.Unix(100, 0), trace.Task.String("t1"))
			child := tracer.Start(trace.Parse(trace.Format(parent.SpanContext())), "child", time.Now())
			child.End()
			parent.End(oteltrace.WithTimestamp(time.Unix(101, 0)))
			closeNow(t, tracer)
			spans := c.Spans()
			p, k := spans.One("parent"), spans.One("child")
			switch {
			case p == nil || k == nil:
				t.Fatalf("what came is %v", spans)
			case k.Parent != p.ID || k.Trace != p.Trace || p.Parent != "":
				t.Errorf("the child is not below its parent: %v", spans)
			case p.Attributes["mezzo.task.id"] != "t1" || p.Service != "test" || p.End.Sub(p.Start) != time.Second:
				t.Errorf("the parent is %v", p)
			}
		})
	}
}

// TestUnsampledTracesAreNotSent, nor is what is below them, and what a caller
// samples is, whatever the ratio.
func TestUnsampledTracesAreNotSent(t *testing.T) {
	c := tracetest.Start(t)
	tracer, _, _ := open(t, config.Tracing{Endpoint: "http://" + c.GRPC, Protocol: "grpc", SampleRatio: 0, QueueSize: 64})
	root := tracer.Start(oteltrace.SpanContext{}, "root", time.Now())
	tracer.Start(root.SpanContext(), "below", time.Now()).End()
	root.End()
	if text := trace.Format(root.SpanContext()); !strings.HasSuffix(text, "-00") {
		t.Errorf("an unsampled span tells %q", text)
	}
	tracer.Start(trace.Parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "asked for", time.Now()).End()
	closeNow(t, tracer)
	if spans := c.Spans(); len(spans) != 1 || spans[0].Name != "asked for" || spans[0].Parent != "b7ad6b7169203331" {
		t.Errorf("what came is %v", spans)
	}
}

// TestCollectorThatTakesNothing costs spans and two lines of the log, and never a
// wait.
func TestCollectorThatTakesNothing(t *testing.T) {
	c := tracetest.Start(t)
	c.Refuse(true)
	tracer, l, r := open(t, config.Tracing{Endpoint: "http://" + c.GRPC, Protocol: "grpc", SampleRatio: 1, QueueSize: 8})
	one := func() { tracer.Start(oteltrace.SpanContext{}, "s", time.Now()).End() }
	number := func(name, outcome string) float64 {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && (outcome == "" || m.GetLabel()[0].GetValue() == outcome) {
					return m.GetCounter().GetValue()
				}
			}
		}
		t.Fatalf("no metric %s", name)
		return 0
	}
	await := func(what string, holds func() bool) {
		t.Helper()
		for late := time.Now().Add(time.Minute); !holds(); {
			if time.Now().After(late) {
				t.Fatalf("waited in vain: %s", what)
			}
			one()
			time.Sleep(10 * time.Millisecond) // the queue's own pace
		}
	}
	await("batches that fail", func() bool { return number("mezzo_trace_spans_exported_total", "failed") > 16 })
	c.Refuse(false)
	await("batches that succeed", func() bool { return number("mezzo_trace_spans_exported_total", "succeeded") > 0 })
	// Some never were in a batch: the queue is small.
	for range 10_000 {
		one()
	}
	closeNow(t, tracer)
	ended := number("mezzo_trace_spans_ended_total", "")
	if sent := number("mezzo_trace_spans_exported_total", "succeeded") + number("mezzo_trace_spans_exported_total", "failed"); sent >= ended {
		t.Errorf("%v of %v spans were tried: the queue has no bound", sent, ended)
	}
	if n := l.count("traces cannot be sent"); n != 1 {
		t.Errorf("that traces cannot be sent is told %d times", n)
	}
	if n := l.count("traces are taken again"); n != 1 {
		t.Errorf("that traces are taken again is told %d times", n)
	}
}

// TestTraceparent is that what is none is nothing.
func TestTraceparent(t *testing.T) {
	for _, text := range []string{"", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01", strings.Repeat("0", 1<<16)} {
		if sc := trace.Parse(text); sc.IsValid() {
			t.Errorf("%.80q is %v", text, sc)
		}
	}
	if text := trace.Format(oteltrace.SpanContext{}); text != "" {
		t.Errorf("nothing is written as %q", text)
	}
	const text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if got := trace.Format(trace.Parse(text)); got != text {
		t.Errorf("%q becomes %q", text, got)
	}
}
