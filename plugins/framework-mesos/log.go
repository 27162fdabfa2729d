package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// lines has what is logged by log/slog go to the host's log.
type lines struct {
	to    hclog.Logger
	args  []any
	group string
}

func newLog(to hclog.Logger) *slog.Logger { return slog.New(&lines{to: to}) }

func levelOf(l slog.Level) hclog.Level {
	switch {
	case l >= slog.LevelError:
		return hclog.Error
	case l >= slog.LevelWarn:
		return hclog.Warn
	case l >= slog.LevelInfo:
		return hclog.Info
	default:
		return hclog.Debug
	}
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool {
	return levelOf(level) >= l.to.GetLevel()
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	args := l.args[:len(l.args):len(l.args)]
	r.Attrs(func(a slog.Attr) bool {
		args = append(args, l.group+a.Key, a.Value.Resolve().Any())
		return true
	})
	l.to.Log(levelOf(r.Level), r.Message, args...)
	return nil
}

func (l *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := &lines{to: l.to, args: l.args[:len(l.args):len(l.args)], group: l.group}
	for _, a := range attrs {
		out.args = append(out.args, l.group+a.Key, a.Value.Resolve().Any())
	}
	return out
}

func (l *lines) WithGroup(name string) slog.Handler {
	return &lines{to: l.to, args: l.args, group: l.group + name + "."}
}

// verbosity is the level of the log as Mesos counts it: 0 is what an operator
// should know, 1 and more are for finding faults.
type verbosity struct {
	log    hclog.Logger
	usual  hclog.Level
	mu     sync.Mutex
	level  uint32
	revert *time.Timer
}

func newVerbosity(log hclog.Logger) *verbosity { return &verbosity{log: log, usual: log.GetLevel()} }

// mostVerbose is the highest level that Mesos knows.
const mostVerbose = 3

func (v *verbosity) Level() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.level
}

// Set implements operator.Verbosity.
func (v *verbosity) Set(level uint32, nanoseconds int64) error {
	if level > mostVerbose {
		return fmt.Errorf("invalid level %d: must be between 0 and %d", level, mostVerbose)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.set(level)
	if v.revert != nil {
		v.revert.Stop()
		v.revert = nil
	}
	if level > 0 && nanoseconds > 0 {
		v.revert = time.AfterFunc(time.Duration(nanoseconds), func() {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.set(0)
		})
	}
	return nil
}

func (v *verbosity) set(level uint32) {
	v.level = level
	switch level {
	case 0:
		v.log.SetLevel(v.usual)
	case 1:
		v.log.SetLevel(hclog.Debug)
	default:
		v.log.SetLevel(hclog.Trace)
	}
}
