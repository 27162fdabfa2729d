package allocator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// Policy says in which order candidates are served. See engine.Policy, where
// the contract is written.
type Policy = engine.Policy

// Candidate is a role, the frameworks of a role as a group, or a framework in a
// role.
type Candidate = engine.Candidate

// Cluster is what all candidates share.
type Cluster = engine.Cluster

// Rank is a place in the order among siblings.
type Rank = engine.Rank

// Definition describes an allocator that is a Policy over the engine.
type Definition struct {
	// Name is what HCL uses: "drf" in `allocator "drf"`.
	Name string
	// Version is the plugin's own, for people.
	Version string
	// Summary is one sentence for lists and the manual.
	Summary string
	// NewConfig returns a pointer to a new configuration struct; nil when there
	// are no settings. See plugin.SchemaOf.
	NewConfig func() any
	// NewPolicy returns a new policy for what NewConfig returned, filled in and
	// valid; nil when there is no NewConfig. It is called when the plugin is
	// configured, to see its diagnostics, and then for every session, so that a
	// policy may keep what it learns in one.
	NewPolicy func(config any) (Policy, []plugin.Diagnostic)
	// Preempt returns when tasks may be ended for roles that are starved, for
	// what NewConfig returned; nil when never. It may be nil itself. The engine
	// chooses the tasks by the policy's ranks: see engine.Preempt.
	Preempt func(config any) *Preempt
	// Metrics are the policy's own; those of the engine are there without them.
	// See sdk/metric. Nil: it has none.
	Metrics *metric.Set
}

// Serve runs the plugin and returns when the host has ended it; main returns
// then. See plugin.Serve.
func Serve(def Definition) { plugin.Serve(def.Plugin()) }

// Plugin returns the definition as sdk/plugin knows it: for tests, which serve
// it by plugin.StartLocal.
func (d Definition) Plugin() plugin.Definition {
	s := &server{definition: d, logger: hclog.NewNullLogger(), stats: &stats{}}
	// What the engine does of the contract's optional parts.
	capabilities := []string{"headroom", "constraints", "shared", "inverse-offers"}
	if d.Preempt != nil {
		capabilities = append(capabilities, "revoke")
	}
	return plugin.Definition{
		Name: d.Name, Version: d.Version, Summary: d.Summary, Kind: plugin.Allocator,
		Capabilities: capabilities,
		NewConfig:    d.NewConfig,
		Configure:    s.configure,
		Metrics:      metric.Join(d.Metrics, s.stats.metrics()),
		Register:     func(r grpc.ServiceRegistrar) { allocatorv1.RegisterAllocatorServer(r, s) },
	}
}

// server serves the contract by the engine.
type server struct {
	allocatorv1.UnimplementedAllocatorServer
	definition Definition
	stats      *stats

	mu      sync.Mutex
	config  any
	logger  hclog.Logger
	current *session // the one that began last
}

func (s *server) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	s.mu.Lock()
	if env.Logger != nil {
		s.logger = env.Logger
	}
	s.config = config
	s.mu.Unlock()
	_, diagnostics := s.definition.NewPolicy(config)
	return diagnostics
}

// session is one stream. mu guards the engine, which Explain reads too.
type session struct {
	number uint64
	start  time.Time
	stats  *stats

	mu     sync.Mutex
	engine *engine.Engine
	told   engine.Stats // to stats, last
}

func (s *session) now() time.Duration { return time.Since(s.start) }

// Allocate implements allocatorv1.AllocatorServer.
func (s *server) Allocate(stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetBegin() == nil {
		return status.Error(codes.InvalidArgument, "the first message of a session must be Begin")
	}
	s.mu.Lock()
	config, logger := s.config, s.logger
	s.mu.Unlock()
	policy, diagnostics := s.definition.NewPolicy(config)
	if plugin.Failed(diagnostics) {
		return status.Errorf(codes.FailedPrecondition, "the configuration is not valid: %v", diagnostics)
	}
	mirror := engine.New(first.GetBegin(), policy)
	if s.definition.Preempt != nil {
		if p := s.definition.Preempt(config); p != nil {
			mirror.Preempt(engine.Preempt{After: p.After, GracePeriod: p.GracePeriod})
		}
	}
	begun := &session{number: first.GetSession(), start: time.Now(), engine: mirror, stats: s.stats}
	s.mu.Lock()
	s.current = begun
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		if s.current == begun {
			s.current = nil
		}
		s.mu.Unlock()
	}()
	logger.Debug("session begins", "session", begun.number)
	s.stats.begin(begun)
	defer s.stats.end(begun)
	err = begun.serve(stream, first.GetBatch())
	if err != nil && stream.Context().Err() == nil {
		logger.Error("session failed", "session", begun.number, "error", err)
	}
	return err
}

