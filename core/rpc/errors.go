package rpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kinds of errors that a caller can tell apart. Wrap one of them with %w;
// Status makes it a gRPC status at the edge.
var (
	ErrInvalid     = errors.New("invalid request")
	ErrNotFound    = errors.New("not found")
	ErrDenied      = errors.New("denied")
	ErrConflict    = errors.New("conflict")
	ErrUnavailable = errors.New("unavailable")
	ErrExhausted   = errors.New("too much")
	ErrSuperseded  = errors.New("superseded")
)

// Denied returns an error that says who may not do what.
func Denied(who Principal, action Action, object Object) error {
	name := who.Name
	if name == "" {
		name = "an unknown caller"
	}
	return fmt.Errorf("%w: %s may not %s %s", ErrDenied, name, action, object.ID)
}

// LeaderKey is the trailer by which a master that does not lead tells an agent
// where the leader is: its rpc address.
const LeaderKey = "mezzo-leader"

var kinds = []struct {
	err  error
	code codes.Code
}{
	{ErrInvalid, codes.InvalidArgument},
	{ErrNotFound, codes.NotFound},
	{ErrDenied, codes.PermissionDenied},
	{ErrConflict, codes.FailedPrecondition},
	{ErrUnavailable, codes.Unavailable},
	{ErrExhausted, codes.ResourceExhausted},
	{ErrQueueFull, codes.ResourceExhausted},
	{ErrSuperseded, codes.Aborted},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// Status returns err as a gRPC status error, nil for nil. What is a status
// already stays as it is; an error of no known kind is Unknown.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return status.Error(k.code, err.Error())
		}
	}
	return status.Error(codes.Unknown, err.Error())
}

// FromStatus returns a status error of a call as an error of the kinds above,
// with the status's own message and no gRPC dressing.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, k := range kinds {
		if k.code == s.Code() {
			return &remote{kind: k.err, message: s.Message()}
		}
	}
	return errors.New(s.Message())
}

// remote is an error of the other end. Its message names the kind already.
type remote struct {
	kind    error
	message string
}

func (r *remote) Error() string { return r.message }
func (r *remote) Unwrap() error { return r.kind }
