package main

import (
	"context"
	"log/slog"

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
