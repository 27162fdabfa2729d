package agent

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	// inputs is how many of them wait for the loop; more make their givers wait.
	inputs = 1024
	// stopTimeout bounds what an agent still sends to the master when it stops.
	stopTimeout = 2 * time.Second
)

// ErrStopped is what an agent answers that runs no more, or not yet.
var ErrStopped = errors.New("the agent is not running")

// Agent is one agent. Its methods may be called from any goroutine.
type Agent struct {
	operatorv1.UnimplementedAgentOperatorServer

	options   Options
	logger    hclog.Logger
	work      *workDir
	store     *store
	shelf     *adapter.Shelf // what framework adapters store
	machine   *state.Machine // the loop's alone
	links     *links
	boxes     *containers
	volumes   *volumes
	executors *executors
	requests  *requests
	disk      *diskWatch
	metrics   *metrics
	traces    *traces // nil: nothing is traced

	inputs  chan state.Input
	queries chan func()

	born    time.Time // when the process began to be one
	started sync.Once
	running chan struct{} // closed when the loop begins
	ended   chan struct{} // closed when the loop has ended
	life    context.Context
	stop    context.CancelFunc
	tasks   sync.WaitGroup // goroutines
}

// New makes an agent and takes its database, which it holds until Run returns
// or Close is called. Nothing is started.
func New(options Options) (*Agent, error) {
	if options.Logger == nil {
		options.Logger = hclog.NewNullLogger()
	}
	if options.Authorizer == nil {
		options.Authorizer = rpc.AllowAll{}
	}
	switch {
	case options.DataDir == "":
		return nil, errors.New("agent: no data directory")
	case len(options.Masters) == 0 && options.Leaders == nil:
		return nil, errors.New("agent: no master's address")
	case options.Dial == nil:
		return nil, errors.New("agent: no way to dial a master")
	case len(options.Isolators) == 0:
		return nil, errors.New("agent: no isolator")
	}
	if _, err := resource.FromProto(options.Resources); err != nil {
		return nil, fmt.Errorf("agent: resources: %w", err)
	}
	if options.WorkDir == "" {
		options.WorkDir = filepath.Join(options.DataDir, "work")
	}
	root, err := filepath.Abs(options.WorkDir)
	if err != nil {
		return nil, fmt.Errorf("agent: work directory: %w", err)
	}
	file := filepath.Join(options.DataDir, "agent.db")
	if options.Forget {
		if err := moveAway(file, options.Logger); err != nil {
			return nil, err
		}
	}
	store, err := openStore(file)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		options: options, logger: options.Logger, work: &workDir{root: root}, store: store, born: time.Now(),
		executors: newExecutors(), requests: newRequests(),
		inputs: make(chan state.Input, inputs), queries: make(chan func()),
		running: make(chan struct{}), ended: make(chan struct{}),
	}
	a.life, a.stop = context.WithCancel(context.Background())
	a.metrics, a.traces = newMetrics(a), newTraces(options.Tracer)
	options.Tracer.Register(a.metrics.registry)
	a.shelf, err = openShelf(store)
	if err == nil {
		err = a.build()
	}
	if err != nil {
		store.close()
		return nil, err
	}
	return a, nil
}