// received is one message from the core, or why there are no more.
type received struct {
	batch *allocatorv1.Batch
	err   error
}

// serve applies what comes in and sends what the engine decides. Nothing is
// decided while earlier decisions have not been sent: a core that does not read
// gets no more, and events go on being applied.
func (s *session) serve(stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator], first *allocatorv1.Batch) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	in := make(chan received, 16)
	go receive(ctx, stream, in)
	out := make(chan *allocatorv1.FromAllocator)
	sent := make(chan error, 1)
	go func() { sent <- send(ctx, stream, out) }()

	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	var pending []*allocatorv1.FromAllocator
	if err := s.apply(first); err != nil {
		return err
	}
	for acknowledged, ready := uint64(0), false; ; {
		if len(pending) == 0 {
			s.mu.Lock()
			pending = s.step()
			seen, isReady := s.engine.EventsSeen(), s.engine.Ready()
			if len(pending) == 0 && (seen != acknowledged || isReady != ready) {
				pending = []*allocatorv1.FromAllocator{{Session: s.number, EventsSeen: seen}}
			}
			if isReady && !ready && len(pending) > 0 {
				pending[0].Ready, ready = true, true
			}
			acknowledged = seen
			s.told = s.stats.take(s, s.told, s.engine.Stats())
			if at, ok := s.engine.Next(); ok {
				wake.Reset(max(0, at-s.now()))
			} else {
				wake.Reset(time.Hour)
			}
			s.mu.Unlock()
		}
		var next *allocatorv1.FromAllocator
		var queue chan<- *allocatorv1.FromAllocator
		timer := wake.C
		if len(pending) > 0 {
			next, queue, timer = pending[0], out, nil
		}
		select {
		case r := <-in:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			if err := s.apply(r.batch); err != nil {
				return err
			}
		case queue <- next:
			pending = pending[1:]
		case <-timer:
		case err := <-sent:
			return err
		}
	}
}

func (s *session) apply(batch *allocatorv1.Batch) error {
	if batch == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.engine.Apply(s.now(), batch); err != nil {
		return status.Errorf(codes.InvalidArgument, "session %d: %v", s.number, err)
	}
	return nil
}

const (
	// decisionsPerMessage keeps messages small enough to be sent beside others.
	decisionsPerMessage = 256
	// decisionsAtFirst are in the first message of a cycle, which the core has
	// in its hands the sooner.
	decisionsAtFirst = 64
)

// step runs the engine and packs its decisions.
func (s *session) step() []*allocatorv1.FromAllocator {
	began := time.Now()
	decisions, report := s.engine.Run(s.now())
	if !report.Ran {
		return nil
	}
	s.engine.Group(decisions)
	seen := s.engine.EventsSeen()
	var out []*allocatorv1.FromAllocator
	for most := decisionsAtFirst; len(decisions) > 0; most = decisionsPerMessage {
		n := min(len(decisions), most)
		out = append(out, &allocatorv1.FromAllocator{Session: s.number, EventsSeen: seen, Decisions: decisions[:n]})
		decisions = decisions[n:]
	}
	if len(out) == 0 {
		out = append(out, &allocatorv1.FromAllocator{Session: s.number, EventsSeen: seen})
	}
	out[len(out)-1].Cycle = &allocatorv1.CycleReport{
		DurationNs:       uint64(time.Since(began)),
		AgentsConsidered: uint32(report.Agents),
		Offers:           uint32(report.Offers),
	}
	return out
}

// receive hands messages on until the stream ends.
func receive(ctx context.Context, stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator], in chan<- received) {
	for {
		m, err := stream.Recv()
		r := received{m.GetBatch(), err}
		if err == nil && m.GetBegin() != nil {
			r.err = status.Error(codes.InvalidArgument, "a session has one Begin, in its first message")
		}
		select {
		case in <- r:
		case <-ctx.Done():
			return
		}
		if r.err != nil {
			return
		}
	}
}

// send sends messages until the stream ends.
func send(ctx context.Context, stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator], out <-chan *allocatorv1.FromAllocator) error {
	for {
		select {
		case m := <-out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Explain implements allocatorv1.AllocatorServer.
func (s *server) Explain(_ context.Context, r *allocatorv1.ExplainRequest) (*allocatorv1.ExplainResponse, error) {
	s.mu.Lock()
	current := s.current
	s.mu.Unlock()
	if current == nil {
		return nil, status.Error(codes.Unavailable, fmt.Sprintf("allocator %s has no session with a core", s.definition.Name))
	}
	current.mu.Lock()
	defer current.mu.Unlock()
	return current.engine.Explain(current.now(), r), nil
}
