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
	"github.com/mezzo-os/mezzo/sdk/allocator/engine/workload"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// boundaryShare is the budget: percent of a cycle, at boundarySize.
const boundaryShare = 10

var boundarySize = size{10_000, 200}

// boundary measures what the allocator costs for being a process of its own,
// both ways: the plugin is launched as a master launches it, but nothing stands
// behind it. What the engine needs for itself is taken off.
func (b *bench) boundary(ctx context.Context) error {
	t := b.table("The plugin boundary alone, milliseconds", "agents x frameworks", "decisions there", "events back", "of them the engine's", "both, beside the engine",
		"cycle through a master", "and the declines", "decisions, % of the cycle", "budget", "", "both, % of both")
	t.note("For every agent one offer is decided, and one decline told; the cycle is b of the table before, and the declines come after it.")
	sizes := b.sizes
	if len(sizes) == 0 {
		sizes = []size{{1000, 200}, {10_000, 50}, boundarySize}
	}
	for _, s := range sizes {
		if s.frameworks == 1 {
			continue
		}
		way, _, back, err := b.boundaryOne(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		own, err := b.measureEngine(workload.Decline, workload.Variant{}, s, b.engineRounds(s))
		if err != nil {
			return err
		}
		there, events, engine := milliseconds(way), milliseconds(back), milliseconds(median(own.took))
		both := there + max(0, events-engine)
		row := []string{s.String(), number(there), number(events), number(engine), number(both)}
		cycle, declines := b.cluster[result{workload.B, s}], b.cluster[result{workload.Decline, s}]
		if cycle == 0 || declines == 0 {
			t.row(append(row, "-", "-", "-", "-", "-", "-")...)
			continue
		}
		limit, share := 0.0, 100*there/cycle
		if s == boundarySize {
			limit = boundaryShare
		}
		t.row(append(row, number(cycle), number(declines), number(share), budget(limit),
			b.most("plugin boundary, % of cycle b, "+s.String(), share, limit), number(100*both/(cycle+declines)))...)
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
