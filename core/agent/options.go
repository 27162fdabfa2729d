package agent

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/core/trace"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Options are an agent's settings, resolved: nothing in them is looked up or
// defaulted further, except where a comment says so.
type Options struct {
	// DataDir holds agent.db. WorkDir holds the sandboxes; empty: DataDir/work.
	DataDir string
	WorkDir string

	Hostname string
	Version  string
	// RPCAddress and HTTPAddress are where this agent's own services can be
	// reached, as others are told.
	RPCAddress  string
	HTTPAddress string

	// Masters are tried one after the other; one that does not lead may tell who
	// does.
	Masters []string
	// Leaders, when set, is used instead of Masters: it sends the address of the
	// leader whenever that changes, empty while there is none, until its context
	// ends.
	Leaders func(ctx context.Context) <-chan string
	// Dial opens a connection to a master's address. It may return before the
	// connection is made. A test gives its own.
	Dial func(address string) (*grpc.ClientConn, error)

	// Resources is what the agent has to give; Detect finds it.
	Resources  []*mezzov1.Resource
	Attributes []*mezzov1.Attribute
	// Detected: nobody has configured the resources, so they may differ from start
	// to start. Reconfiguration is how the rest may; empty: state.Additive.
	Detected        bool
	Reconfiguration state.Reconfiguration
	// Forget moves the database away first, if there is one: the agent begins as
	// a new one, and ends the containers that it finds.
	Forget bool
	Domain *mezzov1.DomainInfo
	// Endpoints are told to the master beside those of adapters.
	Endpoints []*linkv1.Endpoint

	// Adapters are the names of the framework adapters that the configuration has:
	// see AdapterUp. Resources are withheld until each has served, for half a
	// minute at most.
	Adapters []string

	// Isolators are in order of the configuration; at least one.
	Isolators []Isolator
	// Revive launches an isolator that the configuration does not have any more
	// and that containers still need, from the Spec that it once reported. Nil:
	// such containers stay as they are until the isolator is configured again.
	Revive func(name string, spec []byte) (Isolator, error)

	// Retire is called, on a goroutine of its own, when an isolator is neither
	// configured nor needed by any container. May be nil.
	Retire func(name string)

	// Plugins is what GetState says of the plugins; nil: nothing.
	Plugins func() []*operatorv1.Plugin
	// Numbers are the metrics that plugins give of themselves; nil: none.
	Numbers func() []pluginhost.Numbers
	// Authorizer is asked about every read of a sandbox and of the state; nil:
	// everything is allowed.
	Authorizer rpc.Authorizer

	// RegistrationBackoff is the first pause between attempts to register; it
	// doubles up to a minute; 0: one second.
	RegistrationBackoff time.Duration
	// PingTimeout is how long a master may be silent before it has said how long
	// itself; 0: 75 seconds.
	PingTimeout time.Duration

	// What custom executors are given; 0: the defaults of state.Config.
	ExecutorRegistrationTimeout   time.Duration
	ExecutorReregistrationTimeout time.Duration
	ExecutorShutdownGrace         time.Duration
	RecoveryTimeout               time.Duration

	// LogSize is the size in bytes at which a sandbox's stdout or stderr is
	// rotated; LogFiles is how many files of each are kept, the current included;
	// 0: the isolator's own.
	LogSize  int64
	LogFiles int

	// GCDelay is for how long the sandbox of an executor that ended is kept while
	// the disk is empty; GCDiskHeadroom is the part of the disk that is to stay
	// free of sandboxes. They are looked at every GCInterval; 0: never.
	GCDelay        time.Duration
	GCDiskHeadroom float64
	GCInterval     time.Duration
	// DiskWatchInterval is how often sandboxes are measured; 0: never. With
	// EnforceDisk a container whose sandbox is larger than its disk ends.
	DiskWatchInterval time.Duration
	EnforceDisk       bool

	// ProvisionStall is for how long an isolator that fetches an image may be
	// silent; 0: two minutes.
	ProvisionStall time.Duration

	// Fetcher brings what tasks' URIs name; nil: such tasks fail.
	Fetcher *fetcher.Fetcher

	// SecretsDir has a file for each secret that tasks may name, or a directory with
	// one for each of its keys; empty: none are known.
	SecretsDir string

	// Tracer gets the spans of tasks whose launch the master traces; nil: nobody.
	// The agent does not close it.
	Tracer *trace.Tracer

	Logger hclog.Logger // nil: none
}

// Isolator is one isolator plugin as the agent sees it. Its process may come and
// go; what this stands for stays.
type Isolator interface {
	// Name is the name in the configuration: "cgroups".
	Name() string
	// Watch reports the state now and at every change, in order and one call at
	// a time, until the context ends. It returns then, and not before.
	Watch(ctx context.Context, report func(IsolatorState))
}

// IsolatorState is what is known of an isolator plugin at one moment.
type IsolatorState struct {
	// Conn is the connection to the plugin's process; nil while there is none.
	// Another value is another process, which has to recover first.
	Conn grpc.ClientConnInterface
	// Healthy is whether it may be given new work; Reason says why not.
	Healthy bool
	Reason  string
	// Spec is what is needed to launch this plugin again after the operator took
	// it out of the configuration: opaque here, and remembered.
	Spec []byte
}
