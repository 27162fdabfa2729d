package state

import (
	"time"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Config is what an agent is told at its start. Zero durations and counts take
// the default that their comment names.
type Config struct {
	Hostname    string
	Version     string
	RPCAddress  string
	HTTPAddress string
	// IP is told as a container's address when it has no network of its own;
	// empty: none is told.
	IP string
	// BootID is the kernel's, to tell a restart from a reboot.
	BootID string
	// Endpoints are told beside those of adapters.
	Endpoints []*linkv1.Endpoint

	Resources  []*mezzov1.Resource
	Attributes []*mezzov1.Attribute
	// Detected: nobody has configured the resources. They may differ from those
	// of before in any way.
	Detected bool
	// Reconfiguration is how the rest may differ: Additive.
	Reconfiguration Reconfiguration
	Domain          *mezzov1.DomainInfo

	// Isolators are the names, in order of the configuration.
	Isolators []string
	// Adapters are the names of the framework adapters in the configuration. None
	// serves before AdapterUp says so; until each has, or half a minute has passed,
	// resources are withheld.
	Adapters []string

	// User is who the agent runs as. Only Root may run tasks as somebody else.
	User string
	Root bool

	// Seed is where all identifiers and all jitter come from. It must be random
	// and new for every process, or identifiers repeat.
	Seed [32]byte

	// Backoff is the first pause between attempts to register, doubled up to
	// MaxBackoff: 1 s, 1 min.
	Backoff    time.Duration
	MaxBackoff time.Duration
	// ConnectTimeout bounds how long a stream may take to open: 15 s.
	ConnectTimeout time.Duration
	// PingTimeout is how long a master may be silent until it has said how long
	// itself: 75 s.
	PingTimeout time.Duration
	// Retry is the first pause before an update is sent again, doubled up to
	// MaxRetry: 10 s, 10 min.
	Retry    time.Duration
	MaxRetry time.Duration
	// Grace is what a task is given between SIGTERM and SIGKILL when nobody says
	// otherwise: 3 s.
	Grace time.Duration
	// ExecutorRegistrationTimeout is how long a custom executor has to subscribe
	// from its start: 1 min.
	ExecutorRegistrationTimeout time.Duration
	// ExecutorReregistrationTimeout is how long it has to subscribe again after
	// the agent has started again and serves what it subscribes through: 10 s.
	ExecutorReregistrationTimeout time.Duration
	// SubscriptionBackoffMax is the longest pause that executors are told to make
	// between attempts to subscribe again; a fifth of the above, so that several
	// attempts fit.
	SubscriptionBackoffMax time.Duration
	// RecoveryTimeout is how long executors try to subscribe again, and how long
	// one may be away while the agent runs: 15 min.
	RecoveryTimeout time.Duration
	// ExecutorShutdownGrace is what a custom executor is given between SHUTDOWN
	// and SIGKILL when it does not say otherwise: 5 s.
	ExecutorShutdownGrace time.Duration
	// MaxCompleted is how many ended tasks are remembered: 1000.
	MaxCompleted int
	// MaxRegister is the size in bytes above which a registration is sent in
	// parts: 256 KiB.
	MaxRegister int
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.Backoff, time.Second},
		{&c.MaxBackoff, time.Minute},
		{&c.ConnectTimeout, 15 * time.Second},
		{&c.PingTimeout, 75 * time.Second},
		{&c.Retry, 10 * time.Second},
		{&c.MaxRetry, 10 * time.Minute},
		{&c.Grace, 3 * time.Second},
		{&c.ExecutorRegistrationTimeout, time.Minute},
		{&c.ExecutorReregistrationTimeout, 10 * time.Second},
		{&c.RecoveryTimeout, 15 * time.Minute},
		{&c.ExecutorShutdownGrace, 5 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if c.SubscriptionBackoffMax <= 0 {
		c.SubscriptionBackoffMax = max(c.ExecutorReregistrationTimeout/5, time.Millisecond)
	}
	if c.Reconfiguration == "" {
		c.Reconfiguration = Additive
	}
	if c.MaxCompleted <= 0 {
		c.MaxCompleted = 1000
	}
	if c.MaxRegister <= 0 {
		c.MaxRegister = 256 << 10
	}
	return c
}
