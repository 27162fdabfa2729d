package master

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// DrainAgent takes an agent out of service and ends its tasks.
func (s *operatorService) DrainAgent(ctx context.Context, q *operatorv1.DrainAgentRequest) (*operatorv1.DrainAgentResponse, error) {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: "agent drain"}); err != nil {
		return nil, err
	}
	var grace *time.Duration
	if q.MaxGraceSeconds != nil {
		d, err := seconds(*q.MaxGraceSeconds)
		if err != nil {
			return nil, fmt.Errorf("%w: the most grace of the drain %s", rpc.ErrInvalid, err)
		}
		grace = &d
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.DrainAgent{Request: r, AgentID: q.AgentId, MaxGrace: grace, MarkGone: q.MarkGone}
	})
	return done(&operatorv1.DrainAgentResponse{}, err)
}

// DeactivateAgent has an agent not offered any more.
func (s *operatorService) DeactivateAgent(ctx context.Context, q *operatorv1.DeactivateAgentRequest) (*operatorv1.DeactivateAgentResponse, error) {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: "agent deactivate"}); err != nil {
		return nil, err
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.DeactivateAgent{Request: r, AgentID: q.AgentId} })
	return done(&operatorv1.DeactivateAgentResponse{}, err)
}

// ReactivateAgent puts an agent back into service.
func (s *operatorService) ReactivateAgent(ctx context.Context, q *operatorv1.ReactivateAgentRequest) (*operatorv1.ReactivateAgentResponse, error) {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: "agent activate"}); err != nil {
		return nil, err
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.ReactivateAgent{Request: r, AgentID: q.AgentId} })
	return done(&operatorv1.ReactivateAgentResponse{}, err)
}

// MarkAgentGone gives an agent up for good.
func (s *operatorService) MarkAgentGone(ctx context.Context, q *operatorv1.MarkAgentGoneRequest) (*operatorv1.MarkAgentGoneResponse, error) {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: "agent gone"}); err != nil {
		return nil, err
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.MarkAgentGone{Request: r, AgentID: q.AgentId} })
	return done(&operatorv1.MarkAgentGoneResponse{}, err)
}

// GetMaintenance answers from the mirror.
func (s *operatorService) GetMaintenance(ctx context.Context, _ *operatorv1.GetMaintenanceRequest) (*operatorv1.GetMaintenanceResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	schedule := s.master.mirror.maintenance()
	out := &operatorv1.GetMaintenanceResponse{Maintenance: maintenanceMessage(schedule)}
	agents := s.master.mirror.listAgents()
	for _, w := range out.Maintenance.Windows {
		for _, machine := range w.Machines {
			id := state.MachineID{Hostname: machine.Hostname, IP: machine.Ip}
			x := &operatorv1.MachineStatus{Machine: machine, Mode: "draining", Unavailability: w.Unavailability}
			if slices.Contains(schedule.Down, id) {
				x.Mode = "down"
			}
			for _, a := range agents {
				if id.Names(a.Hostname, a.IP) {
					x.Agents = append(x.Agents, agentMessage(a))
				}
			}
			out.Machines = append(out.Machines, x)
		}
	}
	return out, nil
}

// SetMaintenanceSchedule replaces the whole schedule.
func (s *operatorService) SetMaintenanceSchedule(ctx context.Context, q *operatorv1.SetMaintenanceScheduleRequest) (*operatorv1.SetMaintenanceScheduleResponse, error) {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: "maintenance schedule"}); err != nil {
		return nil, err
	}
	windows := make([]state.Window, len(q.Windows))
	for i, w := range q.Windows {
		machines, err := machineIDs(w.Machines)
		if err != nil {
			return nil, err
		}
		u := w.GetUnavailability()
		if u.GetStart() == nil || !u.Start.IsValid() {
			return nil, fmt.Errorf("%w: window %d of the schedule has no valid start", rpc.ErrInvalid, i+1)
		}
		duration, err := seconds(u.DurationSeconds)
		if err != nil {
			return nil, fmt.Errorf("%w: the duration of window %d of the schedule %s", rpc.ErrInvalid, i+1, err)
		}
		windows[i] = state.Window{Machines: machines, Start: u.Start.AsTime(), Duration: duration}
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.SetSchedule{Request: r, Windows: windows} })
	return done(&operatorv1.SetMaintenanceScheduleResponse{}, err)
}

