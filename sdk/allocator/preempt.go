package allocator

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Preempt says when tasks may be ended for roles that are starved: those below
// their guarantee, or below their share while they want more. As a field
//
//	Preempt *allocator.Preempt `hcl:"preempt" help:"…"`
//
// of a configuration it is the `preempt` block that allocators have in common.
// The master revokes nothing unless its own `revocation` block allows it.
type Preempt struct {
	After       time.Duration `hcl:"after" default:"2m" help:"For how long a role must have been starved before tasks of others are ended for it."`
	GracePeriod time.Duration `hcl:"grace_period" default:"30s" help:"How long a task has to end by itself. The master refuses less than its own min_grace."`
}

// Validate implements plugin.Validator.
func (p *Preempt) Validate() []plugin.Diagnostic {
	var out []plugin.Diagnostic
	if p.After <= 0 {
		out = append(out, plugin.Errorf("after must be more than 0", "after", "Roles are short of something at most times; two minutes are usual."))
	}
	if p.GracePeriod < 0 {
		out = append(out, plugin.Errorf("grace_period must not be negative", "grace_period", "Write a duration such as \"30s\"."))
	}
	return out
}
