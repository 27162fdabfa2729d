package framework

import (
	"context"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Operations on what is offered. They are given to Scheduler.Accept in one list,
// and each sees what those before it have made: reserve, create a volume and
// launch a task on it in one call.
//
//	disk := framework.Reserved("db", principal, framework.Disk(1024))
//	volume := framework.PersistentVolume(disk[0], "data", "data", principal)
//	err := s.Accept(ctx, ids, []*mezzov1.Offer_Operation{
//		framework.Reserve("r-1", disk...),
//		framework.CreateVolumes("c-1", volume),
//		framework.LaunchTasks(task), // with volume among its resources
//	}, nil)
//
// The id of an operation is the framework's own. With one, the framework is told
// what comes of it (Callbacks.OperationUpdate); with an empty one it is not.

// Disk returns that much unreserved disk, in MiB.
func Disk(mebibytes float64) *mezzov1.Resource {
	return &mezzov1.Resource{
		Name: proto.String("disk"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(mebibytes)},
	}
}

// Reserved returns the resources as they are when they have been reserved to
// role by principal, in addition to what they are reserved to already. The
// principal must be that of the framework, if that has one.
func Reserved(role, principal string, resources ...*mezzov1.Resource) []*mezzov1.Resource {
	var out []*mezzov1.Resource
	for _, r := range resources {
		r = proto.CloneOf(r)
		entry := &mezzov1.Resource_ReservationInfo{
			Type: mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String(role),
		}
		if principal != "" {
			entry.Principal = proto.String(principal)
		}
		r.Reservations = append(r.Reservations, entry)
		out = append(out, r)
	}
	return out
}

// PersistentVolume returns the volume that CREATE makes of reserved disk: all of
// it. The id is unique for the role on its agent. Tasks find the volume at
// containerPath: in the sandbox if that is relative.
func PersistentVolume(disk *mezzov1.Resource, id, containerPath, principal string) *mezzov1.Resource {
	volume := proto.CloneOf(disk)
	if volume.Disk == nil {
		volume.Disk = &mezzov1.Resource_DiskInfo{}
	}
	volume.Disk.Persistence = &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String(id)}
	if principal != "" {
		volume.Disk.Persistence.Principal = proto.String(principal)
	}
	volume.Disk.Volume = &mezzov1.Volume{ContainerPath: proto.String(containerPath), Mode: mezzov1.Volume_RW.Enum()}
	return volume
}

// Shared returns the volume as one that several tasks may use at a time. Only
// frameworks with SHARED_RESOURCES are offered it.
func Shared(volume *mezzov1.Resource) *mezzov1.Resource {
	volume = proto.CloneOf(volume)
	volume.Shared = &mezzov1.Resource_SharedInfo{}
	return volume
}

func operation(id string, kind mezzov1.Offer_Operation_Type) *mezzov1.Offer_Operation {
	op := &mezzov1.Offer_Operation{Type: kind.Enum()}
	if id != "" {
		op.Id = &mezzov1.OperationID{Value: proto.String(id)}
	}
	return op
}

// LaunchTasks launches tasks, each for itself. Their AgentId must be set.
func LaunchTasks(tasks ...*mezzov1.TaskInfo) *mezzov1.Offer_Operation {
	op := operation("", mezzov1.Offer_Operation_LAUNCH)
	op.Launch = &mezzov1.Offer_Operation_Launch{TaskInfos: tasks}
	return op
}

// Reserve reserves resources, given as they are to be: see Reserved.
func Reserve(id string, resources ...*mezzov1.Resource) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_RESERVE)
	op.Reserve = &mezzov1.Offer_Operation_Reserve{Resources: resources}
	return op
}

// Unreserve takes back the last reservation of resources, given as they are.
func Unreserve(id string, resources ...*mezzov1.Resource) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_UNRESERVE)
	op.Unreserve = &mezzov1.Offer_Operation_Unreserve{Resources: resources}
	return op
}

// CreateVolumes makes persistent volumes: see PersistentVolume.
func CreateVolumes(id string, volumes ...*mezzov1.Resource) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_CREATE)
	op.Create = &mezzov1.Offer_Operation_Create{Volumes: volumes}
	return op
}

// DestroyVolumes removes persistent volumes with all that is in them. What is
// left is the reserved disk.
func DestroyVolumes(id string, volumes ...*mezzov1.Resource) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_DESTROY)
	op.Destroy = &mezzov1.Offer_Operation_Destroy{Volumes: volumes}
	return op
}

// GrowVolume adds disk, reserved as the volume is, to a volume.
func GrowVolume(id string, volume, addition *mezzov1.Resource) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_GROW_VOLUME)
	op.GrowVolume = &mezzov1.Offer_Operation_GrowVolume{Volume: volume, Addition: addition}
	return op
}

// ShrinkVolume takes so many MiB from a volume.
func ShrinkVolume(id string, volume *mezzov1.Resource, mebibytes float64) *mezzov1.Offer_Operation {
	op := operation(id, mezzov1.Offer_Operation_SHRINK_VOLUME)
	op.ShrinkVolume = &mezzov1.Offer_Operation_ShrinkVolume{Volume: volume, Subtract: &mezzov1.Value_Scalar{Value: proto.Float64(mebibytes)}}
	return op
}

// AcknowledgeOperation tells that what came of an operation was taken in. Only
// with Options.ManualAcknowledge. A status that needs no acknowledgement is no
// error.
func (s *Scheduler) AcknowledgeOperation(ctx context.Context, status *mezzov1.OperationStatus) error {
	call := operationAcknowledgement(status)
	if call == nil {
		return nil
	}
	return s.Call(ctx, call)
}

// operationAcknowledgement returns nil for a status that the master made itself.
func operationAcknowledgement(status *mezzov1.OperationStatus) *schedulerv1.Call {
	if status.GetUuid() == nil || status.GetAgentId() == nil || status.GetOperationId() == nil {
		return nil
	}
	return &schedulerv1.Call{
		Type: schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(),
		AcknowledgeOperationStatus: &schedulerv1.Call_AcknowledgeOperationStatus{
			AgentId: status.GetAgentId(), ResourceProviderId: status.GetResourceProviderId(),
			Uuid: status.GetUuid().GetValue(), OperationId: status.GetOperationId(),
		},
	}
}

// ReconcileOperations asks what became of operations; the answers come to
// Callbacks.OperationUpdate. None: of all that the master knows.
func (s *Scheduler) ReconcileOperations(ctx context.Context, operations ...*schedulerv1.Call_ReconcileOperations_Operation) error {
	return s.Call(ctx, &schedulerv1.Call{
		Type:                schedulerv1.Call_RECONCILE_OPERATIONS.Enum(),
		ReconcileOperations: &schedulerv1.Call_ReconcileOperations{Operations: operations},
	})
}
