package master

import (
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// resourceMessage shows resources by name, of all kinds together: scalars as
// numbers, the rest as text.
func resourceMessage(r resource.Resources) *structpb.Struct {
	fields := make(map[string]*structpb.Value)
	var sets resource.Set
	for i := range r {
		name := r[i].Kind.Name()
		switch r[i].Kind.Type() {
		case resource.TypeScalar:
			if fields[name] == nil {
				fields[name] = structpb.NewNumberValue(r.Get(name).Float())
			}
		case resource.TypeRanges:
			if fields[name] == nil {
				fields[name] = structpb.NewStringValue(r.RangesOf(name).String())
			}
		case resource.TypeSet:
			if i > 0 && r[i-1].Kind.Name() != name {
				sets = nil
			}
			sets = sets.Union(r[i].Set)
			fields[name] = structpb.NewStringValue(sets.String())
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &structpb.Struct{Fields: fields}
}

func quantityMessage(q resource.Quantities) *structpb.Struct {
	if len(q) == 0 {
		return nil
	}
	fields := make(map[string]*structpb.Value, len(q))
	for _, x := range q {
		fields[x.Name] = structpb.NewNumberValue(x.Amount.Float())
	}
	return &structpb.Struct{Fields: fields}
}

func attributeMessage(list []*mezzov1.Attribute) *structpb.Struct {
	if len(list) == 0 {
		return nil
	}
	fields := make(map[string]*structpb.Value, len(list))
	for _, a := range list {
		switch a.GetType() {
		case mezzov1.Value_SCALAR:
			fields[a.GetName()] = structpb.NewNumberValue(a.GetScalar().GetValue())
		case mezzov1.Value_RANGES:
			ranges := make([]resource.Range, 0, len(a.GetRanges().GetRange()))
			for _, r := range a.GetRanges().GetRange() {
				ranges = append(ranges, resource.Range{Begin: r.GetBegin(), End: r.GetEnd()})
			}
			fields[a.GetName()] = structpb.NewStringValue(resource.NewRanges(ranges...).String())
		default:
			fields[a.GetName()] = structpb.NewStringValue(a.GetText().GetValue())
		}
	}
	return &structpb.Struct{Fields: fields}
}

func agentMessage(v *state.AgentView) *operatorv1.Agent {
	return &operatorv1.Agent{
		Id: v.ID, Hostname: v.Hostname, State: string(v.State), Reason: v.Reason, Version: v.Version,
		RpcAddress: v.RPCAddress, HttpAddress: v.HTTPAddress,
		Resources: resourceMessage(v.Total), Allocated: resourceMessage(v.Used), Offered: resourceMessage(v.Offered),
		Attributes: attributeMessage(v.Attributes), Tasks: uint64(v.Tasks),
		Registered: timestamp(v.Registered), Reregistered: timestamp(v.Reregistered),
		Unavailability: unavailabilityMessage(v.Unavailability), InverseOffers: inverseMessages(v.InverseOffers),
		Endpoints: linkEndpoints(v.Endpoints), Reserved: v.Total.Reserved().ToProto(),
		Deactivated: v.Deactivated, Drain: drainMessage(v.Drain),
	}
}

func linkEndpoints(list []*linkv1.Endpoint) []*operatorv1.Endpoint {
	var out []*operatorv1.Endpoint
	for _, e := range list {
		out = append(out, &operatorv1.Endpoint{Name: e.GetName(), Address: e.GetAddress()})
	}
	return out
}

func unavailabilityMessage(u *allocator.Unavailability) *operatorv1.Unavailability {
	if u == nil {
		return nil
	}
	return &operatorv1.Unavailability{Start: timestamp(u.Start), DurationSeconds: u.Duration.Seconds()}
}

func inverseMessages(list []state.InverseOfferView) []*operatorv1.InverseOffer {
	var out []*operatorv1.InverseOffer
	for _, x := range list {
		out = append(out, &operatorv1.InverseOffer{
			FrameworkId: x.FrameworkID, Status: inverseStates[x.State], Since: timestamp(x.Since), Id: x.ID,
		})
	}
	return out
}

// inverseStates are how an inverse offer stands, for operators.
var inverseStates = map[allocator.InverseOfferState]string{
	allocator.InverseOfferOutstanding: "outstanding",
	allocator.InverseOfferAccepted:    "accepted",
	allocator.InverseOfferDeclined:    "declined",
}

func frameworkMessage(v *state.FrameworkView) *operatorv1.Framework {
	info := v.Info
	out := &operatorv1.Framework{
		Id: v.ID, Name: info.GetName(), User: info.GetUser(), Principal: info.GetPrincipal(), State: string(v.State),
		Roles: v.Roles, SuppressedRoles: v.Suppressed, Allocated: quantityMessage(v.Used), Offered: quantityMessage(v.Offered),
		Tasks: uint64(v.Tasks), Offers: uint64(v.Offers), Hostname: info.GetHostname(), WebuiUrl: info.GetWebuiUrl(),
		FailoverTimeout: info.GetFailoverTimeout(),
		Registered:      timestamp(v.Registered), Reregistered: timestamp(v.Reregistered), Unregistered: timestamp(v.Unregistered),
	}
	for _, c := range info.GetCapabilities() {
		out.Capabilities = append(out.Capabilities, c.GetType().String())
	}
	return out
}

func taskMessage(v *state.TaskView) *operatorv1.Task {
	status := v.Status
	out := &operatorv1.Task{
		Id: v.TaskID, Name: v.Name, State: v.State.Enum(), Message: status.GetMessage(),
		FrameworkId: v.FrameworkID, AgentId: v.AgentID, ExecutorId: v.ExecutorID, Role: v.Role,
		Resources: resourceMessage(v.Resources),
		Launched:  timestamp(v.Launched), Started: timestamp(v.Started), Finished: timestamp(v.Finished),
		ContainerId: status.GetContainerStatus().GetContainerId().GetValue(),
	}
	if status != nil {
		out.Reason, out.Healthy = status.Reason, status.Healthy
		if status.Source != nil {
			out.Source = status.GetSource().String()
		}
	}
	return out
}

func offerMessage(v *state.OfferView) *operatorv1.Offer {
	return &operatorv1.Offer{
		Id: v.ID, FrameworkId: v.FrameworkID, AgentId: v.AgentID, Hostname: v.Hostname, Role: v.Role,
		Resources: resourceMessage(v.Resources), Created: timestamp(v.Created),
	}
}

func roleMessage(v *state.RoleView) *operatorv1.Role {
	out := &operatorv1.Role{
		Name: v.Name, Weight: float64(v.Weight) / 1000, Guarantee: quantityMessage(v.Guarantee), Limit: quantityMessage(v.Limit),
		Allocated: quantityMessage(v.Used), Offered: quantityMessage(v.Offered), Frameworks: v.Frameworks, Consumed: quantityMessage(v.Consumed),
	}
	switch {
	case v.WeightSet:
		out.WeightSource = byOperator
	case v.WeightConfigured:
		out.WeightSource = byConfiguration
	}
	switch {
	case v.QuotaSet:
		out.QuotaSource = byOperator
	case len(v.Guarantee) > 0 || v.Limit != nil:
		out.QuotaSource = byConfiguration
	}
	return out
}

// Where a role's settings come from.
const (
	byOperator      = "operator"
	byConfiguration = "configuration"
)

// share fills in the role's greatest share of what there is.
func share(out *operatorv1.Role, v *state.RoleView, total resource.Quantities) {
	out.DominantShare, out.DominantResource = dominantShare(v, total)
}

func dominantShare(v *state.RoleView, total resource.Quantities) (share float64, of string) {
	for _, q := range v.Used.Add(v.Offered) {
		if all := total.Get(q.Name); all > 0 {
			if s := float64(q.Amount) / float64(all); s > share {
				share, of = s, q.Name
			}
		}
	}
	return share, of
}
