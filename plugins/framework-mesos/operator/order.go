package operator

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	quotav1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/quota"
)

// order carries out a call that changes something.
func (h *Handler) order(q *request) *transport.Error {
	ctx := transport.CallContext(q.r)
	var failure *transport.Error
	switch q.call.GetType() {
	case masterv1.Call_SET_LOGGING_LEVEL:
		x := q.call.GetSetLoggingLevel()
		failure = h.options.Verbosity.Set(ctx, x.GetLevel(), x.GetDuration().GetNanoseconds())
	case masterv1.Call_UPDATE_WEIGHTS:
		failure = h.UpdateWeights(ctx, q.call.GetUpdateWeights().GetWeightInfos())
	case masterv1.Call_UPDATE_QUOTA:
		failure = h.UpdateQuota(ctx, q.call.GetUpdateQuota().GetQuotaConfigs(), q.call.GetUpdateQuota().GetForce())
	case masterv1.Call_SET_QUOTA:
		failure = h.SetQuota(ctx, q.call.GetSetQuota().GetQuotaRequest())
	case masterv1.Call_REMOVE_QUOTA:
		failure = h.RemoveQuota(ctx, q.call.GetRemoveQuota().GetRole())
	case masterv1.Call_TEARDOWN:
		failure = h.Teardown(ctx, q.call.GetTeardown().GetFrameworkId().GetValue())
	case masterv1.Call_UPDATE_MAINTENANCE_SCHEDULE:
		failure = h.UpdateSchedule(ctx, q.call.GetUpdateMaintenanceSchedule().GetSchedule())
	case masterv1.Call_START_MAINTENANCE:
		failure = h.SetMachines(ctx, q.call.GetStartMaintenance().GetMachines(), true)
	case masterv1.Call_STOP_MAINTENANCE:
		failure = h.SetMachines(ctx, q.call.GetStopMaintenance().GetMachines(), false)
	default:
		failure = h.agentOrder(ctx, q.call)
	}
	if failure != nil {
		return failure
	}
	return q.done()
}

// Teardown ends a framework.
func (h *Handler) Teardown(ctx context.Context, id string) *transport.Error {
	_, err := h.options.Operator.Teardown(ctx, &operatorv1.TeardownRequest{FrameworkId: id})
	if status.Code(err) == codes.NotFound {
		return transport.Failed(http.StatusBadRequest, "No framework found with specified ID")
	}
	return failed(err)
}

func failed(err error) *transport.Error {
	if err == nil {
		return nil
	}
	return orderFailed(err)
}

// UpdateWeights sets the weights of roles: all of them or none.
func (h *Handler) UpdateWeights(ctx context.Context, list []*mezzov1.WeightInfo) *transport.Error {
	order := &operatorv1.SetWeightsRequest{}
	for _, x := range list {
		if x.GetRole() == "" {
			return transport.Failed(http.StatusBadRequest, "Invalid weight: 'role' is not set")
		}
		if !(x.GetWeight() > 0) || math.IsInf(x.GetWeight(), 0) {
			return transport.Failed(http.StatusBadRequest, fmt.Sprintf("Invalid weight '%v' for role '%s': Weights must be positive", x.GetWeight(), x.GetRole()))
		}
		order.Weights = append(order.Weights, &operatorv1.RoleWeight{Role: x.GetRole(), Weight: x.GetWeight()})
	}
	if len(order.Weights) == 0 {
		return nil
	}
	_, err := h.options.Operator.SetWeights(ctx, order)
	return failed(err)
}

// UpdateQuota replaces the quota of roles. If one of them is refused, those before
// it are put back.
func (h *Handler) UpdateQuota(ctx context.Context, configs []*quotav1.QuotaConfig, force bool) *transport.Error {
	h.quota.Lock()
	defer h.quota.Unlock()
	now, err := h.options.Mirror.Read(ctx)
	if err != nil {
		return ReadFailed(err)
	}
	wanted := map[string]amounts{}
	for _, c := range configs {
		for _, list := range []amounts{c.GetGuarantees(), c.GetLimits()} {
			for name, v := range list {
				if !(v.GetValue() >= 0) || math.IsInf(v.GetValue(), 0) {
					return transport.Failed(http.StatusBadRequest, fmt.Sprintf("Invalid QuotaConfig: Invalid resource quantity for '%s': %v", name, v.GetValue()))
				}
			}
		}
		wanted[c.GetRole()] = c.GetGuarantees()
	}
	if short := overcommitted(now, wanted); short != "" && !force {
		return transport.Failed(http.StatusBadRequest, "Invalid QuotaConfig: "+short+" (use 'force' flag to bypass this check)")
	}
	for i, c := range configs {
		_, err := h.options.Operator.SetQuota(ctx, &operatorv1.SetQuotaRequest{
			Role: c.GetRole(), Guarantee: structOf(c.GetGuarantees()), Limit: structOf(c.GetLimits()), Force: force,
		})
		if err != nil {
			h.putBack(ctx, now, configs[:i])
			refused := orderFailed(err)
			refused.Text = "Invalid QuotaConfig: " + refused.Text
			return refused
		}
	}
	return nil
}

type amounts = map[string]*mezzov1.Value_Scalar

