package allocator

import (
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Decision is one proposal of an allocator, with ids and names in place of the
// stream's numbers: one of Offer, InverseOffer, Rescind and Revoke.
type Decision interface {
	// DecisionNumber is the number by which a refusal names it. It rises with
	// every decision of a session.
	DecisionNumber() uint64
}

// Offer proposes to offer resources of one agent to one framework in one role.
type Offer struct {
	Number    uint64
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
}

// InverseOffer proposes to ask a framework to leave an agent.
type InverseOffer struct {
	Number    uint64
	Agent     string
	Framework string
}

// Rescind proposes to take an outstanding offer back.
type Rescind struct {
	Number uint64
	// Offer is the number of the decision that made the offer.
	Offer uint64
}

// Revoke proposes to take a running task's resources away.
type Revoke struct {
	Number uint64
	// Task is the number that TaskStarted gave it.
	Task   uint64
	Grace  time.Duration
	Reason string
	// Framework and Role are whom it is for; empty: nobody in particular.
	Framework string
	Role      string
}

// DecisionNumber implements Decision.
func (d *Offer) DecisionNumber() uint64 { return d.Number }

// DecisionNumber implements Decision.
func (d *InverseOffer) DecisionNumber() uint64 { return d.Number }

// DecisionNumber implements Decision.
func (d *Rescind) DecisionNumber() uint64 { return d.Number }

// DecisionNumber implements Decision.
func (d *Revoke) DecisionNumber() uint64 { return d.Number }

// RefusalReason is why the core did not carry out a decision.
type RefusalReason = allocatorv1.RefusalReason

// The reasons of a refusal.
const (
	RefusedStaleSession       = allocatorv1.RefusalReason_REFUSAL_REASON_STALE_SESSION
	RefusedUnknownAgent       = allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_AGENT
	RefusedAgentInactive      = allocatorv1.RefusalReason_REFUSAL_REASON_AGENT_INACTIVE
	RefusedUnknownFramework   = allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_FRAMEWORK
	RefusedFrameworkInactive  = allocatorv1.RefusalReason_REFUSAL_REASON_FRAMEWORK_INACTIVE
	RefusedRole               = allocatorv1.RefusalReason_REFUSAL_REASON_ROLE
	RefusedSuppressed         = allocatorv1.RefusalReason_REFUSAL_REASON_SUPPRESSED
	RefusedNotFree            = allocatorv1.RefusalReason_REFUSAL_REASON_NOT_FREE
	RefusedReserved           = allocatorv1.RefusalReason_REFUSAL_REASON_RESERVED
	RefusedCapability         = allocatorv1.RefusalReason_REFUSAL_REASON_CAPABILITY
	RefusedLimit              = allocatorv1.RefusalReason_REFUSAL_REASON_LIMIT
	RefusedRate               = allocatorv1.RefusalReason_REFUSAL_REASON_RATE
	RefusedMalformed          = allocatorv1.RefusalReason_REFUSAL_REASON_MALFORMED
	RefusedRevocationDisabled = allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_DISABLED
	RefusedRevocationBounds   = allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_BOUNDS
	RefusedUnknownOffer       = allocatorv1.RefusalReason_REFUSAL_REASON_UNKNOWN_OFFER
	// These two concern one task, and one role; RefusedRevocationBounds all.
	RefusedRevocationTask      = allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_TASK
	RefusedRevocationGuarantee = allocatorv1.RefusalReason_REFUSAL_REASON_REVOCATION_GUARANTEE
)
