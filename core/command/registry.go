package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/registry"
)

// registryTimeout bounds a dump or a restore.
const registryTimeout = 5 * time.Minute

func (c *cli) registryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "registry", Short: "The masters' durable state: dump, restore",
		Long: "The registry is what a leader reads when it begins: agents and what is known of them, frameworks, quota, weights, the\n" +
			"maintenance schedule, what adapters store. These verbs take a master's configuration, and need no master.",
		Args: cobra.NoArgs,
		RunE: needVerb,
	}
	cmd.AddCommand(c.registryDumpCommand(), c.registryRestoreCommand())
	return cmd
}

// registryFlags say which registry.
type registryFlags struct {
	configs []string
	dataDir string
}

func (f *registryFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.configs, "config", nil, "the master's configuration: a file, or a directory of them; may be repeated")
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "", "the master's data directory (before data_dir of the files)")
}

// settings reads the configuration.
func (f *registryFlags) settings(c *cli) (*config.Master, *config.File, error) {
	defaults, err := c.defaults(f.dataDir)
	if err != nil {
		return nil, nil, err
	}
	settings, file, diags := (&serveFlags{configs: f.configs}).readMaster(defaults)
	return settings, file, c.resolved(file, diags)
}

func (c *cli) registryDumpCommand() *cobra.Command {
	var f registryFlags
	cmd := &cobra.Command{
		Use: "dump [--config FILE]… [--data-dir DIR]", Short: "Write all of the registry to stdout, as lines of JSON",
		Long: "It may be taken at any time of a registry in ZooKeeper, and of one in a file while its master is stopped.",
		Args: cobra.NoArgs, Example: "  mezzo registry dump --config /etc/mezzo.d > registry.jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, _, err := f.settings(c)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), registryTimeout)
			defer cancel()
			if settings.Registry.File != "" {
				// Opening would make an empty one.
				if _, err := os.Stat(settings.Registry.File); err != nil {
					return fmt.Errorf("registry: %w", err)
				}
			}
			r, err := master.OpenRegistry(settings, hclog.NewNullLogger(), nil)
			if err != nil {
				return err
			}
			defer r.Close()
			return registry.Dump(ctx, r, c.out)
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) registryRestoreCommand() *cobra.Command {
	var f registryFlags
	var force bool
	cmd := &cobra.Command{
		Use: "restore [--config FILE]… [--data-dir DIR] [--force] FILE", Short: "Make the registry what a dump says",
		Long: "Entries that the dump does not have are removed. Epochs go on above the dump's and the registry's, so that agents accept\n" +
			"the next leader. It refuses while a master leads: stop the masters first. A restore that was cut off is run again.",
		Args: cobra.ExactArgs(1), Example: "  mezzo registry restore --config /etc/mezzo.d registry.jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, _, err := f.settings(c)
			if err != nil {
				return err
			}
			var from io.Reader = c.in
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				from = file
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), registryTimeout)
			defer cancel()
			if !force {
				if err := nobodyLeads(ctx, settings); err != nil {
					return err
				}
			}
			r, err := master.OpenRegistry(settings, hclog.NewNullLogger(), nil)
			if err != nil {
				return err
			}
			defer r.Close()
			epoch, err := registry.Restore(ctx, r, from)
			if err != nil {
				return err
			}
			return c.done("the registry is restored; the next leader's epoch is above %d", epoch)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "restore though a master leads, or nobody knows; it stops leading, and may take the registry back before the restore is done")
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// nobodyLeads returns an error when a master leads, or ZooKeeper does not tell. A
// file that a master has open cannot be opened anyway.
func nobodyLeads(ctx context.Context, settings *config.Master) error {
	if settings.Election.Kind != "zookeeper" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, zookeeperTimeout)
	defer cancel()
	e, err := master.OpenElection(settings, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	defer e.Close()
	leader, told := <-e.Watch(ctx)
	switch {
	case !told:
		return fmt.Errorf("ZooKeeper does not tell who leads; is it reachable at %v?", settings.Election.Servers)
	case leader != nil:
		return fmt.Errorf("a master leads, at %s: stop the masters, and restore then (--force restores anyway)", leader.Endpoints["rpc"])
	}
	return nil
}