// structOf is amounts as the core takes them; none stands for none, not for what
// there was.
func structOf(list amounts) *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, v := range list {
		out.Fields[name] = structpb.NewNumberValue(v.GetValue())
	}
	return out
}

// putBack undoes what was set, as good as it can be undone.
func (h *Handler) putBack(ctx context.Context, before *mirror.Snapshot, configs []*quotav1.QuotaConfig) {
	ctx = context.WithoutCancel(ctx)
	for _, c := range configs {
		var err error
		if old := roleOf(before, c.GetRole()); old.GetQuotaSource() == byOperator {
			guarantee, limit := old.GetGuarantee(), old.GetLimit()
			if guarantee == nil {
				guarantee = &structpb.Struct{}
			}
			if limit == nil {
				limit = &structpb.Struct{}
			}
			_, err = h.options.Operator.SetQuota(ctx, &operatorv1.SetQuotaRequest{Role: c.GetRole(), Guarantee: guarantee, Limit: limit, Force: true})
		} else {
			_, err = h.options.Operator.RemoveQuota(ctx, &operatorv1.RemoveQuotaRequest{Role: c.GetRole()})
		}
		if err != nil {
			h.logger.Error("a quota that was set together with one that is not allowed stays", "role", c.GetRole(), "error", err)
		}
	}
}

const byOperator = "operator"

func roleOf(s *mirror.Snapshot, name string) *operatorv1.Role {
	for _, r := range s.Roles {
		if r.GetName() == name {
			return r
		}
	}
	return nil
}

// overcommitted says what all guarantees together, with those wanted in place of
// what roles have, are more than the cluster has of; empty: nothing.
func overcommitted(s *mirror.Snapshot, wanted map[string]amounts) string {
	sum := map[string]float64{}
	grown := map[string]bool{}
	for _, r := range s.Roles {
		if _, replaced := wanted[r.GetName()]; replaced {
			continue
		}
		for name, v := range r.GetGuarantee().GetFields() {
			sum[name] += v.GetNumberValue()
		}
	}
	for _, list := range wanted {
		for name, v := range list {
			sum[name] += v.GetValue()
			grown[name] = grown[name] || v.GetValue() > 0
		}
	}
	for _, name := range slices.Sorted(maps.Keys(grown)) {
		has := s.Master.GetTotal().GetFields()[name].GetNumberValue()
		if grown[name] && sum[name] > has {
			return fmt.Sprintf("total guarantees of '%s' (%v) exceed the cluster's capacity (%v)", name, sum[name], has)
		}
	}
	return ""
}

// SetQuota is the older form: a guarantee that is a limit, too, for a role that has
// none.
func (h *Handler) SetQuota(ctx context.Context, request *quotav1.QuotaRequest) *transport.Error {
	h.quota.Lock()
	defer h.quota.Unlock()
	role := request.GetRole()
	refuse := func(code int, format string, args ...any) *transport.Error {
		return transport.Failed(code, fmt.Sprintf("Failed to validate set quota request: "+format, args...))
	}
	list := amounts{}
	for _, r := range request.GetGuarantee() {
		switch {
		case r.GetType() != mezzov1.Value_SCALAR:
			return refuse(http.StatusBadRequest, "Resource '%s' is not a scalar", r.GetName())
		case r.Reservation != nil || len(r.GetReservations()) > 0 || r.GetDisk() != nil || r.GetRevocable() != nil:
			return refuse(http.StatusBadRequest, "Resource '%s' must be neither reserved, nor a volume, nor revocable", r.GetName())
		case list[r.GetName()] != nil:
			return refuse(http.StatusBadRequest, "Resource '%s' is there twice", r.GetName())
		case !(r.GetScalar().GetValue() >= 0):
			return refuse(http.StatusBadRequest, "Resource '%s' has a negative amount", r.GetName())
		}
		list[r.GetName()] = r.GetScalar()
	}
	if role == "" || len(list) == 0 {
		return refuse(http.StatusBadRequest, "'role' and 'guarantee' are needed")
	}
	now, err := h.options.Mirror.Read(ctx)
	if err != nil {
		return ReadFailed(err)
	}
	if hasQuota(roleOf(now, role)) {
		return refuse(http.StatusBadRequest, "Role '%s' already has quota", role)
	}
	if short := overcommitted(now, map[string]amounts{role: list}); short != "" && !request.GetForce() {
		return transport.Failed(http.StatusConflict, "Not enough available cluster capacity to reasonably satisfy quota request; the force flag can be used to override this check: "+short)
	}
	_, err = h.options.Operator.SetQuota(ctx, &operatorv1.SetQuotaRequest{
		Role: role, Guarantee: structOf(list), Limit: structOf(list), Force: request.GetForce(),
	})
	return failed(err)
}

// RemoveQuota is the older form.
func (h *Handler) RemoveQuota(ctx context.Context, role string) *transport.Error {
	_, err := h.options.Operator.RemoveQuota(ctx, &operatorv1.RemoveQuotaRequest{Role: role})
	if status.Code(err) == codes.NotFound {
		return transport.Failed(http.StatusBadRequest, fmt.Sprintf("Failed to remove quota for role '%s': Role '%s' has no quota set", role, role))
	}
	return failed(err)
}

// hasQuota is whether somebody has said something of a role's quota.
func hasQuota(r *operatorv1.Role) bool { return r.GetQuotaSource() != "" }
