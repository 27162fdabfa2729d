package rpc

import (
	"context"
	"crypto/x509"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/mezzo-os/mezzo/sdk/framework"
)

// Principal is who asks. Over mutual TLS it is what the client's certificate
// says: its common name, or else its first DNS name or URI. The zero value is
// an unknown caller, as all are without TLS.
type Principal struct {
	Name string
	// Adapter: a framework adapter of this process asks for itself, and for no
	// client of its own.
	Adapter bool
}

type principalKey struct{}

// WithPrincipal returns a context of a caller who was recognised otherwise
// than by a certificate (basic or bearer credentials over HTTP).
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom returns who makes the call that ctx belongs to.
func PrincipalFrom(ctx context.Context) Principal {
	if p, ok := ctx.Value(principalKey{}).(Principal); ok {
		return p
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			return Certified(info.State.VerifiedChains[0][0])
		}
	}
	return Principal{}
}

// Certified returns who a verified certificate names.
func Certified(c *x509.Certificate) Principal { return Principal{Name: framework.CertifiedName(c)} }

// Action is what somebody wants to do.
type Action string

// The actions that an Authorizer is asked about, and what Object.ID is there.
// Which of them have a role, a user and an owner is in package authorization.
const (
	RegisterAgent     Action = "register_agent"     // the agent's host name
	RegisterFramework Action = "register_framework" // the framework's name; Role is each of its roles
	TeardownFramework Action = "teardown_framework" // the framework's id; Role is each of its roles
	RunTask           Action = "run_task"           // the task's id; User is who it runs as
	KillTask          Action = "kill_task"          // the task's or executor's id
	ViewCluster       Action = "view_cluster"       // nothing
	ReadSandbox       Action = "read_sandbox"       // the container's, executor's or task's id
	RunCommand        Action = "run_command"        // exec and attach: the container's or task's id
	RunContainer      Action = "run_container"      // the container's id; it belongs to no framework
	ManageAgent       Action = "manage_agent"       // the verb: drain, maintenance…
	ManageImage       Action = "manage_image"       // the verb
	Administer        Action = "administer"         // the verb: reload, log level

	// What is done to a role, which is in Role.
	UpdateQuota  Action = "update_quota"  // the verb
	UpdateWeight Action = "update_weight" // the verb

	// What is done to resources; Role is each role that they are reserved to,
	// before or after.
	ReserveResources   Action = "reserve_resources"   // the resource's name
	UnreserveResources Action = "unreserve_resources" // the resource's name
	CreateVolume       Action = "create_volume"       // the persistence id
	DestroyVolume      Action = "destroy_volume"      // the persistence id
	ResizeVolume       Action = "resize_volume"       // the persistence id
)

// Object is what an action is done to. What is empty is not known, or the action
// has no such thing.
type Object struct {
	ID          string
	FrameworkID string
	Role        string
	// User is the operating system's user that a task runs as.
	User string
	// Owner is the principal whose framework, reservation or volume it is.
	Owner string
}

// Authorizer decides who may do what. It is asked at every call that changes
// something, at the user that a task runs as, and at every read of a sandbox.
// It must answer at once, from what it has in memory: it is asked from the
// master's event loop too. Safe for concurrent use.
//
// Authorize returns nil to allow. An error denies; its text is told to the
// caller (wrap ErrDenied, see Denied).
type Authorizer interface {
	Authorize(ctx context.Context, who Principal, action Action, object Object) error
}

// AllowAll allows everything to everybody.
type AllowAll struct{}

// Authorize returns nil.
func (AllowAll) Authorize(context.Context, Principal, Action, Object) error { return nil }
