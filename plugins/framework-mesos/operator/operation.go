package operator

import (
	"context"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
)

// operationOf is the operation on resources that a call asks for, and of which
// agent; nil when it asks for something else.
func operationOf(call *masterv1.Call) (*mezzov1.AgentID, *mezzov1.Offer_Operation) {
	op := &mezzov1.Offer_Operation{}
	switch call.GetType() {
	case masterv1.Call_RESERVE_RESOURCES:
		x := call.GetReserveResources()
		op.Type, op.Reserve = mezzov1.Offer_Operation_RESERVE.Enum(), &mezzov1.Offer_Operation_Reserve{Resources: x.GetResources(), Source: x.GetSource()}
		return x.GetAgentId(), op
	case masterv1.Call_UNRESERVE_RESOURCES:
		x := call.GetUnreserveResources()
		op.Type, op.Unreserve = mezzov1.Offer_Operation_UNRESERVE.Enum(), &mezzov1.Offer_Operation_Unreserve{Resources: x.GetResources()}
		return x.GetAgentId(), op
	case masterv1.Call_CREATE_VOLUMES:
		x := call.GetCreateVolumes()
		op.Type, op.Create = mezzov1.Offer_Operation_CREATE.Enum(), &mezzov1.Offer_Operation_Create{Volumes: x.GetVolumes()}
		return x.GetAgentId(), op
	case masterv1.Call_DESTROY_VOLUMES:
		x := call.GetDestroyVolumes()
		op.Type, op.Destroy = mezzov1.Offer_Operation_DESTROY.Enum(), &mezzov1.Offer_Operation_Destroy{Volumes: x.GetVolumes()}
		return x.GetAgentId(), op
	case masterv1.Call_GROW_VOLUME:
		x := call.GetGrowVolume()
		op.Type, op.GrowVolume = mezzov1.Offer_Operation_GROW_VOLUME.Enum(), &mezzov1.Offer_Operation_GrowVolume{Volume: x.GetVolume(), Addition: x.GetAddition()}
		return x.GetAgentId(), op
	case masterv1.Call_SHRINK_VOLUME:
		x := call.GetShrinkVolume()
		op.Type, op.ShrinkVolume = mezzov1.Offer_Operation_SHRINK_VOLUME.Enum(), &mezzov1.Offer_Operation_ShrinkVolume{Volume: x.GetVolume(), Subtract: x.GetSubtract()}
		return x.GetAgentId(), op
	}
	return nil, nil
}

// Apply has an agent carry out an operation on its resources, which may be in
// the old form. It answers when that is done.
func (h *Handler) Apply(ctx context.Context, agent string, op *mezzov1.Offer_Operation) *transport.Error {
	h.convert.Upgrade(op)
	_, err := h.options.Operator.ApplyOperation(ctx, &operatorv1.ApplyOperationRequest{AgentId: agent, Operation: op})
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.NotFound:
		return transport.Failed(http.StatusBadRequest, "No agent found with specified ID")
	case codes.FailedPrecondition, codes.Aborted:
		return transport.Failed(http.StatusConflict, status.Convert(err).Message())
	case codes.InvalidArgument:
		return transport.Failed(http.StatusBadRequest, "Invalid "+op.GetType().String()+" operation: "+status.Convert(err).Message())
	}
	return orderFailed(err)
}
