package mirrortest

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Maintenance is the part of a core that takes agents out of service. Machine
// "planned" is in its schedule, "fallen" is down; agent "m-1-S0" is known, "going"
// is being marked gone. Log gets what it is told to do.
type Maintenance struct {
	operatorv1.UnimplementedOperatorServer
	Log chan<- string
}

// GetMaintenance answers with the schedule.
func (m *Maintenance) GetMaintenance(context.Context, *operatorv1.GetMaintenanceRequest) (*operatorv1.GetMaintenanceResponse, error) {
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
func (m *Maintenance) SetMaintenanceSchedule(_ context.Context, q *operatorv1.SetMaintenanceScheduleRequest) (*operatorv1.SetMaintenanceScheduleResponse, error) {
	var out []string
	for _, w := range q.Windows {
		out = append(out, fmt.Sprintf("%s from %d for %v", machines(w.Machines), w.GetUnavailability().GetStart().GetSeconds(), w.GetUnavailability().GetDurationSeconds()))
	}
	m.Log <- "schedule " + strings.Join(out, "; ")
	return &operatorv1.SetMaintenanceScheduleResponse{}, nil
}

// StartMaintenance notes the machines.
func (m *Maintenance) StartMaintenance(_ context.Context, q *operatorv1.StartMaintenanceRequest) (*operatorv1.StartMaintenanceResponse, error) {
	m.Log <- "down " + machines(q.Machines)
	return &operatorv1.StartMaintenanceResponse{}, nil
}

// StopMaintenance notes the machines.
func (m *Maintenance) StopMaintenance(_ context.Context, q *operatorv1.StopMaintenanceRequest) (*operatorv1.StopMaintenanceResponse, error) {
	m.Log <- "up " + machines(q.Machines)
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
func (m *Maintenance) DrainAgent(_ context.Context, q *operatorv1.DrainAgentRequest) (*operatorv1.DrainAgentResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	m.Log <- fmt.Sprintf("drain %s %v %v %v", q.AgentId, q.MaxGraceSeconds != nil, q.GetMaxGraceSeconds(), q.MarkGone)
	return &operatorv1.DrainAgentResponse{}, nil
}

// DeactivateAgent notes the agent.
func (m *Maintenance) DeactivateAgent(_ context.Context, q *operatorv1.DeactivateAgentRequest) (*operatorv1.DeactivateAgentResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	m.Log <- "deactivate " + q.AgentId
	return &operatorv1.DeactivateAgentResponse{}, nil
}

// ReactivateAgent notes the agent.
func (m *Maintenance) ReactivateAgent(_ context.Context, q *operatorv1.ReactivateAgentRequest) (*operatorv1.ReactivateAgentResponse, error) {
	switch q.AgentId {
	case "m-1-S0":
		m.Log <- "reactivate " + q.AgentId
		return &operatorv1.ReactivateAgentResponse{}, nil
	case "none":
		return nil, status.Error(codes.NotFound, "no agent is known")
	}
	return nil, status.Error(codes.FailedPrecondition, "it is not deactivated, or is still draining")
}

// MarkAgentGone notes the agent.
func (m *Maintenance) MarkAgentGone(_ context.Context, q *operatorv1.MarkAgentGoneRequest) (*operatorv1.MarkAgentGoneResponse, error) {
	if err := known(q.AgentId); err != nil {
		return nil, err
	}
	m.Log <- "gone " + q.AgentId
	return &operatorv1.MarkAgentGoneResponse{}, nil
}
