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
}

func (c *cli) agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run an agent", Args: cobra.NoArgs,
		Long: `Runs an agent. When it is stopped its tasks run on, and the next agent on the
same data directory recovers them; with --end-tasks they end with it.`,
		Example: "  mezzo agent --config /etc/mezzo.d\n  mezzo agent --data-dir /tmp/a --master 127.0.0.1:5061",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.agent(cmd.Context(), f) },
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.masters, "master", nil, "the masters' rpc addresses")
	flags.StringVar(&f.resources, "resources", "", "what it has, such as cpus:4;mem:4096;ports:[31000-32000] (default: detected)")
	flags.StringVar(&f.hostname, "hostname", "", "the name that offers show (default: the machine's)")
	flags.BoolVar(&f.endTasks, "end-tasks", false, "end all tasks when the agent is stopped")
	flags.IntVar(&f.share, "resources-share", 1, "divide what is detected among so many agents of this machine")
	flags.IntVar(&f.ports, "ports-part", 1, "with --resources-share: which part of the ports is this agent's, from 1")
	return cmd
}

func (c *cli) agent(ctx context.Context, f agentFlags) error {
	file, defaults, err := c.load(f.serveFlags)
	if err != nil {
		return err
	}
	settings, err := c.agentSettings(file, defaults, f)
	if err != nil {
		return err
	}
	if err := c.resolved(file, settings.Check()); err != nil {
		return err
	}
	if err := os.MkdirAll(settings.DataDir, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	s, err := agent.NewService(ctx, agent.ServiceOptions{
		Config: *settings, Logger: newLogger(c.err, "agent", settings.LogLevel, settings.LogJSON), Version: Version(),
		EndTasks: f.endTasks, ResourcesShare: f.share, PortsPart: f.ports,
	})
	if err != nil {
		return c.refused(file, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.Ready():
			addresses := s.Addresses()
			c.announce("agent="+addresses["agent"], "agent_http="+addresses["agent_http"])
		case <-ctx.Done():
		}
	}()
	return c.refused(file, s.Run(ctx))
}

func (c *cli) agentSettings(file *config.File, defaults config.Defaults, f agentFlags) (*config.Agent, error) {
	settings, diags := file.ForAgent(defaults)
	if err := c.resolved(file, diags); err != nil {
		return nil, err
	}
	override(&settings.PluginDir, f.pluginDir)
	override(&settings.RPC, f.rpc)
	override(&settings.HTTP, f.http)
	override(&settings.LogLevel, f.logLevel)
	override(&settings.Resources, f.resources)
	override(&settings.Hostname, f.hostname)
	if len(f.masters) > 0 {
		if err := config.CheckMasters(f.masters); err != nil {
			return nil, usage("--master: %v", err)
		}
		settings.Masters, settings.MastersRange = f.masters, hcl.Range{}
	}
	if f.resources != "" {
		if _, err := resource.Parse(f.resources); err != nil {
			return nil, usage("--resources: %v", err)
		}
	}
	return settings, nil
}