func (a *Agent) build() error {
	o := a.options
	who, err := user.Current()
	if err != nil {
		return fmt.Errorf("agent: who runs it: %w", err)
	}
	config := state.Config{
		Hostname: o.Hostname, Version: o.Version, RPCAddress: o.RPCAddress, HTTPAddress: o.HTTPAddress, IP: ip(o.RPCAddress),
		BootID: bootID(), Endpoints: o.Endpoints, Resources: o.Resources, Attributes: o.Attributes, Domain: o.Domain,
		User: who.Username, Root: os.Geteuid() == 0, Backoff: o.RegistrationBackoff, PingTimeout: o.PingTimeout,
		Detected: o.Detected, Reconfiguration: o.Reconfiguration,
		Adapters: o.Adapters, ExecutorRegistrationTimeout: o.ExecutorRegistrationTimeout, ExecutorReregistrationTimeout: o.ExecutorReregistrationTimeout,
		ExecutorShutdownGrace: o.ExecutorShutdownGrace, RecoveryTimeout: o.RecoveryTimeout,
	}
	if _, err := crand.Read(config.Seed[:]); err != nil {
		return fmt.Errorf("agent: no randomness: %w", err)
	}
	a.volumes = &volumes{
		root: o.DataDir, logger: a.logger, post: a.post, run: a.run, pause: volumePause, queues: map[state.VolumePlace]*volumeQueue{},
	}
	if a.volumes.root, err = filepath.Abs(o.DataDir); err != nil {
		return fmt.Errorf("agent: data directory: %w", err)
	}
	a.boxes = &containers{
		isolators: map[string]*isolatorClient{}, work: a.work, endpoint: o.RPCAddress, hostname: o.Hostname,
		post: a.post, run: a.run, slots: make(chan struct{}, launchesAtOnce), workers: map[string]*worker{},
		metrics: a.metrics, traces: a.traces, volumes: a.volumes, logs: &isolatorv1.Logs{MaxBytes: uint64(max(0, o.LogSize))}, fetcher: o.Fetcher,
		secrets: &secrets{dir: o.SecretsDir, files: filepath.Join(a.volumes.root, "secrets")}, logger: a.logger,
		archives: filepath.Join(a.volumes.root, "archives"), stall: o.ProvisionStall,
	}
	if a.boxes.stall <= 0 {
		a.boxes.stall = provisionStall
	}
	if err := os.RemoveAll(a.boxes.archives); err != nil {
		return fmt.Errorf("agent: archives of images that an earlier process fetched: %w", err)
	}
	if o.LogFiles > 1 {
		a.boxes.logs.MaxFiles = uint32(o.LogFiles - 1) // the current one is not counted there
	}
	for _, i := range o.Isolators {
		if a.boxes.isolators[i.Name()] != nil {
			return fmt.Errorf("agent: isolator %q stands twice", i.Name())
		}
		config.Isolators = append(config.Isolators, i.Name())
		a.boxes.order = append(a.boxes.order, i.Name())
		a.boxes.isolators[i.Name()] = newIsolatorClient(i.Name(), a.logger, a.post, a.run)
	}
	a.disk = &diskWatch{work: a.work, volumes: a.volumes, enforce: o.EnforceDisk, list: a.listContainers, post: a.post}
	a.links = &links{dial: o.Dial, masters: o.Masters, detected: o.Leaders != nil, found: make(chan struct{}), post: a.post, run: a.run}
	a.machine = state.New(config)
	return nil
}

// ip is the host of an address when it is one that others can use.
func ip(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if parsed := net.ParseIP(host); parsed == nil || parsed.IsUnspecified() {
		return ""
	}
	return host
}

// Close lets go of the database of an agent that was never run.
func (a *Agent) Close() error {
	var err error
	a.started.Do(func() {
		a.stop()
		close(a.ended)
		err = a.store.close()
	})
	return err
}

// Run runs the agent until the context ends, and then leaves its tasks running;
// or until it cannot go on, and returns why; or until the master has it end
// with all its tasks. It can be called once.
func (a *Agent) Run(ctx context.Context) error {
	err := ErrStopped
	a.started.Do(func() { err = a.serve(ctx) })
	return err
}

func (a *Agent) serve(ctx context.Context) (err error) {
	defer func() {
		if closing := a.store.close(); err == nil {
			err = closing
		}
	}()
	defer close(a.ended)
	defer a.stop()
	records, err := a.store.load()
	if err != nil {
		return err
	}
	writing, stopWriting := context.WithCancel(context.Background())
	written := make(chan struct{})
	go func() { a.store.run(writing); close(written) }()
	defer func() { stopWriting(); <-written }()
	defer a.traces.end()
	defer a.tasks.Wait()
	defer a.stop() // before the wait

	err = a.do(a.machine.Step(time.Now(), state.Restore{Records: records}))
	if errors.As(err, new(*exit)) {
		return err.(*exit).result(a.store.db.Path())
	}
	if err := a.reviveIsolators(); err != nil {
		return err
	}
	for _, i := range a.options.Isolators {
		a.follow(a.boxes.client(i.Name()), i)
	}
	a.watchDisk()
	if a.options.Leaders != nil {
		a.run(func(ctx context.Context) { a.links.follow(ctx, a.options.Leaders(ctx)) })
	}
	close(a.running)
	err = a.loop(ctx)
	var over *exit
	if errors.As(err, &over) {
		err = over.Err
	}
	finishing, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	a.links.finish(finishing)
	return err
}

