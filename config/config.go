// Package config reads what an operator writes: HCL files, or their JSON form,
// resolved into the settings of a master and of an agent.
//
// Life cycle: Load parses every file and checks its shape; ForMaster and
// ForAgent resolve what one process needs, with defaults filled in. The blocks
// that belong to plugins are kept as HCL until the plugin has told its schema;
// DecodePlugin then decodes the operator's own text, so that a complaint about
// it has a file, a line and a column.
//
//	file, diags := config.Load([]string{"/etc/mezzo.d"})
//	if !diags.HasErrors() {
//		var more hcl.Diagnostics
//		master, more = file.ForMaster(config.Defaults{Executable: exe})
//		diags = append(diags, more...)
//	}
//	config.WriteDiagnostics(os.Stderr, file.Sources(), diags, config.Format{})
//
// A file may hold a master and an agent block; its allocator, isolator,
// framework, role, election, registry and tls blocks stand at the top. A
// framework block at the top is for every process of the file, one within the
// master or agent block for that process alone.
//
// A relative path is relative to the folder of the file that it stands in.
// Nothing here starts anything or looks at plugin binaries.
package config

import (
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Defaults are the settings that the caller knows.
type Defaults struct {
	// Executable is the path of the running program; plugin_dir is `plugins`
	// beside it when the file does not set it.
	Executable string
	// DataDir, when set, goes before data_dir of the file, and what lies in it
	// by default goes with it. With neither, the configuration is in error.
	DataDir string
}

// Master is the resolved configuration of a master. Durations are positive
// unless their comment says otherwise; addresses are host:port, where port 0
// takes a free one.
type Master struct {
	DataDir   string
	PluginDir string
	// Files are the configuration files that were read, in order; lock files are
	// not among them.
	Files []string

	RPC  string // agents, native frameworks, CLI (gRPC)
	HTTP string // UI, JSON, metrics, health
	// Hostname is the name under which others reach this master; empty: the
	// machine's own name, or the listener's host where it names one.
	Hostname string

	// OfferTimeout rescinds an offer that nobody answered; 0 never does.
	OfferTimeout time.Duration
	// BatchInterval is how long freed resources wait for more before they are
	// offered.
	BatchInterval time.Duration
	// MinRefuse is how long an offer that a framework declined whole is kept
	// from it, even with a filter of 0 s.
	MinRefuse time.Duration
	// MaxDecisionsPerSecond caps what one allocator session may decide.
	MaxDecisionsPerSecond int
	// MinAllocatable are the smallest resources worth an offer, as texts of
	// scalars; any of them is enough.
	MinAllocatable []string
	// FilterGPUResources keeps agents with GPUs for frameworks that are
	// GPU-aware.
	FilterGPUResources bool
	// Domain is where the master is; agents of other regions are offered to
	// region-aware frameworks only.
	Domain Domain

	// AgentPingInterval is the pause between pings to an agent;
	// AgentPingTimeouts is how many unanswered ones make it unreachable.
	AgentPingInterval time.Duration
	AgentPingTimeouts int
	// AgentReregisterTimeout is how long a new leader waits for known agents
	// before it marks the missing ones unreachable.
	AgentReregisterTimeout time.Duration
	// AgentRemovalsPerMinute limits how fast agents are marked unreachable; 0 is
	// no limit.
	AgentRemovalsPerMinute int

	// What is kept of the past: completed frameworks, and completed tasks of one
	// framework.
	MaxCompletedFrameworks int
	MaxCompletedTasks      int
	// MaxUnreachableTasks is how many tasks of a framework are remembered while
	// they are unreachable.
	MaxUnreachableTasks int
	// Agents that are unreachable, and those that are gone, are remembered for
	// AgentForgetAfter, MaxAwayAgents of each at most.
	AgentForgetAfter time.Duration
	MaxAwayAgents    int

	Revocation Revocation
	TLS        *TLS // nil: plain text
	// Insecure allows listeners beyond loopback without TLS.
	Insecure bool
	// Authorization is who may do what; nil: everybody everything.
	Authorization *Authorization
	Election      Election
	Registry      Registry
	Roles         []Role // in file order

	Allocator  *Plugin  // never nil
	Frameworks []Plugin // in file order

	LogLevel string // trace, debug, info, warn or error
	LogJSON  bool
	Tracing  *Tracing // nil: none
}

// Domain is where a machine is: a region, and a zone in it. The zero value is
// one that was not written.
type Domain struct {
	Region string
	Zone   string
}

// Proto is the domain as messages have it; nil for one that was not written.
func (d Domain) Proto() *mezzov1.DomainInfo {
	if d == (Domain{}) {
		return nil
	}
	return &mezzov1.DomainInfo{FaultDomain: &mezzov1.DomainInfo_FaultDomain{
		Region: &mezzov1.DomainInfo_FaultDomain_RegionInfo{Name: proto.String(d.Region)},
		Zone:   &mezzov1.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String(d.Zone)},
	}}
}

