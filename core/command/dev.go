package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// devOptions are the flags of `mezzo dev`.
type devOptions struct {
	agents    int
	dir       string
	configs   []string
	resources string
	rpc, http string
	// Where the Mesos adapters listen; empty: where they do by default, or, with
	// a free port for rpc, at free ports.
	mesos, mesosAgent string
	containerd        string // the socket of the one that agents run images on; empty: they run none
}

// startTimeout is how long a master or an agent may take to serve.
const startTimeout = 15 * time.Second

func (c *cli) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Start a whole cluster on this machine, in the foreground",
		Long: `Starts a master, agents and the default plugins, each a process of its own, and
keeps them in the foreground. It needs no root and no other software. When the
master or an agent dies it prints the command that starts it again, and stays.
Ctrl-C ends everything that it started, tasks too. SIGHUP has master and agents
read their configuration again.`,
		Example: `  mezzo dev
  mezzo dev --agents 3 --resources 'cpus:4;mem:4096'
  sudo mezzo dev --containerd                      # and then: mezzo run --image busybox -- echo hello
  mezzo dev --rpc 127.0.0.1:0 --http 127.0.0.1:0   # free ports; the ready line tells them`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.dev(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.agents, "agents", 1, "how many agents")
	f.StringVar(&o.dir, "dir", "", "where state and sandboxes lie; kept at the end (default: a new directory, removed at the end)")
	f.StringArrayVar(&o.configs, "config", nil, "a configuration file for master and agents; may be repeated")
	f.StringVar(&o.resources, "resources", "", "what each agent has, such as cpus:4;mem:4096 (default: detected, and shared among the agents)")
	f.StringVar(&o.rpc, "rpc", "127.0.0.1:5061", "the master's rpc address; port 0 takes a free port, the agents' too")
	f.StringVar(&o.http, "http", "127.0.0.1:5060", "the master's http address; port 0 takes a free port, the agents' too")
	f.StringVar(&o.mesos, "mesos", "", "where the master's Mesos API listens (default 127.0.0.1:5050, or a free port if --rpc has port 0)")
	f.StringVar(&o.mesosAgent, "mesos-agent", "", "where the first agent's Mesos API listens (default 127.0.0.1:5051, or a free port if --rpc has port 0); further agents take free ports")
	f.StringVar(&o.containerd, "containerd", "", "agents run images too, on the containerd that listens at this socket; needs root")
	f.Lookup("containerd").NoOptDefVal = containerdSocket
	return cmd
}

// dev is one running development cluster.
type dev struct {
	c         *cli
	o         devOptions
	exe       string
	temporary bool
	// Whether the configuration files are for the master, and for the agents.
	forMaster, forAgents bool
	// Whether the configuration has a framework "mesos" of its own for them.
	ownMaster, ownAgents bool
	children             []*child
	ended                chan *child
}

func (c *cli) dev(ctx context.Context, o devOptions) (err error) {
	if o.agents < 1 || o.agents > 100 {
		return usage("--agents %d: give a number from 1 to 100", o.agents)
	}
	if _, err := resource.Parse(o.resources); o.resources != "" && err != nil {
		return usage("--resources: %v", err)
	}
	// Shims of tasks leave their session and lose their parents. As a subreaper
	// this process becomes their parent, so that none is out of its reach.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of the cluster's processes: %w", err)
	}
	d := &dev{c: c, o: o, ended: make(chan *child, o.agents+1)}
	if err := d.prepare(); err != nil {
		return err
	}
	defer func() {
		if stopErr := d.stop(); err == nil {
			err = stopErr
		}
	}()
	terminal := hasTerminal()
	hangups, stopHangups := hangups()
	defer stopHangups()
	if err := d.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.announce()
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, unix.SIGCHLD)
	defer signal.Stop(orphans)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			if terminal && !hasTerminal() {
				return nil // it was closed
			}
			fmt.Fprintln(c.err, "mezzo: SIGHUP: the master and the agents read their configuration again; what changes is in their lines")
			for _, child := range d.children {
				child.hangUp()
			}
		case <-orphans:
			d.reapOrphans()
		case child := <-d.ended:
			fmt.Fprintf(c.err, "\n%s has ended (%s). Start it again with:\n\n  %s\n\n", child.name, child.outcome(), child.restartCommand())
		}
	}
}

