package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Options of a Host. Durations of zero take the default.
type Options struct {
	// Logger gets the host's own lines and, named <kind>.<name>, the plugins'.
	// Nil: nothing is logged.
	Logger hclog.Logger
	// DataDir holds run/ (sockets, swept at start) and plugins/<kind>-<name>/
	// (each plugin's own). It is made if it is missing. Required.
	DataDir string

	// OnStatus is called at every change of any instance's Status, before
	// Spec.OnStatus and under the same rules. May be nil.
	OnStatus func(Status)
	// OnCall is called after every unary call to a plugin, pings included, for
	// metrics: plugin is "allocator/drf", method "/mezzo.plugin.v1.Plugin/Ping". It
	// is called from many goroutines. May be nil.
	OnCall func(plugin, method string, took time.Duration, err error)

	StartTimeout     time.Duration // from launch to the handshake, and for Describe; 10 s
	ConfigureTimeout time.Duration // for Configure; 30 s
	ShutdownGrace    time.Duration // from asking a plugin to end to killing it; 5 s
	PingInterval     time.Duration // between pings; 5 s
	PingTimeout      time.Duration // a ping unanswered for this long ends the process; 10 s
	MetricsTimeout   time.Duration // for Metrics; 1 s
	BackoffMin       time.Duration // first pause before a restart; 0.5 s
	BackoffMax       time.Duration // longest pause; 1 min
	StableAfter      time.Duration // a process that lived this long ends a series of crashes; 1 min
}

// CrashLoop is how many deaths in a row, none after StableAfter, are shown as a
// crash loop.
const CrashLoop = 5

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&o.StartTimeout, 10*time.Second)
	set(&o.ConfigureTimeout, 30*time.Second)
	set(&o.ShutdownGrace, 5*time.Second)
	set(&o.PingInterval, 5*time.Second)
	set(&o.PingTimeout, 10*time.Second)
	set(&o.MetricsTimeout, time.Second)
	set(&o.BackoffMin, 500*time.Millisecond)
	set(&o.BackoffMax, time.Minute)
	set(&o.StableAfter, time.Minute)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Host runs plugins for one Mezzo process. Its methods may be called from any
// goroutine.
type Host struct {
	options Options
	logger  hclog.Logger
	sockets *socketDir

	mu        sync.Mutex
	instances []*Instance // in order of their start
	closed    bool
}

// New makes a host, and sweeps what a killed predecessor left in DataDir. It
// fails when another live process has that directory.
func New(options Options) (*Host, error) {
	options = options.withDefaults()
	if options.DataDir == "" {
		return nil, errors.New("plugin host: no data directory")
	}
	dir, err := filepath.Abs(options.DataDir)
	if err != nil {
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	options.DataDir = dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("plugin host: data directory: %w", err)
	}
	sockets, err := openSocketDir(dir)
	if err != nil {
		return nil, fmt.Errorf("plugin host: %w", err)
	}
	return &Host{options: options, logger: options.Logger, sockets: sockets}, nil
}

// Start brings a plugin up and supervises it from then on. It returns when the
// plugin is configured and has told its health, or with a *Error and nothing
// left running. ctx bounds the start only. A plugin that runs, or is starting,
// is not started twice, unless the other is the one that spec.Replaces.
func (h *Host) Start(ctx context.Context, spec Spec) (*Instance, error) {
	if plugin.KindName(spec.Kind) == "unknown" || spec.Name == "" || spec.Path == "" {
		return nil, fmt.Errorf("plugin host: start: kind %v, name %q, path %q: all three are needed", spec.Kind, spec.Name, spec.Path)
	}
	instance := newInstance(h, spec)
	if err := h.add(instance); err != nil {
		return nil, err
	}
	if err := instance.start(ctx); err != nil {
		h.remove(instance)
		return nil, err
	}
	return instance, nil
}

func (h *Host) add(i *Instance) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("plugin host: start %s: the host is closed", i.spec.title())
	}
	for _, other := range h.instances {
		if other.spec.ID() == i.spec.ID() && other != i.spec.Replaces {
			return fmt.Errorf("plugin host: start %s: it runs already; stop it first", i.spec.title())
		}
	}
	h.instances = append(h.instances, i)
	return nil
}

func (h *Host) remove(i *Instance) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.instances = slices.DeleteFunc(h.instances, func(other *Instance) bool { return other == i })
}

// FollowLogLevel has the plugins that have no log level of their own follow that
// of Options.Logger, which has changed. What a plugin did not send at its own
// level, which it was given when it was started, is not there to be shown.
func (h *Host) FollowLogLevel() {
	for _, i := range h.Instances() {
		i.followLogLevel()
	}
}

// Instances returns what runs, ordered by kind and name; of two with one
// identity, the one that is to be replaced comes first.
func (h *Host) Instances() []*Instance {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.instances)
	slices.SortStableFunc(out, func(a, b *Instance) int { return strings.Compare(a.spec.ID(), b.spec.ID()) })
	return out
}

// Status returns the status of every instance, ordered by kind and name.
func (h *Host) Status() []Status {
	var out []Status
	for _, i := range h.Instances() {
		out = append(out, i.Status())
	}
	return out
}

// Close stops all plugins at once and leaves no process and no socket behind.
// Each has ShutdownGrace; ctx may cut that short, and then they are killed. The
// host cannot be used afterwards. It may be called more than once.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	already := h.closed
	h.closed = true
	h.mu.Unlock()
	if already {
		return nil
	}
	var wg sync.WaitGroup
	for _, i := range h.Instances() {
		wg.Go(func() { i.Stop(ctx) })
	}
	wg.Wait()
	return h.sockets.close()
}

// pluginDataDir makes and returns a plugin's own directory.
func (h *Host) pluginDataDir(spec Spec) (string, error) {
	dir := filepath.Join(h.options.DataDir, "plugins", plugin.KindName(spec.Kind)+"-"+spec.Name)
	return dir, os.MkdirAll(dir, 0o700)
}
