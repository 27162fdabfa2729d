// Package tracetest is a collector of OpenTelemetry traces, by OTLP over gRPC and
// over HTTP, that tests look into.
//
//	c := tracetest.Start(t)
//	tracing := config.Tracing{Endpoint: "http://" + c.GRPC, Protocol: "grpc", SampleRatio: 1, QueueSize: 2048}
//	spans := c.Await(t, "the launch", func(spans tracetest.Spans) bool { return spans.One("launch") != nil })
package tracetest

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// patience bounds what a test waits for.
const patience = time.Minute

// Span is one that came.
type Span struct {
	Service           string // of the process
	Name              string
	Trace, ID, Parent string // in hexadecimal digits; Parent is empty for a first one
	Attributes        map[string]string
	Events            []string
	Links             []string // the ids of spans
	Failed            bool
	Message           string // of the status
	Start, End        time.Time
}

// Spans are all that came, in that order.
type Spans []Span

// Named are those with this name.
func (s Spans) Named(name string) (list Spans) {
	for _, span := range s {
		if span.Name == name {
			list = append(list, span)
		}
	}
	return list
}

// With are those with this attribute.
func (s Spans) With(key, value string) (list Spans) {
	for _, span := range s {
		if span.Attributes[key] == value {
			list = append(list, span)
		}
	}
	return list
}

// One is the first with this name, or nil.
func (s Spans) One(name string) *Span {
	if list := s.Named(name); len(list) > 0 {
		return &list[0]
	}
	return nil
}

// Of are those of a trace.
func (s Spans) Of(trace string) (list Spans) {
	for _, span := range s {
		if span.Trace == trace {
			list = append(list, span)
		}
	}
	return list
}

// Tree draws spans below those that have no parent among them, children in order
// of their names: "service name" a line.
func (s Spans) Tree() string {
	known := map[string]bool{}
	for _, span := range s {
		known[span.ID] = true
	}
	var lines []string
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		var children Spans
		for _, span := range s {
			if span.Parent == parent || parent == "" && !known[span.Parent] {
				children = append(children, span)
			}
		}
		slices.SortStableFunc(children, func(a, b Span) int { return strings.Compare(a.label(), b.label()) })
		for _, span := range children {
			lines = append(lines, indent+span.label())
			draw(span.ID, indent+"  ")
		}
	}
	draw("", "")
	return strings.Join(lines, "\n") + "\n"
}

func (s Span) label() string {
	text := s.Service + ": " + s.Name
	for _, key := range []string{"mezzo.task.state", "mezzo.outcome", "mezzo.plugin"} {
		if v := s.Attributes[key]; v != "" {
			text += " " + v
		}
	}
	return text
}

// Collector is a collector on loopback.
type Collector struct {
	collectorv1.UnimplementedTraceServiceServer
	// GRPC and HTTP are where it listens, host:port.
	GRPC, HTTP string

	mu      sync.Mutex
	spans   Spans
	refuse  bool
	changed chan struct{}
}

// Start starts a collector, until the end of the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{GRPC: listener.Addr().String(), changed: make(chan struct{})}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	web := httptest.NewServer(http.HandlerFunc(c.post))
	c.HTTP = web.Listener.Addr().String()
	t.Cleanup(func() {
		web.Close()
		server.Stop()
		<-done
	})
	return c
}

// Refuse has it take nothing, or everything again.
func (c *Collector) Refuse(refuse bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// Export implements the OTLP service.
func (c *Collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	if err := c.take(r); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (c *Collector) post(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	request := &collectorv1.ExportTraceServiceRequest{}
	if err == nil && r.URL.Path != "/v1/traces" {
		err = fmt.Errorf("POST %s is not where traces go", r.URL.Path)
	}
	if err == nil {
		err = proto.Unmarshal(body, request)
	}
	if err == nil {
		err = c.take(request)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *Collector) take(r *collectorv1.ExportTraceServiceRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse {
		return fmt.Errorf("the collector takes nothing")
	}
	for _, of := range r.GetResourceSpans() {
		service := texts(of.GetResource().GetAttributes())["service.name"]
		for _, scope := range of.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.spans = append(c.spans, read(service, s))
			}
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func read(service string, s *tracev1.Span) Span {
	out := Span{
		Service: service, Name: s.GetName(), Trace: hex.EncodeToString(s.GetTraceId()), ID: hex.EncodeToString(s.GetSpanId()),
		Parent: hex.EncodeToString(s.GetParentSpanId()), Attributes: texts(s.GetAttributes()),
		Failed: s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR, Message: s.GetStatus().GetMessage(),
		Start: time.Unix(0, int64(s.GetStartTimeUnixNano())), End: time.Unix(0, int64(s.GetEndTimeUnixNano())),
	}
	for _, e := range s.GetEvents() {
		out.Events = append(out.Events, e.GetName())
	}
	for _, l := range s.GetLinks() {
		out.Links = append(out.Links, hex.EncodeToString(l.GetSpanId()))
	}
	return out
}

func texts(list []*commonv1.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[kv.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[kv.GetKey()] = fmt.Sprint(v.IntValue)
		}
	}
	return out
}

// Spans are all that came so far.
func (c *Collector) Spans() Spans {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Await waits until something holds of what came.
func (c *Collector) Await(t testing.TB, what string, holds func(Spans) bool) Spans {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		c.mu.Lock()
		spans, changed := slices.Clone(c.spans), c.changed
		c.mu.Unlock()
		if holds(spans) {
			return spans
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("waited in vain for %s; what came is\n%s", what, spans.Tree())
		}
	}
}
