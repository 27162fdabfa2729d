package adapter

import (
	"context"
	"fmt"
	"slices"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Plan is what a reload would change.
type Plan struct {
	set       *Set
	blocks    []config.Plugin
	pluginDir string
	why       map[string]string // of the adapters that are to be started again
}

// Prepare compares the blocks of another configuration with what runs, and
// tries the configuration of all that differ, without touching anything. Its
// error is the operator's to read.
func (s *Set) Prepare(ctx context.Context, blocks []config.Plugin, pluginDir string) (*Plan, error) {
	p := &Plan{set: s, blocks: blocks, pluginDir: pluginDir, why: map[string]string{}}
	for _, block := range blocks {
		why := "none"
		if r := s.find(block.Name); r != nil {
			if why = r.differs(block, pluginDir); why == "" {
				continue
			}
		}
		p.why[block.Name] = why
		if err := pluginhost.Check(ctx, pluginhost.FromConfig(block, pluginDir), pluginhost.Options{}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (s *Set) find(name string) *run {
	for _, r := range s.list() {
		if r.block.Name == name {
			return r
		}
	}
	return nil
}

// Apply stops the adapters that are not wanted any more, and starts those that
// are new or differ; one that was there is stopped first, since both would
// listen at one place. When one does not serve, the one before it is started
// again, and the error says so; what was changed before stays, and is in the
// changes.
func (p *Plan) Apply(ctx context.Context) (changes []*operatorv1.ReloadChange, err error) {
	s := p.set
	s.reloading.Lock()
	defer s.reloading.Unlock()
	change := func(name, from, to string) {
		changes = append(changes, &operatorv1.ReloadChange{What: fmt.Sprintf("framework %q", name), From: from, To: to})
	}
	wanted := map[string]config.Plugin{}
	for _, b := range p.blocks {
		wanted[b.Name] = b
	}
	for _, r := range s.list() {
		if _, kept := wanted[r.block.Name]; !kept {
			s.drop(r)
			r.stop()
			change(r.block.Name, "as it was", "none")
		}
	}
	for _, block := range p.blocks {
		why, differs := p.why[block.Name]
		before := s.find(block.Name)
		if !differs {
			before.instance.SetLogLevel(block.LogLevel)
			continue
		}
		next := s.newRun(block, p.pluginDir)
		if before == nil {
			s.setRuns(append(s.list(), next))
			if err := next.start(ctx, p.pluginDir); err != nil {
				s.drop(next)
				return changes, err
			}
			change(block.Name, "none", "started")
			continue
		}
		before.stop()
		s.swap(before, next)
		if err := next.start(ctx, p.pluginDir); err != nil {
			return changes, p.back(ctx, before, next, err)
		}
		change(block.Name, "as it was", why)
	}
	order := make([]string, len(p.blocks))
	for i, b := range p.blocks {
		order[i] = b.Name
	}
	runs := s.list()
	slices.SortStableFunc(runs, func(a, b *run) int {
		return slices.Index(order, a.block.Name) - slices.Index(order, b.block.Name)
	})
	s.setRuns(runs)
	return changes, nil
}

// back starts an adapter again that another, failed, could not take the place
// of.
func (p *Plan) back(ctx context.Context, before, failed *run, err error) error {
	block := before.block
	block.Path = before.path
	again := p.set.newRun(block, p.pluginDir)
	p.set.swap(failed, again)
	if restart := again.start(context.WithoutCancel(ctx), p.pluginDir); restart != nil {
		p.set.drop(again)
		return fmt.Errorf("%w\nthe adapter before it did not start again either: %w", err, restart)
	}
	return err
}

func (s *Set) drop(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = slices.DeleteFunc(slices.Clone(s.runs), func(other *run) bool { return other == r })
}

// swap puts a run in the place of another. It comes back where that one was.
func (s *Set) swap(before, after *run) {
	after.mu.Lock()
	after.last = before.said()
	after.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = slices.Clone(s.runs)
	for i, r := range s.runs {
		if r == before {
			s.runs[i] = after
		}
	}
}
