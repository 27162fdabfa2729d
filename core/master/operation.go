package master

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/operation"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// operationActions are what an authorizer is asked about.
var operationActions = map[mezzov1.Offer_Operation_Type]rpc.Action{
	mezzov1.Offer_Operation_RESERVE:       rpc.ReserveResources,
	mezzov1.Offer_Operation_UNRESERVE:     rpc.UnreserveResources,
	mezzov1.Offer_Operation_CREATE:        rpc.CreateVolume,
	mezzov1.Offer_Operation_DESTROY:       rpc.DestroyVolume,
	mezzov1.Offer_Operation_GROW_VOLUME:   rpc.ResizeVolume,
	mezzov1.Offer_Operation_SHRINK_VOLUME: rpc.ResizeVolume,
}

// authorizeOperation asks whether the caller may do an operation, for every role
// that it concerns. What is not an operation on resources, or makes no sense, is
// for others to judge.
func (m *Master) authorizeOperation(ctx context.Context, framework string, op *mezzov1.Offer_Operation) error {
	action, known := operationActions[op.GetType()]
	if !known {
		return nil
	}
	change, err := operation.Of(op)
	if err != nil {
		return nil
	}
	asked := map[rpc.Object]bool{}
	owners := operationOwners(op.GetType(), change)
	for _, r := range slices.Concat(change.From, change.To) {
		if !r.Kind.IsReserved() {
			continue
		}
		object := rpc.Object{ID: cmp.Or(r.Kind.PersistenceID(), r.Kind.Name()), FrameworkID: framework, Role: r.Kind.Role()}
		for _, object.Owner = range owners {
			if asked[object] {
				continue
			}
			asked[object] = true
			if err := m.authorize(ctx, action, object); err != nil {
				return err
			}
		}
	}
	return nil
}

// operationOwners are the principals whose reservations or volumes an operation
// changes, one at least: empty where it makes one, or its maker is not known.
func operationOwners(kind mezzov1.Offer_Operation_Type, change operation.Change) []string {
	var owners []string
	for _, r := range change.From {
		switch stack := r.Kind.Reservations(); kind {
		case mezzov1.Offer_Operation_UNRESERVE:
			if len(stack) > 0 {
				owners = append(owners, stack[len(stack)-1].Principal)
			}
		case mezzov1.Offer_Operation_DESTROY, mezzov1.Offer_Operation_GROW_VOLUME, mezzov1.Offer_Operation_SHRINK_VOLUME:
			if r.Kind.PersistenceID() != "" {
				owners = append(owners, r.Kind.Disk().GetPersistence().GetPrincipal())
			}
		}
	}
	if len(owners) == 0 {
		return []string{""}
	}
	return slices.Compact(slices.Sorted(slices.Values(owners)))
}

// deniedOperations asks for the operations of an ACCEPT, and gives why those are
// not allowed that are not, by their places.
func (s *schedulerService) deniedOperations(ctx context.Context, call *schedulerv1.Call) map[int]string {
	if call.GetType() != schedulerv1.Call_ACCEPT {
		return nil
	}
	var denied map[int]string
	for i, op := range call.GetAccept().GetOperations() {
		if err := s.master.authorizeOperation(ctx, call.GetFrameworkId().GetValue(), op); err != nil {
			if denied == nil {
				denied = map[int]string{}
			}
			denied[i] = fmt.Sprintf("Not authorized to perform %s: %s", op.GetType(), err)
		}
	}
	return denied
}

// ApplyOperation changes what resources of an agent are.
func (s *operatorService) ApplyOperation(ctx context.Context, q *operatorv1.ApplyOperationRequest) (*operatorv1.ApplyOperationResponse, error) {
	switch {
	case q.AgentId == "":
		return nil, fmt.Errorf("%w: 'agent_id' is not set", rpc.ErrInvalid)
	case q.GetOperation() == nil:
		return nil, fmt.Errorf("%w: 'operation' is not set", rpc.ErrInvalid)
	}
	if err := s.master.authorizeOperation(ctx, "", q.Operation); err != nil {
		return nil, err
	}
	principal := rpc.PrincipalFrom(ctx).Name
	signed := sign(q.Operation, principal)
	_, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.ApplyOperation{Request: r, AgentID: q.AgentId, Operation: signed, Principal: principal}
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.ApplyOperationResponse{}, nil
}

// sign fills in who reserves or creates, where it is left out.
func sign(op *mezzov1.Offer_Operation, principal string) *mezzov1.Offer_Operation {
	if principal == "" {
		return op
	}
	op = proto.CloneOf(op)
	for _, r := range op.GetReserve().GetResources() {
		if n := len(r.GetReservations()); n > 0 && r.Reservations[n-1].Principal == nil {
			r.Reservations[n-1].Principal = proto.String(principal)
		}
	}
	for _, r := range op.GetCreate().GetVolumes() {
		if p := r.GetDisk().GetPersistence(); p != nil && p.Principal == nil {
			p.Principal = proto.String(principal)
		}
	}
	return op
}

// ListVolumes answers from the mirror.
func (s *operatorService) ListVolumes(ctx context.Context, q *operatorv1.ListVolumesRequest) (*operatorv1.ListVolumesResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	type key struct {
		agent  string
		volume operation.Volume
	}
	users := map[key][]*operatorv1.TaskKey{}
	for _, t := range s.master.mirror.listTasks(&operatorv1.ListTasksRequest{}) {
		for _, v := range operation.Volumes(t.Resources) {
			k := key{t.AgentID, v}
			users[k] = append(users[k], &operatorv1.TaskKey{FrameworkId: t.FrameworkID, TaskId: t.TaskID})
		}
	}
	out := &operatorv1.ListVolumesResponse{}
	for _, a := range s.master.mirror.listAgents() {
		for i := range a.Total {
			r := &a.Total[i]
			name := operation.VolumeOf(r.Kind)
			if name == (operation.Volume{}) || q.AgentId != "" && q.AgentId != a.ID || q.Role != "" && q.Role != name.Role {
				continue
			}
			out.Volumes = append(out.Volumes, volumeMessage(a, r, users[key{a.ID, name}]))
		}
	}
	return out, nil
}

func volumeMessage(a *state.AgentView, r *resource.Resource, users []*operatorv1.TaskKey) *operatorv1.Volume {
	disk := r.Kind.Disk()
	return &operatorv1.Volume{
		Id: r.Kind.PersistenceID(), Role: r.Kind.Role(), AgentId: a.ID, Hostname: a.Hostname, SizeMb: r.Scalar.Float(),
		ContainerPath: disk.GetVolume().GetContainerPath(), Shared: r.Kind.Shared(), Principal: disk.GetPersistence().GetPrincipal(),
		Tasks: users, Resource: r.ToProto(),
	}
}