// watchDisk measures sandboxes and removes old ones, as the options say.
func (a *Agent) watchDisk() {
	o := a.options
	if o.DiskWatchInterval > 0 {
		a.run(func(ctx context.Context) { a.disk.run(ctx, o.DiskWatchInterval) })
	}
	if o.GCInterval > 0 {
		g := &collector{
			work: a.work, delay: o.GCDelay, headroom: o.GCDiskHeadroom, live: a.liveSandboxes,
			used: diskUsed, mounts: mountPoints, now: time.Now, logger: a.logger, metrics: a.metrics,
		}
		a.run(func(ctx context.Context) { g.run(ctx, o.GCInterval) })
	}
}

func (a *Agent) listContainers(ctx context.Context) ([]state.ContainerView, error) {
	v, err := a.State(ctx)
	return v.Containers, err
}

// liveSandboxes are the sandboxes of all that the agent has or still cleans up.
func (a *Agent) liveSandboxes(ctx context.Context) (map[string]bool, error) {
	containers, err := a.listContainers(ctx)
	live := map[string]bool{}
	for _, c := range containers {
		root, _ := split(c.Sandbox)
		live[root] = true
	}
	return live, err
}

// reviveIsolators gets the isolators that only old containers need.
func (a *Agent) reviveIsolators() error {
	for name, spec := range a.machine.Retired() {
		if a.options.Revive == nil {
			a.logger.Error("containers need an isolator that the configuration does not have; they stay until it is back", "isolator", name)
			continue
		}
		plugin, err := a.options.Revive(name, spec)
		if err != nil {
			a.logger.Error("an isolator that containers still need cannot be launched; they stay until it is back", "isolator", name, "error", err)
			continue
		}
		a.follow(a.addClient(name), plugin)
	}
	return nil
}

// addClient makes the client of an isolator, unless there is one.
func (a *Agent) addClient(name string) *isolatorClient {
	a.boxes.mu.Lock()
	defer a.boxes.mu.Unlock()
	client := a.boxes.isolators[name]
	if client == nil {
		client = newIsolatorClient(name, a.logger, a.post, a.run)
		a.boxes.isolators[name] = client
	}
	return client
}

// follow has a client follow its plugin, once, until it is retired.
func (a *Agent) follow(client *isolatorClient, plugin Isolator) {
	client.following.Do(func() {
		a.run(func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(client.over, cancel)()
			client.watch(ctx, plugin)
		})
	})
}

// SetIsolators says which isolators the configuration has now, in order. One
// that is new is used from now on; one that is gone keeps what it has a part in,
// until nothing is left and Options.Retire is called. A plugin that took the
// place of another behind the same Isolator needs no word of it here.
func (a *Agent) SetIsolators(list []Isolator) error {
	if len(list) == 0 {
		return errors.New("agent: no isolator")
	}
	var names []string
	for _, i := range list {
		a.addClient(i.Name())
		names = append(names, i.Name())
	}
	a.boxes.mu.Lock()
	a.boxes.order = names
	a.boxes.mu.Unlock()
	// The machine has to know an isolator before it hears of it.
	select {
	case a.inputs <- state.SetIsolators{Isolators: names}:
	case <-a.ended:
		return ErrStopped
	}
	for _, i := range list {
		a.follow(a.boxes.client(i.Name()), i)
	}
	return nil
}

// retire ends what there is of an isolator that nothing needs any more.
func (a *Agent) retire(name string) {
	a.boxes.mu.Lock()
	client := a.boxes.isolators[name]
	if client == nil || slices.Contains(a.boxes.order, name) {
		a.boxes.mu.Unlock()
		return
	}
	delete(a.boxes.isolators, name)
	a.boxes.mu.Unlock()
	client.retire()
	if a.options.Retire != nil {
		a.run(func(context.Context) { a.options.Retire(name) })
	}
}

// exit is the machine's wish to end, as an error.
type exit struct{ state.Exit }

func (e *exit) Error() string { return e.Reason }

// result is what a run that could not begin comes to.
func (e *exit) result(path string) error {
	if e.Err == nil || errors.As(e.Err, new(*state.IncompatibleError)) {
		return e.Err
	}
	return damaged(path, e.Err)
}

// run runs f as part of the agent: with a context that ends when the agent
// stops, and waited for then.
func (a *Agent) run(f func(context.Context)) {
	if a.life.Err() != nil {
		return
	}
	a.tasks.Add(1)
	go func() {
		defer a.tasks.Done()
		f(a.life)
	}()
}

