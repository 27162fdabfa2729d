// Package reload is what reading the configuration again is at a master and at an
// agent alike: one at a time, errors at the operator's lines, what changed, what
// only a restart would change, and the log. What is compared and changed is each
// process's own.
package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/config"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// timeout bounds a reload that nobody waits for.
const timeout = 5 * time.Minute

// Reloader reloads one process, whose settings are a T.
//
//	r := &reload.Reloader[config.Agent]{Logger: logger, Reread: read, Ready: ready, Apply: apply}
//	go r.On(ctx, hangups)
//	answer, err := r.Reload(ctx)
type Reloader[T any] struct {
	Logger hclog.Logger
	// Reread reads the configuration again. The settings are nil when the
	// diagnostics have errors. Nil: there is nothing to read.
	Reread func() (*T, *config.File, hcl.Diagnostics)
	// Ready says why the process cannot be reloaded yet; nil: it can.
	Ready func() error
	// Apply changes what differs, and adds it to the answer as it is done. Its
	// error may be hcl.Diagnostics; then what is not in the answer has not changed.
	Apply func(ctx context.Context, next *T, answer *operatorv1.ReloadResponse) error

	mu sync.Mutex // held during a reload
}

// Reload reads the configuration again, changes what changed, and says what that
// was. What is wrong with the configuration, or with a plugin that is to take
// over, is in the answer and in the log; then nothing has changed but what the
// answer lists. An error means that the reload was not tried; it is a gRPC
// status.
func (r *Reloader[T]) Reload(ctx context.Context) (*operatorv1.ReloadResponse, error) {
	if r.Reread == nil {
		return nil, status.Error(codes.FailedPrecondition, "there is no configuration to read again")
	}
	if err := r.Ready(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if !r.mu.TryLock() {
		return nil, status.Error(codes.FailedPrecondition, "a reload is under way")
	}
	defer r.mu.Unlock()
	next, file, diags := r.Reread()
	answer := &operatorv1.ReloadResponse{Diagnostics: config.DiagnosticText(file, diags)}
	if diags.HasErrors() || next == nil {
		answer.Failed = true
	} else if err := r.Apply(ctx, next, answer); err != nil {
		answer.Failed = true
		answer.Diagnostics += text(file, err)
	}
	r.log(answer)
	return answer, nil
}

// On reloads whenever there is a signal, until ctx ends; the outcome is logged.
func (r *Reloader[T]) On(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		reloading, cancel := context.WithTimeout(ctx, timeout)
		if _, err := r.Reload(reloading); err != nil {
			r.Logger.Warn("the configuration was not reloaded", "reason", status.Convert(err).Message())
		}
		cancel()
	}
}

// Between runs do while no reload is under way.
func (r *Reloader[T]) Between(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *Reloader[T]) log(answer *operatorv1.ReloadResponse) {
	for _, c := range answer.Changes {
		r.Logger.Info("reload: changed", "what", c.What, "from", c.From, "to", c.To)
	}
	if answer.Failed {
		r.Logger.Error("the configuration was not reloaded", "changes", len(answer.Changes), "diagnostics", answer.Diagnostics)
		return
	}
	for _, c := range answer.Restart {
		r.Logger.Warn("reload: differs, and counts only after a restart", "what", c.What, "from", c.From, "to", c.To)
	}
	if answer.Diagnostics != "" {
		r.Logger.Warn("reload: the configuration was taken, with warnings", "diagnostics", answer.Diagnostics)
	}
	r.Logger.Info("the configuration was reloaded", "changes", len(answer.Changes), "need_restart", len(answer.Restart))
}

// text shows an error with the operator's lines where it has any.
func text(file *config.File, err error) string {
	var diags hcl.Diagnostics
	if errors.As(err, &diags) && len(diags) > 0 {
		return config.DiagnosticText(file, diags)
	}
	return err.Error() + "\n"
}

// Changes are what differs between two configurations, in the order of Compare.
type Changes []*operatorv1.ReloadChange

// Add adds a change.
func (c *Changes) Add(what, from, to string) {
	*c = append(*c, &operatorv1.ReloadChange{What: what, From: from, To: to})
}

// Compare adds a change when two values are not written alike.
func (c *Changes) Compare(what string, from, to any) {
	if a, b := fmt.Sprint(from), fmt.Sprint(to); a != b {
		c.Add(what, a, b)
	}
}

// Authorization adds a change when who may do what is not written alike.
func Authorization(c *Changes, from, to *config.Authorization) {
	if from.Text() == to.Text() && !from.Same(to) {
		c.Add("authorization", from.Text(), "the same rules, changed")
		return
	}
	c.Compare("authorization", from.Text(), to.Text())
}

// TLS writes the files of a TLS configuration.
func TLS(t *config.TLS) string {
	if t == nil {
		return "none"
	}
	return fmt.Sprintf("ca %s, cert %s, key %s", t.CA, t.Cert, t.Key)
}
