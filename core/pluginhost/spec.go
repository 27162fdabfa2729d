package pluginhost

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Spec says which plugin to run, and how.
type Spec struct {
	Kind pluginv1.Kind
	Name string
	// Path is the binary, absolute or relative to the working directory.
	Path string
	// Checksum is what ParseChecksum reads; empty: the binary is not pinned.
	Checksum string
	// Place is where the operator declared the plugin, "master.hcl:12,1-17", for
	// errors; it may be empty.
	Place string
	// LogLevel is the least level of the plugin's log lines; empty: the host's.
	// It is set on the plugin's own logger, which should be independent of the
	// host's (hclog.LoggerOptions.IndependentLevels).
	LogLevel string
	// ContractVersions are the versions of the kind's contract that the caller
	// speaks. Empty: version 1.
	ContractVersions []uint32
	// Replaces is a running instance that this one is to take the place of: both
	// may have one identity while the new one is started and made ready. The
	// caller stops one of them. They share the plugin's own directory. Nil: there
	// is none.
	Replaces *Instance
	// Env is added to the plugin's environment, which is otherwise clean.
	Env map[string]string

	// Configure turns what the operator wrote into the JSON that the plugin gets,
	// given the plugin's schema. It is called once a launch. Its error is the
	// operator's to read and is shown as it is. Nil: an empty object.
	Configure func(schema *pluginv1.Schema) ([]byte, error)
	// MapDiagnostics turns a plugin's complaints about its configuration into one
	// error that shows the operator's lines. It is called when there are any; if
	// none is an error, what it returns is logged as a warning. Nil: plain text.
	MapDiagnostics func(schema *pluginv1.Schema, complaints []*pluginv1.Diagnostic) error

	// OnUp is called, on a goroutine of its own, when a process is configured and
	// may be used. ctx ends when that process is gone or is being stopped. OnUp
	// may return at once or live as long as ctx. May be nil.
	OnUp func(ctx context.Context, g *Generation)
	// OnDown is called after ctx of OnUp has ended and OnUp has returned, with the
	// reason, nil for a stop that was asked for. The next OnUp comes after it has
	// returned. May be nil.
	OnDown func(g *Generation, err error)
	// OnStatus is called at every change of Status, in order. It must neither
	// block nor call the instance. May be nil.
	OnStatus func(Status)

	label string // what title returns instead, where kind and name are not known
}

// ID is the plugin's one identity, "allocator/drf", as in metrics.
func (s Spec) ID() string { return plugin.KindName(s.Kind) + "/" + s.Name }

// title is how the operator knows it: `allocator "drf"`.
func (s Spec) title() string {
	if s.label != "" {
		return s.label
	}
	return plugin.KindName(s.Kind) + ` "` + s.Name + `"`
}

// logName is "allocator.drf".
func (s Spec) logName() string { return plugin.KindName(s.Kind) + "." + s.Name }

func (s Spec) versions() []uint32 {
	if len(s.ContractVersions) == 0 {
		return []uint32{1}
	}
	return s.ContractVersions
}

// State is what an instance is doing.
type State string

const (
	// Starting: the first process is being brought up.
	Starting State = "starting"
	// Healthy, Degraded and Unhealthy are the plugin's own word. Degraded is also
	// shown while it crashes again and again; see Status.Message.
	Healthy   State = "healthy"
	Degraded  State = "degraded"
	Unhealthy State = "unhealthy"
	// Restarting: there is no process; the next one is coming.
	Restarting State = "restarting"
	// Stopped: there is no process and none will come.
	Stopped State = "stopped"
)

// Status is an instance at one moment, for people, metrics and APIs.
type Status struct {
	Kind     string // "allocator", "isolator", "framework"
	Name     string
	Path     string
	Checksum string // of the binary that was last launched, "sha256:…"
	// Pinned says that the operator gave a checksum and it was checked.
	Pinned bool

	Version         string // the plugin's own
	ContractVersion uint32
	Capabilities    []string

	State   State
	Message string    // why, in a sentence; empty when healthy
	Since   time.Time // when State last changed

	PID        int    // 0: no process
	Generation uint64 // of the newest process; 0: none yet
	Restarts   int    // how often a process had to be replaced
	LastError  string // of the last process that died or did not start; one line
}

// ToProto is the status as operators get it; host is "master" or an agent's id.
func (s Status) ToProto(host string) *operatorv1.Plugin {
	m := &operatorv1.Plugin{
		Id: s.Kind + "/" + s.Name, Version: s.Version, State: string(s.State), Reason: s.Message,
		Path: s.Path, Checksum: s.Checksum, Pid: int64(s.PID), Restarts: uint64(s.Restarts), LastError: s.LastError,
		ContractVersion: s.ContractVersion, Capabilities: s.Capabilities, Host: host,
	}
	if !s.Since.IsZero() {
		m.Since = timestamppb.New(s.Since)
	}
	return m
}

// Generation is one process of an instance.
type Generation struct {
	Number uint64
	PID    int
	// Conn reaches all services of the plugin. Its calls fail once the process is
	// gone, with Unavailable or Canceled. It is closed by the host, never by its
	// users.
	Conn *grpc.ClientConn
	// Description is what the plugin said of itself.
	Description *pluginv1.Description
	// ContractVersion was agreed on.
	ContractVersion uint32
	Checksum        string

	process *process
	ctx     context.Context
	fail    func(error)
	numbers numbers // its own metrics
}

// Context ends when the process is gone or is being stopped.
func (g *Generation) Context() context.Context { return g.ctx }

// Fail says that this process broke its contract, or does not do what it is
// there for: it is killed and replaced, and err is shown as the reason, a
// sentence about "it". It does not wait. Calls after the first, or after the end
// of the process, do nothing.
func (g *Generation) Fail(err error) { g.fail(err) }

// Offer serves something of the host's to this process and returns the broker
// id at which the plugin's Environment.Dial reaches it. It ends with the
// process. The options are for the server.
func (g *Generation) Offer(register func(s grpc.ServiceRegistrar), options ...grpc.ServerOption) (uint32, error) {
	return g.process.offer(register, options)
}
