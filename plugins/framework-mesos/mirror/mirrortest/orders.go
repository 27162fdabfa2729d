package mirrortest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Orders is the part of a core that carries out orders. Machine "planned" is in
// its schedule, "fallen" is down; agent "m-1-S0" is known, "going" is being marked
// gone, and nothing can be reserved on "busy"; framework "m-1-0000" is known; role
// "refused" uses more than any quota, and "none" has no quota.
type Orders struct {
	operatorv1.UnimplementedOperatorServer
	Log chan string // what it was told to do
}

// NewOrders has been told nothing yet.
func NewOrders() *Orders { return &Orders{Log: make(chan string, 100)} }

// GetMaintenance answers with the schedule.
func (o *Orders) GetMaintenance(context.Context, *operatorv1.GetMaintenanceRequest) (*operatorv1.GetMaintenanceResponse, error) {
	planned, fallen := &operatorv1.Machine{Hostname: "planned"}, &operatorv1.Machine{Hostname: "fallen", Ip: "10.0.0.9"}
	window := &operatorv1.Unavailability{Start: At(100), DurationSeconds: 3600}
	asked := &operatorv1.Agent{Id: "m-1-S0", InverseOffers: []*operatorv1.InverseOffer{
		{FrameworkId: "m-1-0000", Status: "accepted", Since: At(60)}, {FrameworkId: "m-1-0001", Status: "outstanding", Since: At(61)},
	}}
	return &operatorv1.GetMaintenanceResponse{
		Maintenance: &operatorv1.Maintenance{
			Windows: []*operatorv1.MaintenanceWindow{{Machines: []*operatorv1.Machine{planned, fallen}, Unavailability: window}}, Down: []*operatorv1.Machine{fallen},
		},
		Machines: []*operatorv1.MachineStatus{
			{Machine: planned, Mode: "draining", Unavailability: window, Agents: []*operatorv1.Agent{asked}},
			{Machine: fallen, Mode: "down", Unavailability: window},
		},
	}, nil
}

// SetMaintenanceSchedule notes the schedule.
func (o *Orders) SetMaintenanceSchedule(_ context.Context, q *operatorv1.SetMaintenanceScheduleRequest) (*operatorv1.SetMaintenanceScheduleResponse, error) {
	var out []string
	for _, w := range q.Windows {
		out = append(out, fmt.Sprintf("%s from %d for %v", machines(w.Machines), w.GetUnavailability().GetStart().GetSeconds(), w.GetUnavailability().GetDurationSeconds()))
	}
	o.Log <- "schedule " + strings.Join(out, "; ")
	return &operatorv1.SetMaintenanceScheduleResponse{}, nil
}

// StartMaintenance notes the machines.
func (o *Orders) StartMaintenance(_ context.Context, q *operatorv1.StartMaintenanceRequest) (*operatorv1.StartMaintenanceResponse, error) {
	o.Log <- "down " + machines(q.Machines)
	return &operatorv1.StartMaintenanceResponse{}, nil
}

// StopMaintenance notes the machines.
func (o *Orders) StopMaintenance(_ context.Context, q *operatorv1.StopMaintenanceRequest) (*operatorv1.StopMaintenanceResponse, error) {
	o.Log <- "up " + machines(q.Machines)
	return &operatorv1.StopMaintenanceResponse{}, nil
}

func machines(list []*operatorv1.Machine) string {
	var out []string
	for _, x := range list {
		out = append(out, x.Hostname+"@"+x.Ip)
	}
	return strings.Join(out, ",")
}

// known is the error of an order that is about an agent.
func known(id string) error {
	switch id {
	case "m-1-S0":
		return nil
	case "going":
		return status.Error(codes.FailedPrecondition, "agent going is being marked gone")
	}
	return status.Error(codes.NotFound, "no agent is known")
}

// DrainAgent notes the agent.
func (o *Orders) DrainAgent(_ context.Context, q *operatorv1.DrainAgentRequest) (*operatorv1.DrainAgentResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	o.Log <- fmt.Sprintf("drain %s %v %v %v", q.AgentId, q.MaxGraceSeconds != nil, q.GetMaxGraceSeconds(), q.MarkGone)
	return &operatorv1.DrainAgentResponse{}, nil
}