// MinAllocatableQuantities are MinAllocatable by resource name.
func (m *Master) MinAllocatableQuantities() (sets []resource.Quantities) {
	for _, text := range m.MinAllocatable {
		sets = append(sets, mustQuota(text))
	}
	return sets
}

// Revocation bounds what an allocator may take back from running work.
type Revocation struct {
	Enabled bool
	// MinGrace is the least time that an executor gets to end its task.
	MinGrace time.Duration
	// MaxPerMinute is the most tasks that may be revoked in a minute.
	MaxPerMinute int
}

// TLS names the files of mutual TLS. A relative path is relative to the folder of
// the file that it stands in, as all paths are.
type TLS struct {
	CA   string
	Cert string
	Key  string
	// DefRange is the place of the block.
	DefRange hcl.Range
}

// Tracing says where OpenTelemetry traces go.
type Tracing struct {
	// Endpoint is the collector, as http:// or https://host:port.
	Endpoint string
	Protocol string // "grpc" or "http/protobuf"
	// SampleRatio is the part of the offers, 0 to 1, whose lives are traced. The
	// master decides by it; an agent traces what the master traces.
	SampleRatio float64
	// QueueSize is how many spans wait to be sent; others are dropped.
	QueueSize int
	// CA verifies the collector; empty: the machine's own authorities.
	CA       string
	DefRange hcl.Range
}

// Election says how a leader is found.
type Election struct {
	Kind           string        // "standalone" or "zookeeper"
	Servers        []string      // zookeeper: host:port each
	Path           string        // zookeeper: the node under which everything lies, "/mezzo"
	SessionTimeout time.Duration // zookeeper
	Auth           string        // zookeeper: "user:password"; empty: none
	TLS            *ZooKeeperTLS // zookeeper; nil: plain text
	DefRange       hcl.Range     // the zero range when no block was written
}

// ZooKeeperTLS names the files of TLS to ZooKeeper.
type ZooKeeperTLS struct {
	CA string
	// Cert and Key are this process's own; both or none.
	Cert     string
	Key      string
	DefRange hcl.Range
}

// Registry says where the master's durable state lies.
type Registry struct {
	Kind           string        // "bbolt" or "zookeeper"
	File           string        // bbolt: the database, by default registry.db in DataDir
	Servers        []string      // zookeeper: the election's unless written
	Path           string        // zookeeper: the election's unless written
	SessionTimeout time.Duration // zookeeper: the election's unless written
	Auth           string        // zookeeper: the election's unless written
	TLS            *ZooKeeperTLS // zookeeper: the election's unless written
	DefRange       hcl.Range
}

// Role holds the first values of a role; the registry overrides them once an
// operator has set them.
type Role struct {
	Name   string
	Weight float64 // above 0; 1 when not written
	// Guarantee and Limit are resource texts ("cpus:8;mem:16384") that
	// resource.Parse accepts, without reservations; empty when not written.
	Guarantee string
	Limit     string
	DefRange  hcl.Range
}

