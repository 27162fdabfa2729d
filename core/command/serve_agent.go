package command

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/agent"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// agentFlags are the flags of `mezzo agent`.
type agentFlags struct {
	serveFlags
	masters   []string
	resources string
	hostname  string
	endTasks  bool
	share     int
	ports     int
	recover   string
}

func (c *cli) agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run an agent; or, with a verb, take one out of service", Args: cobra.NoArgs,
		Long: `Runs an agent. When it is stopped its tasks run on, and the next agent on the
same data directory recovers them; with --end-tasks they end with it.

The verbs are for operators: they speak to the master.`,
		Example: "  mezzo agent --config /etc/mezzo.d\n  mezzo agent --data-dir /tmp/a --master 127.0.0.1:5061",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.agent(cmd.Context(), f) },
	}
	cmd.AddCommand(c.agentOrders()...)
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.masters, "master", nil, "the masters' rpc addresses, or zk://HOST:PORT,…/PATH")
	flags.StringVar(&f.resources, "resources", "", "what it has, such as cpus:4;mem:4096;ports:[31000-32000] (default: detected)")
	flags.StringVar(&f.hostname, "hostname", "", "the name that offers show (default: the machine's)")
	flags.BoolVar(&f.endTasks, "end-tasks", false, "end all tasks when the agent is stopped")
	flags.IntVar(&f.share, "resources-share", 1, "divide what is detected among so many agents of this machine")
	flags.IntVar(&f.ports, "ports-part", 1, "with --resources-share: which part of the ports is this agent's, from 1")
	flags.StringVar(&f.recover, "recover", "reconnect", "reconnect: go on with what the agent has run; skip: put its database aside, begin as a new agent, and end what still runs")
	return cmd
}

func (c *cli) agent(ctx context.Context, f agentFlags) error {
	defaults, err := c.defaults(f.dataDir)
	if err != nil {
		return err
	}
	if err := f.check(); err != nil {
		return err
	}
	read := func() (*config.Agent, *config.File, hcl.Diagnostics) { return f.readAgent(defaults) }
	settings, file, diags := read()
	if err := c.resolved(file, diags); err != nil {
		return err
	}
	if err := os.MkdirAll(settings.DataDir, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	s, err := agent.NewService(ctx, agent.ServiceOptions{
		Config: *settings, Logger: newLogger(c.err, "agent", settings.LogLevel, settings.LogJSON), Version: Version(),
		Reread: read, EndTasks: f.endTasks, Forget: f.recover == "skip", ResourcesShare: f.share, PortsPart: f.ports,
	})
	if err != nil {
		return c.refused(file, err)
	}
	return c.refused(file, c.serve(ctx, s, f.pprof, "agent", "agent_http"))
}

// check says what is wrong with the flags.
func (f *agentFlags) check() error {
	if f.recover != "reconnect" && f.recover != "skip" {
		return usage("--recover: %q is neither reconnect nor skip", f.recover)
	}
	if f.masters = rejoined(f.masters); len(f.masters) > 0 {
		if err := config.CheckMasters(f.masters); err != nil {
			return usage("--master: %v", err)
		}
	}
	if f.resources != "" {
		if _, err := resource.Parse(f.resources); err != nil {
			return usage("--resources: %v", err)
		}
	}
	return nil
}

// readAgent reads what an agent is to do: files, and flags before them.
func (f *agentFlags) readAgent(defaults config.Defaults) (*config.Agent, *config.File, hcl.Diagnostics) {
	file, diags := config.Load(f.configs)
	if diags.HasErrors() {
		return nil, file, diags
	}
	settings, more := file.ForAgent(defaults)
	diags = append(diags, more...)
	if settings == nil {
		return nil, file, diags
	}
	override(&settings.PluginDir, f.pluginDir)
	override(&settings.RPC, f.rpc)
	override(&settings.HTTP, f.http)
	override(&settings.LogLevel, f.logLevel)
	override(&settings.Resources, f.resources)
	override(&settings.Hostname, f.hostname)
	if len(f.masters) > 0 {
		settings.Masters, settings.MastersRange = f.masters, hcl.Range{}
	}
	return settings, file, append(diags, settings.Check()...)
}
