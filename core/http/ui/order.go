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

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
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
func by[Q, A proto.Message](empty func() Q, call func(operatorv1.OperatorServer, context.Context, Q) (A, error)) carryOut {
	return func(ctx context.Context, u *UI, body []byte) (proto.Message, error) {
		q := empty()
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
		"kill":     by(func() *operatorv1.KillTaskRequest { return new(operatorv1.KillTaskRequest) }, operatorv1.OperatorServer.KillTask),
		"teardown": by(func() *operatorv1.TeardownRequest { return new(operatorv1.TeardownRequest) }, operatorv1.OperatorServer.Teardown),
		"drain":    by(func() *operatorv1.DrainAgentRequest { return new(operatorv1.DrainAgentRequest) }, operatorv1.OperatorServer.DrainAgent),
		"deactivate": by(func() *operatorv1.DeactivateAgentRequest { return new(operatorv1.DeactivateAgentRequest) },
			operatorv1.OperatorServer.DeactivateAgent),
		"activate": by(func() *operatorv1.ReactivateAgentRequest { return new(operatorv1.ReactivateAgentRequest) },
			operatorv1.OperatorServer.ReactivateAgent),
		"gone": by(func() *operatorv1.MarkAgentGoneRequest { return new(operatorv1.MarkAgentGoneRequest) }, operatorv1.OperatorServer.MarkAgentGone),
		"machine-down": by(func() *operatorv1.StartMaintenanceRequest { return new(operatorv1.StartMaintenanceRequest) },
			operatorv1.OperatorServer.StartMaintenance),
		"machine-up": by(func() *operatorv1.StopMaintenanceRequest { return new(operatorv1.StopMaintenanceRequest) },
			operatorv1.OperatorServer.StopMaintenance),
		"reload":  by(func() *operatorv1.ReloadRequest { return new(operatorv1.ReloadRequest) }, operatorv1.OperatorServer.Reload),
		"weights": by(func() *operatorv1.SetWeightsRequest { return new(operatorv1.SetWeightsRequest) }, operatorv1.OperatorServer.SetWeights),
	}
}

func (u *UI) order(w http.ResponseWriter, r *http.Request) {
	answer, err := u.carryOut(w, r)
	var body []byte
	if err == nil {
		body, err = u.encoder.Marshal(answer)
	}
	if err != nil {
		mezzohttp.Error(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // a client that is gone is no error
}

func (u *UI) carryOut(w http.ResponseWriter, r *http.Request) (proto.Message, error) {
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
	ctx, cancel := context.WithTimeout(r.Context(), orderTimeout)
	defer cancel()
	return do(ctx, u, body)
}