// post gives the loop an input, and waits for room. It is dropped when the
// context, or the agent, ends first.
func (a *Agent) post(ctx context.Context, in state.Input) {
	select {
	case a.inputs <- in:
	case <-ctx.Done():
	case <-a.life.Done():
	}
}

// loop feeds the machine.
func (a *Agent) loop(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next := a.machine.NextDeadline(); next.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(time.Until(next))
		}
		taking := a.inputs
		if a.store.behind() {
			taking = nil // until the disk has caught up
		}
		var in state.Input
		select {
		case <-ctx.Done():
			return nil
		case in = <-taking:
		case <-timer.C:
			in = state.Tick{}
		case <-a.store.done:
			written, err := a.store.state()
			if err != nil {
				return err
			}
			in = state.Written{Sequence: written}
		case query := <-a.queries:
			query()
			continue
		}
		a.traces.input(in)
		if err := a.do(a.machine.Step(time.Now(), in)); err != nil {
			return err
		}
	}
}

// do carries out what the machine wants. It never blocks. Its only error is the
// machine's wish to end.
func (a *Agent) do(outputs []state.Output) error {
	for len(outputs) > 0 {
		o := outputs[0]
		outputs = outputs[1:]
		a.traces.output(o)
		switch o := o.(type) {
		case state.Checkpoint:
			a.store.put(o)
		case state.Connect:
			a.links.connect(o.Session)
		case state.Disconnect:
			a.links.close()
		case state.SendMaster:
			if !a.links.send(o) {
				a.links.close()
				outputs = append(outputs, a.machine.Step(time.Now(), state.LinkDown{Session: o.Session, Reason: rpc.ErrQueueFull.Error()})...)
			}
		case state.SendExecutor:
			if !a.executors.send(o) {
				outputs = append(outputs, a.machine.Step(time.Now(), state.ExecutorClosed{Stream: o.Stream})...)
			}
		case state.CloseExecutor:
			a.executors.close(o.Stream, nil)
		case state.RefuseExecutor:
			a.executors.refuse(o)
		case state.AnswerExecutor:
			a.executors.answer(o)
		case state.AnswerStandalone:
			a.requests.answer(o)
		case state.RemoveSandbox:
			a.boxes.removeSandbox(o)
		case state.Recover:
			a.boxes.recover(o)
		case state.Retire:
			a.retire(o.Isolator)
		case state.ClaimContainers:
			a.boxes.claim(o)
		case state.Launch:
			a.boxes.launch(o.Plan)
		case state.Start:
			a.boxes.begin(o)
		case state.Update:
			a.boxes.update(o.Plan)
		case state.Probe:
			a.boxes.probe(o)
		case state.Wait:
			a.boxes.wait(o)
		case state.Kill:
			a.boxes.kill(o)
		case state.Cleanup:
			a.boxes.cleanup(o)
		case state.MakeVolume:
			a.volumes.make(o)
		case state.RemoveVolume:
			a.volumes.remove(o)
		case state.ForgetVolume:
			a.volumes.forget(o)
		case state.Exit:
			return &exit{o}
		case state.Log:
			a.log(o)
		default:
			panic(fmt.Sprintf("agent: unknown output %T", o))
		}
	}
	return nil
}

func (a *Agent) log(l state.Log) {
	level := map[state.Level]hclog.Level{state.Debug: hclog.Debug, state.Info: hclog.Info, state.Warn: hclog.Warn, state.Error: hclog.Error}[l.Level]
	a.logger.Log(level, l.Message, l.Fields...)
}

// query runs f in the loop, where it may look at the machine.
func (a *Agent) query(ctx context.Context, f func(*state.Machine)) error {
	done := make(chan struct{})
	select {
	case a.queries <- func() { defer close(done); f(a.machine) }:
		<-done
		return nil
	case <-a.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// State is what the agent shows of itself now.
func (a *Agent) State(ctx context.Context) (state.View, error) {
	var v state.View
	err := a.query(ctx, func(m *state.Machine) { v = m.View() })
	return v, err
}

// End has the agent end all its tasks, and then itself: Run returns.
func (a *Agent) End(reason string) {
	go a.post(a.life, state.End{Reason: reason})
}

// Ready is closed once the agent has read its checkpoint and serves. It is never
// closed when that fails; Run returns then.
func (a *Agent) Ready() <-chan struct{} { return a.running }
