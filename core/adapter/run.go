package adapter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/rpc"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

const (
	// serveTimeout is how long an adapter may take to listen.
	serveTimeout = 30 * time.Second
	// stopTimeout bounds the end of an adapter that is replaced or not wanted any
	// more.
	stopTimeout = 10 * time.Second
)

// run is one adapter of the configuration, with however many processes after
// one another.
type run struct {
	set   *Set
	block config.Plugin
	path  string
	// outcome is whether the first process serves; it has room for one.
	outcome chan error

	instance *pluginhost.Instance // under Set.reloading

	telling sync.Mutex
	mu      sync.Mutex
	given   []byte // what Configure was told last
	status  *operatorv1.Plugin
	serving *frameworkv1.ServeResponse // nil while it does not serve
	last    *frameworkv1.ServeResponse // what it said last
}

func (s *Set) newRun(block config.Plugin, pluginDir string) *run {
	return &run{set: s, block: block, path: block.Binary(pluginDir), outcome: make(chan error, 1)}
}

// start starts the adapter, and returns once it serves, or with an error and
// nothing left of it. The set has it already.
func (r *run) start(ctx context.Context, pluginDir string) error {
	spec := pluginhost.FromConfig(r.block, pluginDir)
	configure := spec.Configure
	spec.Configure = func(schema *pluginv1.Schema) ([]byte, error) {
		given, err := configure(schema)
		if err == nil {
			r.mu.Lock()
			r.given = given
			r.mu.Unlock()
		}
		return given, err
	}
	spec.OnUp = r.use
	spec.OnDown = func(_ *pluginhost.Generation, err error) {
		if err != nil {
			r.settle(err)
		}
	}
	spec.OnStatus = func(now pluginhost.Status) {
		r.mu.Lock()
		r.status = now.ToProto(r.set.options.PluginHost)
		r.mu.Unlock()
		r.tell()
	}
	instance, err := r.set.options.Host.Start(ctx, spec)
	if err != nil {
		return err
	}
	r.instance = instance
	select {
	case err = <-r.outcome:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		r.stop()
		return r.failure(err)
	}
	return nil
}

// failure says, at the operator's line, why an adapter does not serve.
func (r *run) failure(err error) error {
	text := err.Error()
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: fmt.Sprintf("framework %q does not serve", r.block.Name),
		Detail: strings.ToUpper(text[:1]) + text[1:] + ".",
	}
	if (r.block.DefRange != hcl.Range{}) {
		d.Subject = &r.block.DefRange
	}
	return hcl.Diagnostics{d}
}

// settle says what came of the first process; the first word counts.
func (r *run) settle(err error) {
	select {
	case r.outcome <- err:
	default:
	}
}

// use has one process serve, until it is gone.
func (r *run) use(ctx context.Context, g *pluginhost.Generation) {
	source := newSource(r.block.Name, g)
	answer, err := r.serve(ctx, g, source)
	if err == nil {
		err = r.set.claim(r, answer)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.settle(err)
			g.Fail(err)
		}
		return
	}
	r.set.options.Up(source.Name, answer)
	r.tell()
	r.settle(nil)
	<-ctx.Done()
	r.mu.Lock()
	r.serving = nil
	r.mu.Unlock()
	r.set.options.Down(source.Name)
	r.tell()
	close(source.gone)
}

// serve offers the core's services to a process and has it begin.
func (r *run) serve(ctx context.Context, g *pluginhost.Generation, source *Source) (*frameworkv1.ServeResponse, error) {
	o := &r.set.options
	id, err := g.Offer(func(s grpc.ServiceRegistrar) {
		o.Register(s, source)
		frameworkv1.RegisterAuthorizationServer(s, &authorizationService{authorizer: o.Authorizer})
		frameworkv1.RegisterStoreServer(s, StoreServer(source.Name, o.Shelf))
	}, rpc.BrokerOptions(o.Logger)...)
	if err != nil {
		return nil, fmt.Errorf("it cannot be served: %w", err)
	}
	request := &frameworkv1.ServeRequest{Side: o.Side, Core: id, Hostname: o.Hostname, Version: o.Version}
	if o.AgentID != nil {
		request.AgentId = o.AgentID()
	}
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	answer, err := frameworkv1.NewFrameworkClient(g.Conn).Serve(ctx, request)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("it did not begin to serve within %v", serveTimeout)
	case err != nil:
		return nil, fmt.Errorf("it does not serve: %s", status.Convert(err).Message())
	}
	return answer, checkServing(answer)
}

// endpointName stands in a ready line, before a "=".
var endpointName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// checkServing says what is wrong with an adapter's answer.
func checkServing(s *frameworkv1.ServeResponse) error {
	seen := map[string]bool{}
	for _, e := range s.GetEndpoints() {
		switch _, _, err := net.SplitHostPort(e.GetAddress()); {
		case !endpointName.MatchString(e.GetName()):
			return fmt.Errorf("it named an endpoint %q: want a word of small letters, digits and underscores", e.GetName())
		case seen[e.GetName()]:
			return fmt.Errorf("it named the endpoint %q twice", e.GetName())
		case err != nil:
			return fmt.Errorf("its endpoint %q is at %q, which is not host:port", e.GetName(), e.GetAddress())
		}
		seen[e.GetName()] = true
	}
	for _, v := range s.GetExecutorEnvironment() {
		if v.GetName() == "" || bytes.ContainsAny([]byte(v.GetName()), "=\x00") || bytes.ContainsRune([]byte(v.GetValue()), 0) {
			return fmt.Errorf("it gave executors the variable %q, which no environment can hold", v.GetName())
		}
	}
	return nil
}

// stop ends the process, if there is one.
func (r *run) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	r.instance.Stop(ctx)
}

// message is the adapter as operators see it; nil before anything is known.
func (r *run) message() *operatorv1.Plugin {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status == nil {
		return nil
	}
	out := proto.CloneOf(r.status)
	if r.serving == nil && (out.State == string(pluginhost.Healthy) || out.State == string(pluginhost.Degraded) && out.Reason == "") {
		out.State, out.Reason = string(pluginhost.Starting), "it does not serve yet"
	}
	for _, e := range r.serving.GetEndpoints() {
		out.Endpoints = append(out.Endpoints, &operatorv1.Endpoint{Name: e.GetName(), Address: e.GetAddress()})
	}
	return out
}

func (r *run) tell() {
	r.telling.Lock() // so that the last word is the newest
	defer r.telling.Unlock()
	if told := r.set.options.OnStatus; told != nil {
		if m := r.message(); m != nil {
			told(m)
		}
	}
}

// differs says why a block of the configuration is not what runs; empty: it is.
func (r *run) differs(block config.Plugin, pluginDir string) string {
	r.mu.Lock()
	given := r.given
	r.mu.Unlock() // the instance must not be called with it held: it calls back
	return r.instance.Differs(block, pluginDir, r.path, r.block.Checksum, given)
}