// hasTerminal reports whether the process has a controlling terminal: a SIGHUP
// after which it has none any more tells that it was closed.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

func (d *dev) prepare() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the mezzo binary: %w", err)
	}
	d.exe = exe
	for i, path := range d.o.configs {
		if d.o.configs[i], err = filepath.Abs(path); err != nil {
			return err
		}
	}
	if err := d.readConfigs(); err != nil {
		return err
	}
	if err := d.checkContainerd(); err != nil {
		return err
	}
	if d.o.dir == "" {
		d.temporary = true
		if d.o.dir, err = os.MkdirTemp("", "mezzo-dev-"); err != nil {
			return fmt.Errorf("make a directory for the cluster (--dir names one): %w", err)
		}
		// Tasks of other users must be able to reach their sandboxes.
		if err := os.Chmod(d.o.dir, 0o755); err != nil {
			return err
		}
	}
	if d.o.dir, err = filepath.Abs(d.o.dir); err != nil {
		return err
	}
	return os.MkdirAll(d.o.dir, 0o755)
}

// readConfigs finds out for whom the configuration is: one that has only a
// master block says nothing to the agents, and the other way round.
func (d *dev) readConfigs() error {
	file, diags := config.Load(d.o.configs)
	if diags.HasErrors() {
		d.c.diagnose(file, diags)
		return &exitError{code: 1}
	}
	d.forMaster = file.IsForMaster()
	d.forAgents = file.HasAgent() || !file.HasMaster()
	return d.readAdapters(file)
}

// readAdapters finds out which processes get their Mesos adapter from the
// configuration. What else is wrong with it they say themselves.
func (d *dev) readAdapters(file *config.File) error {
	defaults := config.Defaults{Executable: d.exe, DataDir: d.o.dir}
	if defaults.DataDir == "" {
		defaults.DataDir = "."
	}
	if m, _ := file.ForMaster(defaults); d.forMaster && m != nil {
		d.ownMaster = slices.ContainsFunc(m.Frameworks, isMesos)
	}
	if a, _ := file.ForAgent(defaults); d.forAgents && a != nil {
		d.ownAgents = slices.ContainsFunc(a.Frameworks, isMesos)
		if err := d.checkIsolators(a.Isolators); err != nil {
			return err
		}
	}
	switch {
	case d.ownMaster && d.o.mesos != "":
		return usage("--mesos %s: the configuration has a framework %q for the master already; set listen there", d.o.mesos, mesosAdapter)
	case d.ownAgents && d.o.mesosAgent != "":
		return usage("--mesos-agent %s: the configuration has a framework %q for the agents already; set listen there", d.o.mesosAgent, mesosAdapter)
	}
	return nil
}

// mesosAdapter is the framework adapter that a development cluster has.
const mesosAdapter = "mesos"

func isMesos(p config.Plugin) bool { return p.Name == mesosAdapter }

// mesosConfig writes the configuration of a process's Mesos adapter, and returns
// how the process is told of it.
func (d *dev) mesosConfig(process, listen, usual string) ([]string, error) {
	if listen == "" {
		if listen = usual; strings.HasSuffix(d.o.rpc, ":0") {
			listen = "127.0.0.1:0"
		}
	}
	path := filepath.Join(d.o.dir, process+"-mesos.hcl")
	text := fmt.Sprintf("# Written by mezzo dev.\nframework %q {\n  config {\n    listen = %q\n  }\n}\n", mesosAdapter, listen)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure the Mesos adapter: %w", err)
	}
	return []string{"--config", path}, nil
}

