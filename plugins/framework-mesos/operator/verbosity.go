package operator

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// LogLevels is what a core, a master or an agent, says of how much it logs.
type LogLevels interface {
	SetLogLevel(context.Context, *operatorv1.SetLogLevelRequest, ...grpc.CallOption) (*operatorv1.LogLevel, error)
	GetLogLevel(context.Context, *operatorv1.GetLogLevelRequest, ...grpc.CallOption) (*operatorv1.LogLevel, error)
}

// Verbosity is how much is logged, as Mesos counts it: 0 is what an operator
// should know, 1 and more are for finding faults. Safe for concurrent use.
type Verbosity struct {
	core  LogLevels
	own   hclog.Logger
	usual hclog.Level

	mu     sync.Mutex
	level  uint32 // that was asked for here
	revert *time.Timer
	change int // so that a timer that was late changes nothing
}

// NewVerbosity makes the verbosity of a core, and with it of the adapter's own
// lines, which go to own; nil: there are none. Close it in the end.
func NewVerbosity(core LogLevels, own hclog.Logger) *Verbosity {
	if own == nil {
		own = hclog.NewNullLogger()
	}
	return &Verbosity{core: core, own: own, usual: own.GetLevel()}
}

// mostVerbose is the highest level that Mesos knows.
const mostVerbose = 3

// Level is how much is logged now. Somebody may have set that otherwise.
func (v *Verbosity) Level(ctx context.Context) (uint32, *transport.Error) {
	now, err := v.core.GetLogLevel(ctx, &operatorv1.GetLogLevelRequest{})
	if err != nil {
		return 0, orderFailed(err)
	}
	var level uint32
	switch now.GetLevel() {
	case "trace":
		level = 2
	case "debug":
		level = 1
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if level > 0 && v.level > 0 {
		return v.level, nil
	}
	return level, nil
}

// Set changes the level. After the duration, in nanoseconds, it is what the
// configuration says; 0: it stays until it is set again.
func (v *Verbosity) Set(ctx context.Context, level uint32, nanoseconds int64) *transport.Error {
	if level > mostVerbose {
		return transport.Failed(http.StatusBadRequest, fmt.Sprintf("invalid level %d: must be between 0 and %d", level, mostVerbose))
	}
	if nanoseconds < 0 {
		return transport.Failed(http.StatusBadRequest, "invalid duration: it is negative")
	}
	q := &operatorv1.SetLogLevelRequest{}
	switch {
	case level == 1:
		q.Level = "debug"
	case level > 1:
		q.Level = "trace"
	}
	d := time.Duration(nanoseconds)
	if level > 0 && d > 0 {
		q.DurationMs = uint64(max(1, d.Milliseconds()))
	}
	if _, err := v.core.SetLogLevel(ctx, q); err != nil {
		return orderFailed(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.set(level)
	if level > 0 && d > 0 {
		change := v.change
		v.revert = time.AfterFunc(d, func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			if v.change == change {
				v.set(0)
			}
		})
	}
	return nil
}

// set is called with the lock held.
func (v *Verbosity) set(level uint32) {
	v.change++
	if v.revert != nil {
		v.revert.Stop()
		v.revert = nil
	}
	v.level = level
	switch level {
	case 0:
		v.own.SetLevel(v.usual)
	case 1:
		v.own.SetLevel(hclog.Debug)
	default:
		v.own.SetLevel(hclog.Trace)
	}
}

// Close drops what was to come.
func (v *Verbosity) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.set(0)
}
