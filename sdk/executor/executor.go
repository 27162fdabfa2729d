// Package executor is what an executor written in Go uses of Mezzo: a connection
// to its agent that is made again whenever it has to be, and the keeping of what
// the agent has not stored yet.
//
// Terms. An *executor* is a program of a framework's own that an agent starts to
// run the framework's tasks. A *status* is news of a task. It is *stored* when
// the agent has it on its disk: from then on the agent sees to it that the
// framework hears of it.
//
// Life cycle: FromEnvironment, then Run, which returns when the executor is to
// end. Events come to the Callbacks, one at a time, in order. When the connection
// is lost, Run makes another and tells the agent of the tasks and statuses that
// it may not know; tasks run on meanwhile. An agent that is away for longer than
// the recovery timeout has Run return ErrAbandoned: end the tasks then.
//
// Example:
//
//	o, err := executor.FromEnvironment()
//	o.Callbacks.Launch = func(e *executor.Executor, task *mezzov1.TaskInfo) {
//		e.Update(executor.Status(task.GetTaskId(), mezzov1.TaskState_TASK_RUNNING))
//		go func() { work(task); e.Update(executor.Status(task.GetTaskId(), mezzov1.TaskState_TASK_FINISHED)) }()
//	}
//	e, err := executor.New(o)
//	err = e.Run(ctx)
package executor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

var (
	// ErrAbandoned means that the agent did not come back within the recovery
	// timeout, or knows nothing of the executor. Its tasks count as lost.
	ErrAbandoned = errors.New("the agent is gone")
	// ErrNotSubscribed means that there is no connection now. A message that was
	// to be sent was not.
	ErrNotSubscribed = errors.New("not subscribed to the agent now")
)

// Callbacks are how events come to an executor. Each may be nil. They are called
// one at a time, and must not block for long.
type Callbacks struct {
	// Subscribed: a connection to the agent has been made.
	Subscribed func(e *Executor, told *executorv1.Event_Subscribed)
	// Launch: run a task. Nil: every task fails.
	Launch func(e *Executor, task *mezzov1.TaskInfo)
	// LaunchGroup: run the tasks of a group, all or none. Nil: Launch is called
	// for each.
	LaunchGroup func(e *Executor, tasks []*mezzov1.TaskInfo)
	// Kill: end a task, and report how it ended. policy may be nil: the task's
	// own counts. It may come for a task that has ended, and more than once.
	Kill func(e *Executor, id *mezzov1.TaskID, policy *mezzov1.KillPolicy)
	// Message: the scheduler has sent bytes.
	Message func(e *Executor, data []byte)
	// Shutdown: end all tasks and report that. Run returns when this does and all
	// statuses are stored, or the grace period is over.
	Shutdown func(e *Executor)
}

// Options of an Executor.
type Options struct {
	// Agent is where the agent serves: host:port.
	Agent string
	// TLS is the client's side of mutual TLS; nil: plain text.
	TLS *tls.Config
	// FrameworkID and ExecutorID say who the executor is.
	FrameworkID, ExecutorID string
	// Token proves that to the agent. It is a secret.
	Token string
	// RecoveryTimeout is how long the agent may be away; 0: 15 minutes.
	RecoveryTimeout time.Duration
	// BackoffMax bounds the random pause before another attempt; 0: 2 seconds.
	BackoffMax time.Duration
	// ShutdownGrace is how long the agent waits after SHUTDOWN; 0: 5 seconds.
	ShutdownGrace time.Duration
	Callbacks     Callbacks
	Logger        *slog.Logger // nil: nothing is logged
}