// StartMaintenance takes machines down.
func (s *operatorService) StartMaintenance(ctx context.Context, q *operatorv1.StartMaintenanceRequest) (*operatorv1.StartMaintenanceResponse, error) {
	return done(&operatorv1.StartMaintenanceResponse{}, s.setMaintenance(ctx, "maintenance down", q.Machines, true))
}

// StopMaintenance has machines up again.
func (s *operatorService) StopMaintenance(ctx context.Context, q *operatorv1.StopMaintenanceRequest) (*operatorv1.StopMaintenanceResponse, error) {
	return done(&operatorv1.StopMaintenanceResponse{}, s.setMaintenance(ctx, "maintenance up", q.Machines, false))
}

func (s *operatorService) setMaintenance(ctx context.Context, verb string, list []*operatorv1.Machine, down bool) error {
	if err := s.master.authorize(ctx, rpc.ManageAgent, rpc.Object{ID: verb}); err != nil {
		return err
	}
	machines, err := machineIDs(list)
	if err != nil {
		return err
	}
	_, err = s.carryOut(ctx, func(r state.Request) state.Input {
		return state.SetMaintenance{Request: r, Machines: machines, Down: down}
	})
	return err
}

// done is an answer, or nothing but the error.
func done[M any](answer *M, err error) (*M, error) {
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// machineIDs reads machines, with their addresses in canonical form.
func machineIDs(list []*operatorv1.Machine) ([]state.MachineID, error) {
	out := make([]state.MachineID, len(list))
	for i, m := range list {
		out[i] = state.MachineID{Hostname: m.Hostname}
		if m.Ip == "" {
			continue
		}
		ip, err := netip.ParseAddr(m.Ip)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is not an IP address", rpc.ErrInvalid, m.Ip)
		}
		out[i].IP = ip.Unmap().String()
	}
	return out, nil
}

// seconds reads a duration, 0 or more.
func seconds(n float64) (time.Duration, error) {
	if math.IsNaN(n) || n < 0 || n >= math.MaxInt64/1e9 {
		return 0, fmt.Errorf("is %v seconds, which is negative or too long", n)
	}
	return time.Duration(n * float64(time.Second)), nil
}

func maintenanceMessage(v *state.ScheduleView) *operatorv1.Maintenance {
	out := &operatorv1.Maintenance{Down: machineMessages(v.Down)}
	for _, w := range v.Windows {
		out.Windows = append(out.Windows, &operatorv1.MaintenanceWindow{
			Machines:       machineMessages(w.Machines),
			Unavailability: &operatorv1.Unavailability{Start: timestamp(w.Start), DurationSeconds: w.Duration.Seconds()},
		})
	}
	return out
}

func machineMessages(list []state.MachineID) []*operatorv1.Machine {
	var out []*operatorv1.Machine
	for _, id := range list {
		out = append(out, &operatorv1.Machine{Hostname: id.Hostname, Ip: id.IP})
	}
	return out
}

func drainMessage(v *state.DrainView) *operatorv1.AgentDrain {
	if v == nil {
		return nil
	}
	out := &operatorv1.AgentDrain{State: string(state.AgentDraining), MarkGone: v.MarkGone, Started: timestamp(v.Started)}
	if v.Drained {
		out.State = string(state.AgentDrained)
	}
	if v.MaxGrace != nil {
		s := v.MaxGrace.Seconds()
		out.MaxGraceSeconds = &s
	}
	return out
}