// DeactivateAgent notes the agent.
func (o *Orders) DeactivateAgent(_ context.Context, q *operatorv1.DeactivateAgentRequest) (*operatorv1.DeactivateAgentResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	o.Log <- "deactivate " + q.AgentId
	return &operatorv1.DeactivateAgentResponse{}, nil
}

// ReactivateAgent notes the agent.
func (o *Orders) ReactivateAgent(_ context.Context, q *operatorv1.ReactivateAgentRequest) (*operatorv1.ReactivateAgentResponse, error) {
	switch q.AgentId {
	case "m-1-S0":
		o.Log <- "reactivate " + q.AgentId
		return &operatorv1.ReactivateAgentResponse{}, nil
	case "none":
		return nil, status.Error(codes.NotFound, "no agent is known")
	}
	return nil, status.Error(codes.FailedPrecondition, "it is not deactivated, or is still draining")
}

// MarkAgentGone notes the agent.
func (o *Orders) MarkAgentGone(_ context.Context, q *operatorv1.MarkAgentGoneRequest) (*operatorv1.MarkAgentGoneResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	o.Log <- "gone " + q.AgentId
	return &operatorv1.MarkAgentGoneResponse{}, nil
}

// Teardown notes the framework.
func (o *Orders) Teardown(_ context.Context, q *operatorv1.TeardownRequest) (*operatorv1.TeardownResponse, error) {
	if q.FrameworkId != "m-1-0000" {
		return nil, status.Error(codes.NotFound, "no framework")
	}
	o.Log <- "teardown " + q.FrameworkId
	return &operatorv1.TeardownResponse{}, nil
}

// SetWeights notes the roles.
func (o *Orders) SetWeights(_ context.Context, q *operatorv1.SetWeightsRequest) (*operatorv1.SetWeightsResponse, error) {
	for _, w := range q.Weights {
		o.Log <- fmt.Sprintf("weight %s %v", w.Role, w.Weight)
	}
	return &operatorv1.SetWeightsResponse{}, nil
}

// SetQuota notes the role.
func (o *Orders) SetQuota(_ context.Context, q *operatorv1.SetQuotaRequest) (*operatorv1.SetQuotaResponse, error) {
	if q.Role == "refused" {
		return nil, status.Error(codes.FailedPrecondition, "the role uses more")
	}
	o.Log <- fmt.Sprintf("quota %s %v %v", q.Role, q.Guarantee.AsMap(), q.Limit.AsMap())
	return &operatorv1.SetQuotaResponse{}, nil
}

// RemoveQuota notes the role.
func (o *Orders) RemoveQuota(_ context.Context, q *operatorv1.RemoveQuotaRequest) (*operatorv1.RemoveQuotaResponse, error) {
	if q.Role == "none" {
		return nil, status.Error(codes.NotFound, "nothing was set")
	}
	o.Log <- "no quota " + q.Role
	return &operatorv1.RemoveQuotaResponse{}, nil
}

// ApplyOperation notes the agent, and the role of what is reserved.
func (o *Orders) ApplyOperation(_ context.Context, q *operatorv1.ApplyOperationRequest) (*operatorv1.ApplyOperationResponse, error) {
	switch q.AgentId {
	case "none":
		return nil, status.Error(codes.NotFound, "no agent")
	case "busy":
		return nil, status.Error(codes.FailedPrecondition, "in use")
	}
	change := slices.Concat(q.Operation.GetReserve().GetResources(), q.Operation.GetUnreserve().GetResources(), q.Operation.GetCreate().GetVolumes(), q.Operation.GetDestroy().GetVolumes())
	role := ""
	if len(change) == 1 && len(change[0].Reservations) == 1 {
		role = change[0].Reservations[0].GetRole()
	}
	o.Log <- fmt.Sprintf("%s %s %s", q.Operation.GetType(), q.AgentId, role)
	return &operatorv1.ApplyOperationResponse{}, nil
}
