package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/master/explain"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Explain says why a framework is not being offered more. What the master knows
// it tells also while the allocator is down.
func (s *operatorService) Explain(ctx context.Context, q *operatorv1.ExplainRequest) (*operatorv1.ExplainResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	m := s.master
	all := m.mirror.listFrameworks(true)
	framework, err := findFramework(all, q.FrameworkId)
	if err != nil {
		return nil, err
	}
	if q.Role != "" && !slices.Contains(framework.Roles, q.Role) {
		return nil, fmt.Errorf("%w: framework %s is not subscribed to role %q; it is to %s", rpc.ErrNotFound, framework.ID, q.Role, strings.Join(framework.Roles, ", "))
	}
	reply, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.Explain{Request: r, FrameworkID: framework.ID}
	})
	if err != nil {
		return nil, err
	}
	facts := explain.Facts{
		Now: time.Now(), Framework: framework, Role: q.Role, Agents: m.mirror.listAgents(), Offers: m.mirror.listOffers(),
		Roles: m.mirror.listRoles(), Names: map[string]string{}, Known: *reply.Explanation, PerAgent: q.Agents,
		OfferTimeout: m.config.Load().OfferTimeout, MinAllocatable: m.config.Load().MinAllocatableQuantities(),
	}
	for _, f := range all {
		facts.Names[f.ID] = f.Info.GetName()
	}
	if framework.State != state.FrameworkCompleted {
		if facts.Allocator, err = s.askAllocator(ctx, framework.ID, q); err != nil {
			facts.AllocatorError = rpc.FromStatus(err).Error()
		}
	}
	out := explain.Explain(facts)
	out.Framework = frameworkMessage(framework)
	return out, nil
}

// askAllocator asks the allocator for its part.
func (s *operatorService) askAllocator(ctx context.Context, id string, q *operatorv1.ExplainRequest) (*allocatorv1.ExplainResponse, error) {
	conn := s.master.allocatorConn()
	if conn == nil {
		return nil, fmt.Errorf("the allocator is not running")
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	answer, err := allocatorv1.NewAllocatorClient(conn).Explain(ctx, &allocatorv1.ExplainRequest{FrameworkId: id, Role: q.Role, Agents: q.Agents})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("this allocator does not explain its decisions")
	case err != nil:
		return nil, fmt.Errorf("the allocator did not answer: %s", status.Convert(err).Message())
	case !answer.Known:
		return nil, fmt.Errorf("the allocator does not know the framework yet")
	}
	return answer, nil
}

// findFramework finds a framework by its id, its name, the beginning of its id,
// or a part of its name, in this order. Those that are gone count only where no
// other is meant.
func findFramework(all []*state.FrameworkView, text string) (*state.FrameworkView, error) {
	if text == "" {
		return nil, fmt.Errorf("%w: no framework is named", rpc.ErrInvalid)
	}
	for _, matches := range []func(*state.FrameworkView) bool{
		func(f *state.FrameworkView) bool { return f.ID == text },
		func(f *state.FrameworkView) bool {
			return f.State != state.FrameworkCompleted && f.Info.GetName() == text
		},
		func(f *state.FrameworkView) bool {
			return f.State != state.FrameworkCompleted && strings.HasPrefix(f.ID, text)
		},
		func(f *state.FrameworkView) bool {
			return f.State != state.FrameworkCompleted && strings.Contains(f.Info.GetName(), text)
		},
		func(f *state.FrameworkView) bool { return f.Info.GetName() == text || strings.HasPrefix(f.ID, text) },
	} {
		var found []*state.FrameworkView
		for _, f := range all {
			if matches(f) {
				found = append(found, f)
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			var names []string
			for _, f := range found {
				names = append(names, fmt.Sprintf("%s (%s)", f.ID, f.Info.GetName()))
			}
			return nil, fmt.Errorf("%w: %q can mean %d frameworks: %s; give the id", rpc.ErrConflict, text, len(found), strings.Join(names[:min(len(names), 10)], ", "))
		}
	}
	return nil, fmt.Errorf("%w: no framework %q is known; mezzo frameworks --all lists them", rpc.ErrNotFound, text)
}