func (d *dev) start(ctx context.Context) error {
	args := []string{"master", "--data-dir", filepath.Join(d.o.dir, "master"), "--rpc", d.o.rpc, "--http", d.o.http}
	if !d.ownMaster {
		more, err := d.mesosConfig("master", d.o.mesos, "127.0.0.1:5050")
		if err != nil {
			return err
		}
		args = append(args, more...)
	}
	master := d.newChild("master", args)
	if err := d.launch(ctx, master); err != nil {
		return err
	}
	var agents []*child
	for i := 1; i <= d.o.agents; i++ {
		args, err := d.agentArgs(i, master.fields["rpc"])
		if err != nil {
			return err
		}
		agents = append(agents, d.newChild(fmt.Sprintf("agent%d", i), args))
	}
	// They start together: a cluster of ten must not take ten times as long.
	results := make(chan error, len(agents))
	for _, a := range agents {
		d.children = append(d.children, a)
		go func() { results <- a.start(ctx) }()
	}
	var errs []error
	for range agents {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func (d *dev) launch(ctx context.Context, c *child) error {
	d.children = append(d.children, c)
	return c.start(ctx)
}

func (d *dev) agentArgs(i int, master string) ([]string, error) {
	rpc, http := "127.0.0.1:0", "127.0.0.1:0"
	if i == 1 && !strings.HasSuffix(d.o.rpc, ":0") {
		rpc = "127.0.0.1:5063"
	}
	if i == 1 && !strings.HasSuffix(d.o.http, ":0") {
		http = "127.0.0.1:5062"
	}
	args := []string{
		"agent", "--data-dir", filepath.Join(d.o.dir, fmt.Sprintf("agent%d", i)),
		"--rpc", rpc, "--http", http, "--master", master, "--end-tasks",
	}
	switch {
	case d.o.resources != "":
		args = append(args, "--resources", d.o.resources)
	case d.o.agents > 1:
		args = append(args, "--resources-share", strconv.Itoa(d.o.agents), "--ports-part", strconv.Itoa(i))
	}
	isolators, err := d.containerdConfig(i)
	if err != nil {
		return nil, err
	}
	args = append(args, isolators...)
	if d.ownAgents {
		return args, nil
	}
	listen := d.o.mesosAgent
	if i > 1 {
		listen = "127.0.0.1:0"
	}
	more, err := d.mesosConfig(fmt.Sprintf("agent%d", i), listen, "127.0.0.1:5051")
	return append(args, more...), err
}

// announce prints the ready line and what to do next.
func (d *dev) announce() {
	words := []string{"ready"}
	for i, c := range d.children {
		if i == 0 {
			words = append(words, addressFields(c.fields, []string{"rpc", "http"})...)
			continue
		}
		suffix := ""
		if i > 1 {
			suffix = strconv.Itoa(i)
		}
		words = append(words, "agent"+suffix+"="+c.fields["agent"], "agent"+suffix+"_http="+c.fields["agent_http"])
		for _, name := range slices.Sorted(maps.Keys(c.fields)) {
			if strings.HasSuffix(name, "_agent") {
				words = append(words, name+suffix+"="+c.fields[name])
			}
		}
	}
	fmt.Fprintln(d.c.out, strings.Join(words, " "))
	address := ""
	if rpc := d.children[0].fields["rpc"]; rpc != defaultAddress {
		address = " --address " + rpc
	}
	image := ""
	if d.o.containerd != "" {
		image = fmt.Sprintf("  %s run%s --image busybox -- echo hello\n", d.exe, address)
	}
	fmt.Fprintf(d.c.err, `
A cluster is running; its state is in %s. Ctrl-C ends it. Try, in another terminal:

  %[2]s run%[3]s -- sh -c 'echo hello; sleep 5'
  %[2]s status%[3]s
  %[2]s tasks%[3]s --all
%[4]s
`, d.o.dir, d.exe, address, image)
}
