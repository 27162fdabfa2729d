package framework

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Adapter is a plugin that speaks a dialect of its own to frameworks, executors
// or tools, or is a framework itself (a cron, a service manager).
//
// Terms. The adapter's *core* is the master or agent that runs it. An *endpoint*
// is a place where the adapter listens, by name; the core publishes it. The
// *side* is what the core is.
//
// Life cycle. Serve is called once, after Configure, and returns when the
// adapter listens; from then on the adapter lives until Shutdown, or until its
// process is killed, at any moment. It is then started again by itself, within a
// second at first, and must come back at the same endpoints: see Core.Listen.
// Meanwhile nothing is lost. Schedulers keep their tasks and executors live on:
// their clocks start only when the adapter serves again, so both only have to
// connect again.
//
// An adapter at a master runs at every master, at standbys too: Leadership tells
// it when its own master leads. What the core offers fails with Unavailable at
// any other time.
//
// Example, a whole adapter:
//
//	type echo struct{}
//
//	func (echo) Serve(ctx context.Context, core *framework.Core) (*framework.Serving, error) {
//		listener, err := core.Listen(ctx, "echo", "127.0.0.1:7000")
//		if err != nil {
//			return nil, err
//		}
//		go http.Serve(listener, handler(core.Operator()))
//		return &framework.Serving{Endpoints: map[string]string{"echo": listener.Addr().String()}}, nil
//	}
//
//	func (echo) Shutdown(context.Context) {}
//
//	func main() {
//		framework.Serve(framework.Definition{
//			Name: "echo", Version: "1.0.0", Summary: "Says what it hears.",
//			New: func(any, plugin.Environment) (framework.Adapter, []plugin.Diagnostic) { return echo{}, nil },
//		})
//	}
type Adapter interface {
	// Serve begins to serve. It returns once the adapter listens, with where; or
	// with an error for the operator, and the adapter is started again later. What
	// Serve leaves running may use ctx, which ends when Shutdown begins. Serve has
	// half a minute. It must not wait for the core to lead, or to be registered.
	Serve(ctx context.Context, core *Core) (*Serving, error)
	// Shutdown closes the listeners, ends what Serve left running, and waits for
	// it, within ctx. The context of Serve ends only afterwards. It is not called
	// when the process is killed.
	Shutdown(ctx context.Context)
}

// Serving is what an adapter tells its core.
type Serving struct {
	// Endpoints are where the adapter listens, host:port by name, as others
	// reach it. A name is a word of small letters, digits and underscores, by
	// custom the adapter's own; no other adapter of the process may use it. It
	// stands in the ready line: NAME=… at a master, NAME_agent=… at an agent.
	Endpoints map[string]string
	// ExecutorEnvironment is added to the environment of every executor that an
	// agent starts while the adapter serves. At a master it has no meaning.
	ExecutorEnvironment map[string]string
	// ExecutorTokenVariable is the environment variable in which each such
	// executor finds its own token, beside MEZZO_EXECUTOR_TOKEN; empty: none. An
	// adapter that wants executors to prove who they are passes the token on in
	// their calls, and the agent checks it.
	ExecutorTokenVariable string
}

// Side is what an adapter's core is.
type Side = frameworkv1.Side

// The sides.
const (
	Master = frameworkv1.Side_SIDE_MASTER
	Agent  = frameworkv1.Side_SIDE_AGENT
)

// Core is the master or agent that runs an adapter.
type Core struct {
	Side Side
	// Hostname is what the core calls its machine.
	Hostname string
	// Version is Mezzo's.
	Version string
	// AgentID is an agent's id; empty at a master, and at an agent that has not
	// registered yet. AgentOperator.GetState tells it then.
	AgentID string
	// Conn reaches the core's services. It lasts as long as the adapter.
	Conn grpc.ClientConnInterface
	// DataDir is a directory of the adapter's own on this machine, kept across
	// restarts.
	DataDir string
	Logger  hclog.Logger
	Health  *plugin.Health
}

// Scheduler is how schedulers speak to the master. Each stream of Subscribe is
// one scheduler's. Cancelling it says that the scheduler has disconnected.
func (c *Core) Scheduler() schedulerv1.SchedulerClient { return schedulerv1.NewSchedulerClient(c.Conn) }

