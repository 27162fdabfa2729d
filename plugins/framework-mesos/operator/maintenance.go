package operator

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/allocator"
	maintenancev1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/maintenance"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// agentOrder carries out a call that takes an agent out of service, or puts it
// back.
func (h *Handler) agentOrder(ctx context.Context, call *masterv1.Call) *transport.Error {
	switch call.GetType() {
	case masterv1.Call_DRAIN_AGENT:
		x := call.GetDrainAgent()
		order := &operatorv1.DrainAgentRequest{AgentId: x.GetAgentId().GetValue(), MarkGone: x.GetMarkGone()}
		if x.MaxGracePeriod != nil {
			order.MaxGraceSeconds = proto.Float64(x.GetMaxGracePeriod().AsDuration().Seconds())
		}
		_, err := h.options.Operator.DrainAgent(ctx, order)
		switch status.Code(err) {
		case codes.NotFound:
			return transport.Failed(http.StatusBadRequest, "Unknown agent")
		case codes.FailedPrecondition, codes.Aborted:
			return transport.Failed(http.StatusConflict, status.Convert(err).Message())
		}
		return failed(err)
	case masterv1.Call_DEACTIVATE_AGENT:
		_, err := h.options.Operator.DeactivateAgent(ctx, &operatorv1.DeactivateAgentRequest{AgentId: call.GetDeactivateAgent().GetAgentId().GetValue()})
		if status.Code(err) == codes.NotFound {
			return transport.Failed(http.StatusBadRequest, "Unknown agent")
		}
		return failed(err)
	case masterv1.Call_REACTIVATE_AGENT:
		return h.reactivate(ctx, call.GetReactivateAgent().GetAgentId().GetValue())
	}
	id := call.GetMarkAgentGone().GetAgentId().GetValue()
	_, err := h.options.Operator.MarkAgentGone(ctx, &operatorv1.MarkAgentGoneRequest{AgentId: id})
	if status.Code(err) == codes.NotFound {
		return transport.Failed(http.StatusNotFound, "Agent '"+id+"' not found")
	}
	return failed(err)
}

func (h *Handler) reactivate(ctx context.Context, id string) *transport.Error {
	_, err := h.options.Operator.ReactivateAgent(ctx, &operatorv1.ReactivateAgentRequest{AgentId: id})
	switch status.Code(err) {
	case codes.NotFound:
	case codes.FailedPrecondition, codes.Aborted:
		now, err := h.options.Mirror.Read(ctx)
		if err != nil {
			return ReadFailed(err)
		}
		if now.Agent(id).GetDrain().GetState() == mirror.Draining {
			return transport.Failed(http.StatusBadRequest, "Agent is still in the DRAINING state")
		}
	default:
		return failed(err)
	}
	return transport.Failed(http.StatusBadRequest, "Agent is not deactivated")
}

// Schedule is the maintenance schedule.
func (h *Handler) Schedule(ctx context.Context) (*maintenancev1.Schedule, *transport.Error) {
	now, err := h.options.Operator.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
	if err != nil {
		return nil, ReadFailed(err)
	}
	out := &maintenancev1.Schedule{}
	for _, w := range now.GetMaintenance().GetWindows() {
		x := &maintenancev1.Window{Unavailability: mirror.Unavailability(w.GetUnavailability())}
		for _, m := range w.GetMachines() {
			x.MachineIds = append(x.MachineIds, machineID(m))
		}
		out.Windows = append(out.Windows, x)
	}
	return out, nil
}

// ClusterStatus is how the machines of the schedule stand, and what frameworks
// have answered to inverse offers.
func (h *Handler) ClusterStatus(ctx context.Context) (*maintenancev1.ClusterStatus, *transport.Error) {
	now, err := h.options.Operator.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
	if err != nil {
		return nil, ReadFailed(err)
	}
	out := &maintenancev1.ClusterStatus{}
	for _, m := range now.GetMachines() {
		if m.GetMode() == modeDown {
			out.DownMachines = append(out.DownMachines, machineID(m.GetMachine()))
			continue
		}
		x := &maintenancev1.ClusterStatus_DrainingMachine{Id: machineID(m.GetMachine())}
		for _, a := range m.GetAgents() {
			for _, o := range a.GetInverseOffers() {
				if s, answered := answers[o.GetStatus()]; answered {
					x.Statuses = append(x.Statuses, &allocatorv1.InverseOfferStatus{
						Status: s.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String(o.GetFrameworkId())}, Timestamp: mirror.TimeInfo(o.GetSince()),
					})
				}
			}
		}
		out.DrainingMachines = append(out.DrainingMachines, x)
	}
	return out, nil
}

const modeDown = "down"

var answers = map[string]allocatorv1.InverseOfferStatus_Status{
	"accepted": allocatorv1.InverseOfferStatus_ACCEPT, "declined": allocatorv1.InverseOfferStatus_DECLINE,
}

func machineID(m *operatorv1.Machine) *mezzov1.MachineID {
	out := &mezzov1.MachineID{}
	if m.GetHostname() != "" {
		out.Hostname = proto.String(m.GetHostname())
	}
	if m.GetIp() != "" {
		out.Ip = proto.String(m.GetIp())
	}
	return out
}

