// Package isolator is what the author of an isolator plugin imports: the
// contract as Go interfaces, and Serve.
//
// Terms. A container is what one task, executor or nested command runs in. Its
// spec is an OCI runtime specification in JSON. The chain of a container is the
// isolators that take part in it, in the order of the agent's HCL; exactly one
// of them, the launcher, makes its process. The others amend: they change the
// spec, or prepare something outside the container. A handle is an isolator's
// own note about a container: versioned, opaque to the agent, kept by it.
//
// Life cycle of a container:
//
//	Claim     every isolator says what it would do
//	Provision the launcher fetches the image, if there is one
//	Prepare   along the chain; each is given the spec that the last returned
//	Create    the launcher; the process exists and has run no instruction of the task
//	Isolate   along the chain, with the process's pid
//	Start     the launcher lets the process go
//	Wait      blocks until the container has ended
//	Cleanup   along the chain in reverse
//
// A container outlives the plugin and the agent. When either has restarted the
// agent calls Recover once, before anything else, with what it has kept.
// Recover destroys nothing. Cleanup is idempotent: it succeeds for a container
// that never was, and in a process that has just started.
//
// Every isolator has the four methods of Isolator. What else it can do it says
// by implementing more of the interfaces below; Serve announces them as
// capabilities and answers Unimplemented for the rest. An amender that sets one
// environment variable is whole with Isolator alone:
//
//	func (e env) Claim(ctx context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
//		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}, nil
//	}
//
// Concurrency: calls for different containers run at the same time. For one
// container the agent makes one call at a time, except that Wait, Usage, Exec,
// Attach, Signal and Kill may run beside each other and beside Update.
//
// Errors: status.Error of google.golang.org/grpc with NotFound for a container
// that is not known (never from Cleanup), InvalidArgument for what can never
// work, FailedPrecondition for a call out of turn, ResourceExhausted and
// Unavailable for what may pass. Any other error becomes Internal. The message
// is shown to the task's owner.
package isolator

import (
	"context"
	"io"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Isolator is what every isolator can do.
type Isolator interface {
	// Claim says whether the isolator would launch the container, amend it, or
	// has no part in it, and why. It has no effect.
	Claim(context.Context, *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error)
	// Prepare returns the spec with the isolator's own changes. What it makes
	// outside the spec it describes in the handle, which Cleanup is given.
	Prepare(context.Context, *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error)
	// Cleanup removes everything that the isolator made for the container,
	// its processes included.
	Cleanup(context.Context, *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error)
	// Recover takes up the containers that the agent knows, says how they are,
	// and names those that it found besides.
	Recover(context.Context, *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error)
}

// PidIsolator is an isolator that needs the process's pid, or its network
// namespace, before the task runs.
type PidIsolator interface {
	Isolate(context.Context, *isolatorv1.IsolateRequest) (*isolatorv1.IsolateResponse, error)
}

// Launcher is an isolator that makes containers.
type Launcher interface {
	// Create makes the container, with its process stopped before the first
	// instruction of the task.
	Create(context.Context, *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error)
	// Start lets the process go. It returns once the task's program runs, or
	// with the reason why it could not be started.
	Start(context.Context, *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error)
	// Wait blocks until the container has ended, with everything in it, and
	// may be called again and again.
	Wait(context.Context, *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error)
	// Signal sends a signal to the container's first process, or to all.
	Signal(context.Context, *isolatorv1.SignalRequest) (*isolatorv1.SignalResponse, error)
	// Kill sends the signal now and SIGKILL to every process of the container
	// once the grace period has passed, also when the plugin is gone by then.
	Kill(context.Context, *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error)
}

// Provisioner is a launcher that has to fetch what containers are made of.
type Provisioner interface {
	// Provision returns once the container's image is here, and is kept until
	// the container's Cleanup. It calls send whenever it has got further, at least
	// every ten seconds while it does. Cleanup also follows one that failed, and
	// one whose context ended; asked again it goes on where it was. An error of
	// send is to be returned.
	Provision(ctx context.Context, r *isolatorv1.ProvisionRequest, send func(*isolatorv1.ProvisionProgress) error) error
}

// ImageStore is an isolator that keeps images, which an operator may look at.
type ImageStore interface {
	// ImportImage reads an archive to its end and keeps its images. An error of
	// archive means that the sender has given up: nothing is kept then.
	ImportImage(ctx context.Context, start *isolatorv1.ImportImageStart, archive io.Reader) (*isolatorv1.ImportImageResponse, error)
	// ListImages lists all that there are, sorted by name.
	ListImages(context.Context, *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error)
	// RemoveImage forgets a name. NotFound when there is no such image,
	// FailedPrecondition while containers use it.
	RemoveImage(context.Context, *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error)
}

// Updater is an isolator that can change a running container.
type Updater interface {
	Update(context.Context, *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error)
}

// UsageReporter is an isolator that measures what containers use. A container
// that has ended meanwhile is left out of the answer.
type UsageReporter interface {
	Usage(context.Context, *isolatorv1.UsageRequest) (*isolatorv1.UsageResponse, error)
}

// Limiter is an isolator that notices containers which exceed a limit.
type Limiter interface {
	// Limitations calls send for each container that exceeded a limit and has
	// not been cleaned up, those of before the call first, until the context
	// ends. One that was sent before may be sent again on a new call.
	Limitations(ctx context.Context, send func(*isolatorv1.Limitation) error) error
}

// Session is one Exec or Attach: a stream between a terminal and a process.
// Recv may be called by one goroutine and Send by another.
type Session interface {
	// Recv returns what the far end typed, io.EOF when it will send no more.
	Recv() (*isolatorv1.ExecInput, error)
	Send(*isolatorv1.ExecOutput) error
}

// Execer is an isolator that can run another process in a container.
type Execer interface {
	// Exec runs the process and returns when it has ended and its status has
	// been sent. When the context ends the process is killed.
	Exec(context.Context, *isolatorv1.ExecStart, Session) error
}

// Attacher is an isolator that can connect to a container's first process.
type Attacher interface {
	Attach(context.Context, *isolatorv1.ExecStart, Session) error
}