// Operator asks a master, and gives it orders.
func (c *Core) Operator() operatorv1.OperatorClient { return operatorv1.NewOperatorClient(c.Conn) }

// Leadership tells whether the master leads, and who does.
func (c *Core) Leadership() frameworkv1.LeadershipClient {
	return frameworkv1.NewLeadershipClient(c.Conn)
}

// Executor is how executors speak to the agent.
func (c *Core) Executor() executorv1.ExecutorClient { return executorv1.NewExecutorClient(c.Conn) }

// AgentOperator asks an agent, and gives it orders.
func (c *Core) AgentOperator() operatorv1.AgentOperatorClient {
	return operatorv1.NewAgentOperatorClient(c.Conn)
}

// Authorization says whether a caller may see what the adapter has seen for
// itself. A core of before it answers UNIMPLEMENTED, and has no rules.
func (c *Core) Authorization() frameworkv1.AuthorizationClient {
	return frameworkv1.NewAuthorizationClient(c.Conn)
}

// Own is the same core for calls that the adapter makes for itself, and for no
// client: it may see the cluster, whatever the operator's rules say, and nothing
// else. A call with a principal stays that principal's.
func (c *Core) Own() *Core {
	own := *c
	own.Conn = ownConn{c.Conn}
	return &own
}

// ownConn marks calls as the adapter's own.
type ownConn struct{ grpc.ClientConnInterface }

func (c ownConn) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, OwnKey, "true"), method, args, reply, options...)
}

func (c ownConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, OwnKey, "true"), desc, method, options...)
}

// Store is the adapter's own small durable map: at a master for all masters
// together, at an agent for that agent.
func (c *Core) Store() frameworkv1.StoreClient { return frameworkv1.NewStoreClient(c.Conn) }

// PrincipalKey is the metadata by which an adapter tells the core for whom it
// makes a call. The core believes its adapters, and nobody else.
const PrincipalKey = "mezzo-principal"

// CertifiedName is the principal that a verified certificate names: its common
// name, or else its first DNS name or URI, or else its serial number.
func CertifiedName(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	default:
		return c.SerialNumber.String()
	}
}

// OwnKey is the metadata of calls that an adapter makes for itself; see Core.Own.
const OwnKey = "mezzo-own"

// WithPrincipal returns a context in which calls to the core are made for this
// principal, which the adapter has authenticated. Without it they are those of
// an unknown caller.
func WithPrincipal(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, PrincipalKey, name)
}

const (
	// listenPatience is how long an address may be in use by a process that is
	// just ending.
	listenPatience = 5 * time.Second
	// portPatience is the same for a port that another would do for.
	portPatience = 2 * time.Second
	listenRetry  = 50 * time.Millisecond
)

// Listen opens a listener at address, host:port. An adapter that comes back must
// be found where it was: an address that is in use is tried again for a few
// seconds, and port 0 takes a free port the first time and the same one, if it
// is still free, ever after. name tells the adapter's listeners apart.
func (c *Core) Listen(ctx context.Context, name, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if port != "0" {
		return listen(ctx, address, listenPatience)
	}
	file := filepath.Join(c.DataDir, "port-"+name)
	if before, err := os.ReadFile(file); err == nil {
		if listener, err := listen(ctx, net.JoinHostPort(host, strings.TrimSpace(string(before))), portPatience); err == nil {
			return listener, nil
		}
	}
	listener, err := listen(ctx, address, listenPatience)
	if err != nil {
		return nil, err
	}
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	if err := os.WriteFile(file, []byte(port+"\n"), 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("remember the port of %s: %w", name, err)
	}
	return listener, nil
}

func listen(ctx context.Context, address string, patience time.Duration) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var config net.ListenConfig
	for {
		listener, err := config.Listen(ctx, "tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return listener, err
		}
		select {
		case <-time.After(listenRetry):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; choose another address, or end the process that has it", err)
		}
	}
}

func sorted(in map[string]string) []string { return slices.Sorted(maps.Keys(in)) }
