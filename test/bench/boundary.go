package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// boundary measures what the allocator costs for being a process of its own:
// the plugin is launched as a master launches it, but nothing stands behind it.
func (b *bench) boundary(ctx context.Context) error {
	t := b.table("The plugin boundary alone, milliseconds", "agents x frameworks", "decisions, beside the engine", "the engine's cycle", "as many declines, engine included")
	for _, s := range b.sizes {
		if s.frameworks == 1 {
			continue
		}
		way, cycle, back, err := b.boundaryOne(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		t.row(s.String(), number(milliseconds(way)), number(milliseconds(cycle)), number(milliseconds(back)))
	}
	t.print()
	return nil
}

// boundaryOne returns the median time of the way of N decisions, of the cycle
// that makes them, and of telling that all of them were declined.
func (b *bench) boundaryOne(ctx context.Context, s size) (way, cycle, back time.Duration, err error) {
	dir := filepath.Join(b.dir, "boundary")
	host, err := pluginhost.New(pluginhost.Options{DataDir: dir})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, host.Close(context.WithoutCancel(ctx))) }()
	up := make(chan *grpc.ClientConn, 1)
	_, err = host.Start(ctx, pluginhost.Spec{
		Kind: pluginv1.Kind_KIND_ALLOCATOR, Name: "drf", Path: filepath.Join(b.bin, "plugins", "mezzo-allocator-drf"),
		OnUp: func(_ context.Context, g *pluginhost.Generation) { up <- g.Conn },
	})
	if err != nil {
		return 0, 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	var conn *grpc.ClientConn
	select {
	case conn = <-up:
	case <-ctx.Done():
		return 0, 0, 0, ctx.Err()
	}
	p := &peer{size: s, encoder: allocator.NewEncoder(), total: resource.MustParse(agentResources)}
	if p.stream, err = allocatorv1.NewAllocatorClient(conn).Allocate(ctx); err != nil {
		return 0, 0, 0, err
	}
	if err := p.begin(); err != nil {
		return 0, 0, 0, err
	}
	var ways, cycles, backs []time.Duration
	for range 2*b.rounds() + 1 {
		w, c, r, err := p.round()
		if err != nil {
			return 0, 0, 0, err
		}
		ways, cycles, backs = append(ways, w), append(cycles, c), append(backs, r)
	}
	return median(ways), median(cycles), median(backs), nil
}

// peer is the core's end of an allocator's stream.
type peer struct {
	size    size
	stream  grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
	encoder *allocator.Encoder
	total   resource.Resources
	event   uint64 // the last that was sent
	seen    uint64 // the last decision
}

// boundaryBatch is long enough for a whole batch of events to arrive.
const boundaryBatch = 50 * time.Millisecond

func (p *peer) begin() error {
	begin := allocator.Begin{FirstDecision: 1, BatchInterval: boundaryBatch, Seed: 1}
	if err := p.stream.Send(&allocatorv1.FromCore{Session: 1, Begin: begin.Proto()}); err != nil {
		return err
	}
	events := []allocator.Event{&allocator.RoleUpdated{Name: "*"}}
	for i := range p.size.frameworks {
		events = append(events, &allocator.FrameworkUpdated{ID: p.framework(i), Roles: []string{"*"}, Suppressed: []string{"*"}, Active: true})
	}
	for i := range p.size.agents {
		events = append(events, &allocator.AgentUpdated{
			ID: fmt.Sprint("agent", i), Hostname: fmt.Sprint("agent", i), Total: p.total, Active: true, HoldingsSet: true,
		})
	}
	if err := p.send(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: events}); err != nil {
		return err
	}
	for {
		if m, err := p.stream.Recv(); err != nil || m.GetReady() {
			return err
		}
	}
}

func (p *peer) framework(i int) string { return fmt.Sprint("framework", i) }

func (p *peer) send(batch allocator.Batch) error {
	if !batch.Snapshot {
		batch.FirstEvent = p.event + 1
		p.event += uint64(len(batch.Events))
	}
	batch.DecisionsSeen = p.seen
	for _, message := range p.encoder.Encode(batch) {
		if err := p.stream.Send(&allocatorv1.FromCore{Session: 1, Batch: message}); err != nil {
			return err
		}
	}
	return nil
}

// round: all frameworks want offers, every agent is offered; all suppress and
// decline.
func (p *peer) round() (way, cycle, back time.Duration, err error) {
	var revive, decline []allocator.Event
	for i := range p.size.frameworks {
		revive = append(revive, &allocator.Revived{Framework: p.framework(i), Roles: []string{"*"}})
		decline = append(decline, &allocator.Suppressed{Framework: p.framework(i), Roles: []string{"*"}})
	}
	began := time.Now()
	if err := p.send(allocator.Batch{Events: revive}); err != nil {
		return 0, 0, 0, err
	}
	for offers := 0; offers < p.size.agents; {
		m, err := p.stream.Recv()
		if err != nil {
			return 0, 0, 0, err
		}
		cycle += time.Duration(m.GetCycle().GetDurationNs())
		for _, d := range m.GetDecisions() {
			decision, err := p.encoder.Decision(d)
			if err != nil {
				return 0, 0, 0, err
			}
			o, ok := decision.(*allocator.Offer)
			if !ok {
				return 0, 0, 0, fmt.Errorf("the plugin decided %T", decision)
			}
			offers, p.seen = offers+1, o.Number
			decline = append(decline, &allocator.Released{
				Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources, Declined: true, Offer: o.Number,
			})
		}
	}
	way = time.Since(began) - boundaryBatch - cycle
	began = time.Now()
	if err := p.send(allocator.Batch{Events: decline}); err != nil {
		return 0, 0, 0, err
	}
	for {
		m, err := p.stream.Recv()
		if err != nil {
			return 0, 0, 0, err
		}
		if m.GetEventsSeen() >= p.event {
			break
		}
	}
	back = time.Since(began)
	// The cycle that follows has nothing to offer; the next round's must not
	// be joined with it.
	time.Sleep(2 * boundaryBatch)
	return way, cycle, back, nil
}