// Agent is the resolved configuration of an agent.
type Agent struct {
	DataDir   string
	PluginDir string
	Files     []string
	// WorkDir holds the sandboxes; by default `work` in DataDir.
	WorkDir string

	// Masters are "host:port" addresses or one "zk://host:port,…/path"; see
	// ParseZooKeeper.
	Masters []string
	// MastersRange is where Masters was written; the zero range when it was not.
	MastersRange hcl.Range
	RPC          string // executors, CLI (gRPC)
	HTTP         string
	// Hostname is what offers show and the name under which others reach this
	// agent; empty: the machine's own name.
	Hostname string
	// Resources is the resource text; empty: detect them.
	Resources string
	// Attributes are in order of their names. Values are text as written; a
	// number or a range ("[1-5]") has the meaning that Mesos gives it.
	Attributes []AgentAttribute
	// Domain is where the agent is, as offers show it.
	Domain Domain

	// RegistrationBackoff is the first pause between attempts to register; it
	// doubles, with jitter, up to a minute.
	RegistrationBackoff time.Duration
	// PingTimeout is how long an agent waits for a word from its master before it
	// looks for a leader again.
	PingTimeout time.Duration

	// ReconfigurationPolicy says how resources and attributes may differ from those
	// that the agent had when it ran last: "additive", "equal" or "any".
	ReconfigurationPolicy string

	// What custom executors are given: from their start, and from the agent's
	// restart, until they subscribe; from SHUTDOWN until they are killed.
	// RecoveryTimeout is how long they try to reach an agent that is away.
	ExecutorRegistrationTimeout   time.Duration
	ExecutorReregistrationTimeout time.Duration
	ExecutorShutdownGrace         time.Duration
	RecoveryTimeout               time.Duration

	// LogSize is the size in bytes at which a sandbox's stdout or stderr is
	// rotated; LogFiles is how many files of each are kept, the current included.
	LogSize  int64
	LogFiles int

	// GCDelay is for how long the sandbox of an executor that ended is kept; less
	// the fuller the disk is. GCDiskHeadroom is the part of the disk, 0 to 1, that
	// is to stay free of old sandboxes.
	GCDelay        time.Duration
	GCDiskHeadroom float64
	GCInterval     time.Duration
	// DiskWatchInterval is how often sandboxes are measured. With EnforceDisk a
	// container that has more than its disk resources ends.
	DiskWatchInterval time.Duration
	EnforceDisk       bool

	Fetcher Fetcher
	Secrets Secrets

	Isolators  []Plugin // in file order, never empty
	Frameworks []Plugin // in file order

	TLS      *TLS
	Insecure bool
	// Authorization is who may do what; nil: everybody everything.
	Authorization *Authorization
	LogLevel      string
	LogJSON       bool
	Tracing       *Tracing // nil: none
}

// Fetcher is how an agent fetches what tasks' URIs name.
type Fetcher struct {
	// CacheSize is how many bytes of downloads are kept; 0: none.
	CacheSize int64
	// MaxSize is how many bytes a download may have, and an archive unpack to.
	MaxSize int64
	// StallTimeout is after how long without a byte a download is given up.
	StallTimeout time.Duration
}

// Secrets is where an agent finds the secrets that tasks name.
type Secrets struct {
	// Dir has a file for each, or a directory with a file for each of its keys;
	// empty: none are known.
	Dir string
}

// AgentAttribute is a name and its value.
type AgentAttribute struct {
	Name  string
	Value string
}

// The kinds of plugins, as HCL writes them.
const (
	KindAllocator = "allocator"
	KindIsolator  = "isolator"
	KindFramework = "framework"
)

// Plugin is one plugin block. Its config block is kept as HCL until the plugin
// has told its schema.
type Plugin struct {
	Kind string // KindAllocator, KindIsolator or KindFramework
	Name string
	// Path is the plugin's binary where the operator names one; see Binary.
	Path string
	// Checksum is "sha256:" and 64 hexadecimal digits, then ",NAME=sha256:…" for
	// each companion program, from the block or from the lock file; empty when
	// neither gives one.
	Checksum string
	// LogLevel is empty when the process's own applies.
	LogLevel string
	// Body is the content of the config block; an empty body when there is none.
	Body hcl.Body
	// DefRange is the header of the plugin's block; the zero range for a plugin
	// that is there by default.
	DefRange hcl.Range
	// ConfigRange is the header of the config block; the zero range if none.
	ConfigRange hcl.Range
	// ChecksumRange is where Checksum was written.
	ChecksumRange hcl.Range
}

// ID is the plugin's one identity, "allocator/drf".
func (p Plugin) ID() string { return p.Kind + "/" + p.Name }

// Binary is the file to launch: Path, else mezzo-<kind>-<name> in pluginDir.
func (p Plugin) Binary(pluginDir string) string {
	if p.Path != "" {
		return p.Path
	}
	return filepath.Join(pluginDir, "mezzo-"+p.Kind+"-"+p.Name)
}
