package master

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// SetUnavailability plans when an agent will not be there.
func (s *operatorService) SetUnavailability(ctx context.Context, q *operatorv1.SetUnavailabilityRequest) (*operatorv1.SetUnavailabilityResponse, error) {
	if err := s.master.authorize(ctx, rpc.Administer, rpc.Object{ID: "maintenance"}); err != nil {
		return nil, err
	}
	var window *allocator.Unavailability
	if u := q.Unavailability; u != nil {
		seconds := u.DurationSeconds
		switch {
		case u.Start == nil || !u.Start.IsValid():
			return nil, fmt.Errorf("%w: the unavailability of agent %s has no valid start", rpc.ErrInvalid, q.AgentId)
		case math.IsNaN(seconds) || seconds < 0 || seconds >= math.MaxInt64/1e9:
			return nil, fmt.Errorf("%w: the unavailability of agent %s lasts for %v seconds, which is negative or too long", rpc.ErrInvalid, q.AgentId, seconds)
		}
		window = &allocator.Unavailability{Start: u.Start.AsTime(), Duration: time.Duration(seconds * float64(time.Second))}
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.SetUnavailability{Request: r, AgentID: q.AgentId, Window: window}
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.SetUnavailabilityResponse{}, nil
}
