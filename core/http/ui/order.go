package ui

import (
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// maxOrder bounds the JSON of an order.
const maxOrder = 64 << 10

// orderTimeout is how long an order may take; a reload starts plugins.
const orderTimeout = 90 * time.Second

// carryOut carries an order out.
type carryOut func(ctx context.Context, u *UI, body []byte) (proto.Message, error)

// by decodes the request of an order and calls the service.
func by[Q any, M interface {
	*Q
	proto.Message
}, A proto.Message](call func(operatorv1.OperatorServer, context.Context, M) (A, error)) carryOut {
	return func(ctx context.Context, u *UI, body []byte) (proto.Message, error) {
		q := M(new(Q))
		if err := u.decoder.Unmarshal(body, q); err != nil {
			return nil, fmt.Errorf("%w: the order is not the JSON of a %s: %w", rpc.ErrInvalid, q.ProtoReflect().Descriptor().Name(), err)
		}
		answer, err := call(u.options.Operator, ctx, q)
		if err != nil {
			return nil, err
		}
		return answer, nil
	}
}

// orders are what POST /v1/order/VERB takes: the requests of the Operator
// service.
func orders() map[string]carryOut {
	return map[string]carryOut{
		"kill":         by(operatorv1.OperatorServer.KillTask),
		"teardown":     by(operatorv1.OperatorServer.Teardown),
		"drain":        by(operatorv1.OperatorServer.DrainAgent),
		"deactivate":   by(operatorv1.OperatorServer.DeactivateAgent),
		"activate":     by(operatorv1.OperatorServer.ReactivateAgent),
		"gone":         by(operatorv1.OperatorServer.MarkAgentGone),
		"machine-down": by(operatorv1.OperatorServer.StartMaintenance),
		"machine-up":   by(operatorv1.OperatorServer.StopMaintenance),
		"reload":       by(operatorv1.OperatorServer.Reload),
		"weights":      by(operatorv1.OperatorServer.SetWeights),
	}
}

func (u *UI) order(w http.ResponseWriter, r *http.Request) (proto.Message, error) {
	all := orders()
	do := all[r.PathValue("verb")]
	if do == nil {
		return nil, fmt.Errorf("%w: there is no order %q, only %s", rpc.ErrNotFound, r.PathValue("verb"), strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	// A form of another site can send text and forms, and JSON it cannot.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, fmt.Errorf("%w: an order is sent as application/json, not as %q", rpc.ErrInvalid, r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
	if err != nil {
		return nil, fmt.Errorf("%w: the order could not be read: %w", rpc.ErrInvalid, err)
	}
	return do(r.Context(), u, body)
}