// FromEnvironment is the options as the agent has set them for the executor that
// it has started. The error names the variable that is missing or wrong.
func FromEnvironment() (Options, error) {
	var o Options
	for name, to := range map[string]*string{
		"MEZZO_AGENT_ADDRESS": &o.Agent, "MEZZO_FRAMEWORK_ID": &o.FrameworkID, "MEZZO_EXECUTOR_ID": &o.ExecutorID,
	} {
		if *to = os.Getenv(name); *to == "" {
			return o, fmt.Errorf("environment variable %s is not set: an executor is started by an agent", name)
		}
	}
	o.Token = os.Getenv("MEZZO_EXECUTOR_TOKEN") // an older agent gives none
	for name, to := range map[string]*time.Duration{
		"MEZZO_RECOVERY_TIMEOUT": &o.RecoveryTimeout, "MEZZO_SUBSCRIPTION_BACKOFF_MAX": &o.BackoffMax,
		"MEZZO_EXECUTOR_SHUTDOWN_GRACE_PERIOD": &o.ShutdownGrace,
	} {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		var err error
		if *to, err = parseDuration(text); err != nil {
			return o, fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	return o, nil
}

// parseDuration reads a duration as agents write it: "15mins".
func parseDuration(text string) (time.Duration, error) {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{
		{"weeks", 7 * 24 * time.Hour}, {"days", 24 * time.Hour}, {"hrs", time.Hour}, {"mins", time.Minute}, {"secs", time.Second},
		{"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", time.Nanosecond},
	} {
		if number, found := strings.CutSuffix(text, u.name); found {
			n, err := strconv.ParseFloat(number, 64)
			if err != nil {
				break
			}
			return time.Duration(n * float64(u.unit)), nil
		}
	}
	return 0, fmt.Errorf("%q is not a duration: want a number and one of ns, us, ms, secs, mins, hrs, days, weeks", text)
}

// Status is a status of a task in that state, to be completed and given to
// Update.
func Status(id *mezzov1.TaskID, state mezzov1.TaskState) *mezzov1.TaskStatus {
	return &mezzov1.TaskStatus{TaskId: id, State: state.Enum()}
}

// Executor is an executor's connection to its agent. Its methods may be called
// from any goroutine.
type Executor struct {
	o      Options
	logger *slog.Logger

	mu sync.Mutex
	// tasks are those of which no status is stored, updates the statuses that are
	// not, in order. Both are told when the connection is made anew.
	tasks   []*mezzov1.TaskInfo
	updates []*mezzov1.TaskStatus
	changed chan struct{} // closed and replaced when updates gets shorter
	link    *connection   // nil while there is none
}

// New returns an executor that Run will connect.
func New(o Options) (*Executor, error) {
	if o.Agent == "" || o.FrameworkID == "" || o.ExecutorID == "" {
		return nil, errors.New("executor: Options needs Agent, FrameworkID and ExecutorID")
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&o.RecoveryTimeout, 15 * time.Minute}, {&o.BackoffMax, 2 * time.Second}, {&o.ShutdownGrace, 5 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Executor{o: o, logger: logger, changed: make(chan struct{})}, nil
}

// Update reports of a task. It does not wait: the status is sent now, or when
// the connection is made again, until it is stored. Source, executor id, uuid and
// time are filled in; the status must not be changed afterwards.
func (e *Executor) Update(s *mezzov1.TaskStatus) {
	s.Source = mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum()
	s.ExecutorId = &mezzov1.ExecutorID{Value: proto.String(e.o.ExecutorID)}
	s.Uuid = newUUID()
	if s.Timestamp == nil {
		s.Timestamp = proto.Float64(float64(time.Now().UnixMicro()) / 1e6)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.updates = append(e.updates, s)
	if e.link != nil {
		e.link.call(e.newCall(executorv1.Call_UPDATE, func(c *executorv1.Call) { c.Update = &executorv1.Call_Update{Status: s} }))
	}
}

// Send sends bytes to the scheduler. They may be lost; with ErrNotSubscribed they
// are.
func (e *Executor) Send(data []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.link == nil {
		return ErrNotSubscribed
	}
	e.link.call(e.newCall(executorv1.Call_MESSAGE, func(c *executorv1.Call) { c.Message = &executorv1.Call_Message{Data: data} }))
	return nil
}

// Flush waits until all statuses are stored, or the context ends.
func (e *Executor) Flush(ctx context.Context) error {
	for {
		e.mu.Lock()
		left, changed := len(e.updates), e.changed
		e.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d statuses are not stored: %w", left, ctx.Err())
		}
	}
}

func newUUID() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return b
}

func (e *Executor) newCall(kind executorv1.Call_Type, fill func(*executorv1.Call)) *executorv1.Call {
	c := &executorv1.Call{
		Type: kind.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String(e.o.FrameworkID)},
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(e.o.ExecutorID)},
	}
	if e.o.Token != "" {
		c.Token = proto.String(e.o.Token)
	}
	fill(c)
	return c
}

// Run connects, and stays connected until the agent has it end (it returns nil,
// after Callbacks.Shutdown), until ctx ends (nil, too) or until the agent is
// gone for good (ErrAbandoned). It must not be called twice at a time.
func (e *Executor) Run(ctx context.Context) error {
	away := time.Now() // since when
	for {
		began, over, err := e.connect(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case over:
			return nil
		case errors.Is(err, ErrAbandoned):
			return err
		case began:
			away = time.Now()
		}
		if left := e.o.RecoveryTimeout - time.Since(away); left <= 0 {
			return fmt.Errorf("%w: it was away for %v: %w", ErrAbandoned, e.o.RecoveryTimeout, err)
		}
		e.logger.Warn("not subscribed to the agent; trying again", "error", err)
		// Random, so that the executors of an agent do not all come back at once.
		select {
		case <-time.After(mathrand.N(e.o.BackoffMax) + time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}
