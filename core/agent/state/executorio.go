package state

import (
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// ExecutorSubscribe is an executor's call SUBSCRIBE. The answer is SendExecutor
// with SUBSCRIBED, or with SHUTDOWN and then CloseExecutor, or RefuseExecutor.
type ExecutorSubscribe struct {
	// Stream names the stream of events; no two of one machine are the same, and
	// none is 0.
	Stream uint64
	// Adapter is the framework adapter that it came through; empty: the agent's
	// own service.
	Adapter string
	Call    *executorv1.Call
}

// ExecutorClosed says that a stream of events has ended, by itself or because
// its reader was too slow.
type ExecutorClosed struct{ Stream uint64 }

// ExecutorCall is any other call of an executor. AnswerExecutor answers it, at
// once.
type ExecutorCall struct {
	Caller  uint64 // given back in the answer
	Adapter string // as in ExecutorSubscribe
	Call    *executorv1.Call
}

// Variable is an environment variable.
type Variable struct{ Name, Value string }

func (ExecutorSubscribe) input() {}
func (ExecutorClosed) input()    {}
func (ExecutorCall) input()      {}

// SendExecutor is an event for the executor of a stream. It is dropped when that
// stream is gone.
type SendExecutor struct {
	Stream uint64
	Event  *executorv1.Event
}

// CloseExecutor ends a stream, after all that was sent. No ExecutorClosed is
// expected, and one does no harm.
type CloseExecutor struct {
	Stream uint64
	Reason string
}

// RefuseExecutor ends a stream that was never subscribed.
type RefuseExecutor struct {
	Stream uint64
	// Code is UNKNOWN_EXECUTOR, UNAUTHENTICATED, UNAUTHORIZED, or INVALID.
	Code    executorv1.CallResult_Code
	Message string
}

// AnswerExecutor says what became of an ExecutorCall.
type AnswerExecutor struct {
	Caller uint64
	Result *executorv1.CallResult
}

func (SendExecutor) output()   {}
func (CloseExecutor) output()  {}
func (RefuseExecutor) output() {}
func (AnswerExecutor) output() {}
