package master

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// SetQuota sets a role's guarantee, limit or both.
func (s *operatorService) SetQuota(ctx context.Context, q *operatorv1.SetQuotaRequest) (*operatorv1.SetQuotaResponse, error) {
	if err := s.master.authorize(ctx, rpc.UpdateQuota, rpc.Object{ID: "quota set", Role: q.Role}); err != nil {
		return nil, err
	}
	guarantee, err := quantities("guarantee", q.Guarantee)
	if err != nil {
		return nil, err
	}
	limit, err := quantities("limit", q.Limit)
	if err != nil {
		return nil, err
	}
	if guarantee == nil && limit == nil {
		return nil, fmt.Errorf("%w: neither a guarantee nor a limit is given for role %q", rpc.ErrInvalid, q.Role)
	}
	reply, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.SetQuota{Request: r, Role: q.Role, Guarantee: guarantee, Limit: limit, Force: q.Force}
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.SetQuotaResponse{Warnings: reply.Warnings}, nil
}

// GetQuota answers from the mirror.
func (s *operatorService) GetQuota(ctx context.Context, q *operatorv1.GetQuotaRequest) (*operatorv1.GetQuotaResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	out := &operatorv1.GetQuotaResponse{}
	for _, v := range s.master.mirror.listRoles() {
		if q.Role != "" && q.Role != v.Name || len(v.Guarantee) == 0 && v.Limit == nil {
			continue
		}
		role := roleMessage(v)
		out.Quotas = append(out.Quotas, &operatorv1.Quota{
			Role: role.Name, Guarantee: role.Guarantee, Limit: role.Limit, Consumed: role.Consumed, Source: role.QuotaSource,
		})
	}
	if q.Role != "" && len(out.Quotas) == 0 {
		return nil, fmt.Errorf("%w: role %q has no quota", rpc.ErrNotFound, q.Role)
	}
	return out, nil
}

// RemoveQuota forgets what operators have set of a role's quota.
func (s *operatorService) RemoveQuota(ctx context.Context, q *operatorv1.RemoveQuotaRequest) (*operatorv1.RemoveQuotaResponse, error) {
	if err := s.master.authorize(ctx, rpc.UpdateQuota, rpc.Object{ID: "quota remove", Role: q.Role}); err != nil {
		return nil, err
	}
	reply, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.RemoveQuota{Request: r, Role: q.Role} })
	if err != nil {
		return nil, err
	}
	return &operatorv1.RemoveQuotaResponse{Warnings: reply.Warnings}, nil
}

// SetWeights sets the weights of roles.
func (s *operatorService) SetWeights(ctx context.Context, q *operatorv1.SetWeightsRequest) (*operatorv1.SetWeightsResponse, error) {
	weights := make([]state.RoleWeight, len(q.Weights))
	for i, w := range q.Weights {
		if err := s.master.authorize(ctx, rpc.UpdateWeight, rpc.Object{ID: "weights set", Role: w.Role}); err != nil {
			return nil, err
		}
		if math.IsNaN(w.Weight) || w.Weight < 0 || w.Weight > 0 && w.Weight < 0.001 || w.Weight > 1e6 {
			return nil, fmt.Errorf("%w: role %q: the weight %v is not from 0.001 to 1000000", rpc.ErrInvalid, w.Role, w.Weight)
		}
		weights[i] = state.RoleWeight{Role: w.Role, Weight: thousandths(w.Weight)}
	}
	if _, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.SetWeights{Request: r, Weights: weights} }); err != nil {
		return nil, err
	}
	return &operatorv1.SetWeightsResponse{}, nil
}

// quantities reads the amounts of a quota, zeros included; nil when unset.
func quantities(what string, in *structpb.Struct) (*resource.Quantities, error) {
	if in == nil {
		return nil, nil
	}
	out := resource.Quantities{}
	for name, value := range in.Fields {
		v, ok := value.GetKind().(*structpb.Value_NumberValue)
		if !ok || math.IsNaN(v.NumberValue) || v.NumberValue < 0 || v.NumberValue > resource.MaxScalar.Float() {
			return nil, fmt.Errorf("%w: the %s of %q is not an amount: a number, 0 or more", rpc.ErrInvalid, what, name)
		}
		amount := resource.ScalarFromFloat(v.NumberValue)
		if _, err := resource.Parse(name + ":" + amount.String()); err != nil {
			return nil, fmt.Errorf("%w: in the %s: %s", rpc.ErrInvalid, what, err)
		}
		out = append(out, resource.Quantity{Name: name, Amount: amount})
	}
	slices.SortFunc(out, func(a, b resource.Quantity) int { return strings.Compare(a.Name, b.Name) })
	return &out, nil
}
