package engine

import "time"

// Preempt says when tasks may be ended for those who are starved. The core has
// bounds of its own.
type Preempt struct {
	// After is for how long somebody must have been starved.
	After time.Duration
	// GracePeriod is what a task has between being asked to end and being
	// killed.
	GracePeriod time.Duration
}

// Preempt lets the engine revoke tasks. It is to be called before the first
// Apply, and needs a core that tells of tasks.
func (e *Engine) Preempt(p Preempt) { e.preempt = &p }
