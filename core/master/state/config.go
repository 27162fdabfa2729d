package state

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Config is what the machine is told when it is made. The zero value of a
// field means its default, unless its comment says otherwise.
type Config struct {
	// MasterID is unique to this term of leadership; ids of agents, frameworks
	// and offers begin with it. Required.
	MasterID string
	// Epoch is the leader's epoch: every message to an agent carries it.
	Epoch uint64
	// Version is the master's version. An agent with another major version is
	// refused; empty: any agent is taken.
	Version string
	// MasterInfo is told to schedulers in SUBSCRIBED.
	MasterInfo *mezzov1.MasterInfo
	// Region is the master's own region; agents elsewhere are offered to
	// region-aware frameworks only (which is policy: the allocator's).
	Region string
	// Seed is given to the allocator for its random choices.
	Seed uint64

	// OfferTimeout rescinds offers that nobody answered; 0: never.
	OfferTimeout time.Duration
	// PingInterval is how often an agent is pinged (15 s), and PingTimeouts how
	// many intervals without a message make it unreachable (5).
	PingInterval time.Duration
	PingTimeouts int
	// AgentReregisterTimeout is how long agents known from the registry have,
	// after recovery, to come back (10 min).
	AgentReregisterTimeout time.Duration
	// AgentForgetAfter is how long unreachable and gone agents are remembered
	// (14 days).
	AgentForgetAfter time.Duration
	// UnreachablePerMinute bounds how many agents a minute are marked
	// unreachable; 0: no bound.
	UnreachablePerMinute int
	// HeartbeatInterval is how often schedulers get a HEARTBEAT (15 s).
	HeartbeatInterval time.Duration
	// MaxFailoverTimeout bounds FrameworkInfo.failover_timeout; 0: no bound.
	MaxFailoverTimeout time.Duration

	// MaxCompletedFrameworks (50) and MaxCompletedTasks (1000, of each
	// framework) bound what is remembered of the past.
	MaxCompletedFrameworks int
	MaxCompletedTasks      int
	// MaxUnreachableTasks bounds the tasks of each framework that are remembered
	// as unreachable (1000), and MaxAwayAgents the agents that are remembered as
	// unreachable, and those that are gone (102,400 each). What is too much is
	// forgotten, the oldest first.
	MaxUnreachableTasks int
	MaxAwayAgents       int
	// RegistryBatchBytes bounds one registry write (256 KiB).
	RegistryBatchBytes int
	// PublishInterval is how long changed views are collected before they are
	// published. 0: after every step.
	PublishInterval time.Duration

	// What the allocator is told when its session opens.
	BatchInterval         time.Duration // 5 ms
	MinRefuse             time.Duration // 1 s
	MaxDecisionsPerSecond int           // 100,000
	MinAllocatable        []resource.Quantities
	FilterGPUResources    bool // no default: false means false
	// ReadyTimeout is how long an allocator has, after its snapshot, to say that
	// it is ready, before its session is closed (1 min).
	ReadyTimeout time.Duration
	// TellTasks: the allocator is told of each task, which it needs to know only
	// if it may revoke.
	TellTasks bool
	// Revocation bounds what the allocator may take back from running work.
	Revocation Revocation
	// SnapshotAgents is how many agents are told a step while a snapshot is
	// written (256).
	SnapshotAgents int

	// Roles are first values; what the registry has overrides them.
	Roles []Role
}

// Role is what operators set for a role.
type Role struct {
	Name string
	// Weight is its weight in thousandths: 1000 is 1.0. 0: 1000.
	Weight uint64
	// Guarantee and Limit are scalar quantities; a nil Limit is no limit.
	Guarantee resource.Quantities
	Limit     resource.Quantities
}

// Recovered is what the registry holds when the machine starts: every entry
// under the keys that RegistryWrite uses. The order does not matter.
type Recovered struct {
	Entries []Entry
}

// Entry is one key of the registry with its value.
type Entry struct {
	Key   string
	Value []byte // nil in a write: the key is deleted
}

func (c Config) withDefaults() Config {
	duration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	number := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	duration(&c.PingInterval, 15*time.Second)
	duration(&c.AgentReregisterTimeout, 10*time.Minute)
	duration(&c.AgentForgetAfter, 14*24*time.Hour)
	duration(&c.HeartbeatInterval, 15*time.Second)
	duration(&c.BatchInterval, 5*time.Millisecond)
	duration(&c.MinRefuse, time.Second)
	duration(&c.ReadyTimeout, time.Minute)
	number(&c.PingTimeouts, 5)
	number(&c.MaxCompletedFrameworks, 50)
	number(&c.MaxCompletedTasks, 1000)
	number(&c.MaxUnreachableTasks, 1000)
	number(&c.MaxAwayAgents, 102_400)
	number(&c.RegistryBatchBytes, 256<<10)
	number(&c.MaxDecisionsPerSecond, 100_000)
	number(&c.SnapshotAgents, 256)
	return c
}