// machine is what a machine is known by.
type machine struct{ hostname, ip string }

func machineOf(id *mezzov1.MachineID) machine {
	return machine{strings.ToLower(id.GetHostname()), id.GetIp()}
}

// text is a machine in JSON, as messages name it.
func (m machine) text() string {
	text, err := wirejson.NewEncoder().Marshal(machineID(&operatorv1.Machine{Hostname: m.hostname, Ip: m.ip}))
	if err != nil {
		return m.hostname + m.ip
	}
	return string(text)
}

// checkMachine says what is wrong with a machine, or that it was named before;
// empty: nothing is.
func checkMachine(id *mezzov1.MachineID, seen map[machine]bool) string {
	m := machineOf(id)
	if m == (machine{}) {
		return "Both 'hostname' and 'ip' for a machine are empty"
	}
	if m.ip != "" {
		if ip, err := netip.ParseAddr(m.ip); err != nil || !ip.Unmap().Is4() {
			return "Failed to parse IP '" + m.ip + "'"
		}
	}
	if seen[m] {
		return "Machine '" + m.text() + "' appears more than once in the schedule"
	}
	seen[m] = true
	return ""
}

// UpdateSchedule replaces the maintenance schedule.
func (h *Handler) UpdateSchedule(ctx context.Context, s *maintenancev1.Schedule) *transport.Error {
	order := &operatorv1.SetMaintenanceScheduleRequest{}
	seen := map[machine]bool{}
	refuse := func(text string) *transport.Error { return transport.Failed(http.StatusBadRequest, text) }
	for _, w := range s.GetWindows() {
		u := w.GetUnavailability()
		switch {
		case len(w.GetMachineIds()) == 0:
			return refuse("List of machines in the maintenance window is empty")
		case u.GetDuration().GetNanoseconds() < 0:
			return refuse("Unavailability 'duration' is negative")
		}
		x := &operatorv1.MaintenanceWindow{Unavailability: &operatorv1.Unavailability{
			Start: timeOf(u.GetStart()), DurationSeconds: float64(u.GetDuration().GetNanoseconds()) / 1e9,
		}}
		for _, id := range w.GetMachineIds() {
			if why := checkMachine(id, seen); why != "" {
				return refuse(why)
			}
			x.Machines = append(x.Machines, &operatorv1.Machine{Hostname: id.GetHostname(), Ip: id.GetIp()})
		}
		order.Windows = append(order.Windows, x)
	}
	now, err := h.options.Operator.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
	if err != nil {
		return ReadFailed(err)
	}
	for _, down := range now.GetMaintenance().GetDown() {
		if m := machineOf(machineID(down)); !seen[m] {
			return refuse("Machine '" + m.text() + "' is deactivated and cannot be removed from the schedule")
		}
	}
	_, err = h.options.Operator.SetMaintenanceSchedule(ctx, order)
	return failed(err)
}

// SetMachines takes machines down, or up again.
func (h *Handler) SetMachines(ctx context.Context, list []*mezzov1.MachineID, down bool) *transport.Error {
	refuse := func(format string, args ...any) *transport.Error {
		return transport.Failed(http.StatusBadRequest, fmt.Sprintf(format, args...))
	}
	if len(list) == 0 {
		return refuse("List of machines is empty")
	}
	seen := map[machine]bool{}
	for _, id := range list {
		if why := checkMachine(id, seen); why != "" {
			return refuse("%s", why)
		}
	}
	now, err := h.options.Operator.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
	if err != nil {
		return ReadFailed(err)
	}
	var machines []*operatorv1.Machine
	for _, id := range list {
		m := machineOf(id)
		i := slices.IndexFunc(now.GetMachines(), func(x *operatorv1.MachineStatus) bool { return machineOf(machineID(x.GetMachine())) == m })
		switch {
		case i < 0:
			return refuse("Machine '%s' is not part of a maintenance schedule", m.text())
		case down && now.GetMachines()[i].GetMode() == modeDown:
			return refuse("Machine '%s' is not in DRAINING mode and cannot be brought down", m.text())
		case !down && now.GetMachines()[i].GetMode() != modeDown:
			return refuse("Machine '%s' is not in DOWN mode and cannot be brought up", m.text())
		}
		machines = append(machines, &operatorv1.Machine{Hostname: m.hostname, Ip: m.ip})
	}
	if down {
		_, err = h.options.Operator.StartMaintenance(ctx, &operatorv1.StartMaintenanceRequest{Machines: machines})
	} else {
		_, err = h.options.Operator.StopMaintenance(ctx, &operatorv1.StopMaintenanceRequest{Machines: machines})
	}
	return failed(err)
}

// timeOf is a time of Mesos; one that is not set is that of the beginning.
func timeOf(t *mezzov1.TimeInfo) *timestamppb.Timestamp {
	n := t.GetNanoseconds()
	return &timestamppb.Timestamp{Seconds: n / 1e9, Nanos: int32(n % 1e9)}
}
