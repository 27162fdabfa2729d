package master

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/registry"
)

func said(checks []http.Check) (text string, ready bool) {
	ready = true
	for _, c := range checks {
		text += c.Name + ": "
		if c.Err != nil {
			ready = false
			text += "no: " + c.Err.Error()
		} else {
			text += c.State
		}
		text += "; "
	}
	return text, ready
}

// TestReadiness is that a master says what it lacks: the lead, the registry, the
// allocator.
func TestReadiness(t *testing.T) {
	m := &Master{termNews: make(chan struct{})}
	m.setTerm(nil, false)
	if text, ready := said(m.readiness(t.Context())); ready || !strings.Contains(text, "does not lead") {
		t.Errorf("a standby is ready %v: %s", ready, text)
	}
	m.setTerm(nil, true)
	if text, ready := said(m.readiness(t.Context())); ready || !strings.Contains(text, "reads the registry") {
		t.Errorf("one that is elected is ready %v: %s", ready, text)
	}
	m.setTerm(nil, false)
	m.failed.Store(&failure{fmt.Errorf("read the registry: %w: all of zk1", registry.ErrDamaged)})
	if text, ready := said(m.readiness(t.Context())); ready || !strings.Contains(text, "does not lead") ||
		!strings.Contains(text, "registry: no: this master was elected and could not lead: read the registry: registry: the store has lost writes: all of zk1") {
		t.Errorf("one that cannot read the registry is ready %v: %s", ready, text)
	}
	m.failed.Store(nil)
	m.setTerm(&term{master: m, inbox: newInbox()}, true)
	full := "disk full"
	m.unwritten.Store(&full)
	if text, ready := said(m.readiness(t.Context())); ready || !strings.Contains(text, "registry: no: the last write failed: disk full; ") ||
		!strings.Contains(text, "allocator: no: the allocator is not running") {
		t.Errorf("a leader without registry and allocator is ready %v: %s", ready, text)
	}
}

// TestHealth is that a loop that does not turn is noticed, and that nothing else
// is taken for it.
func TestHealth(t *testing.T) {
	m := &Master{termNews: make(chan struct{})}
	m.setTerm(nil, false)
	if err := m.healthy(t.Context()); err != nil {
		t.Errorf("a standby: %v", err)
	}
	stuck := &term{master: m, inbox: newInbox(), over: make(chan struct{})}
	m.setTerm(stuck, true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := m.healthy(ctx); err == nil {
		t.Error("a loop that takes nothing is healthy")
	}
	close(stuck.over)
	if err := m.healthy(t.Context()); err != nil {
		t.Errorf("a term that is over: %v", err)
	}
}
