package command

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

func (c *cli) pluginVerifyCommand() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use: "verify BINARY", Short: "Run the conformance suite of its kind against a plugin binary", Args: cobra.ExactArgs(1),
		Long: `Starts the binary as a master or an agent would, plays the core against it, and
says of every rule of its contract whether the plugin keeps it, with what led to
each failure. It needs no cluster, and takes about half a minute.

An isolator starts containers while it is verified, with its own settings.`,
		Example: `  mezzo plugin verify ./mezzo-allocator-favourites
  mezzo plugin verify ./mezzo-allocator-favourites --config master.hcl   # its block gives the settings`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.pluginVerify(cmd.Context(), args[0], configFile)
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "a configuration file (or directory) whose block of this plugin gives its settings (default: none, as if the operator had written nothing)")
	c.addJSONFlag(cmd)
	return cmd
}

func (c *cli) pluginVerify(ctx context.Context, binary, configFile string) error {
	d, _, err := pluginhost.Inspect(ctx, binary)
	if err != nil {
		return err
	}
	block := config.Plugin{Kind: plugin.KindName(d.GetKind()), Name: d.GetName(), Body: hcl.EmptyBody()}
	var file *config.File
	if configFile != "" {
		if file, block, err = c.pluginBlock(configFile, block); err != nil {
			return err
		}
	}
	spec := pluginhost.FromConfig(block, "")
	spec.Path, spec.Checksum = binary, "" // it is this binary that is verified
	options := plugintest.Options{}
	if terminalWidth(c.err) > 0 {
		options.Done = func(name string) { fmt.Fprintf(c.err, "\r\033[Kchecked: %s", name) }
	}
	report, err := plugintest.Verify(ctx, openProbe(spec), options)
	if options.Done != nil {
		fmt.Fprint(c.err, "\r\033[K")
	}
	if err != nil {
		c.complain(file, err)
		return &exitError{code: 1}
	}
	if c.json {
		encoder := json.NewEncoder(c.out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		err = encoder.Encode(report)
	} else {
		err = report.Write(c.out)
	}
	if err == nil && !report.OK() {
		err = &exitError{code: 1}
	}
	return err
}

// pluginBlock finds the plugin's block in a configuration.
func (c *cli) pluginBlock(path string, want config.Plugin) (*config.File, config.Plugin, error) {
	file, diags := config.Load([]string{path})
	var found []config.Plugin
	if !diags.HasErrors() {
		defaults, err := c.defaults(os.TempDir()) // nothing is written there
		if err != nil {
			return nil, want, err
		}
		if file.HasMaster() || !file.HasAgent() {
			m, more := file.ForMaster(defaults)
			if diags = diags.Extend(more); m != nil {
				found = append(append(found, *m.Allocator), m.Frameworks...)
			}
		}
		if file.HasAgent() {
			a, more := file.ForAgent(defaults)
			if diags = diags.Extend(more); a != nil {
				found = append(append(found, a.Isolators...), a.Frameworks...)
			}
		}
	}
	if diags.HasErrors() {
		c.diagnose(file, unique(diags))
		return nil, want, &exitError{code: 1}
	}
	for _, p := range found {
		if p.ID() == want.ID() {
			return file, p, nil
		}
	}
	return nil, want, fmt.Errorf("%s declares no %s %q, which the binary says that it is", path, want.Kind, want.Name)
}

// openProbe launches the plugin as a host does, anew each time.
func openProbe(spec pluginhost.Spec) plugintest.Open {
	return func(ctx context.Context) (*plugintest.Plugin, error) {
		p, err := pluginhost.OpenProbe(ctx, spec, pluginhost.Options{})
		if err != nil {
			return nil, err
		}
		return &plugintest.Plugin{
			Conn: p.Conn, Config: p.Config, ContractVersion: p.ContractVersion,
			Close: p.Close, Exited: p.Exited(), Kill: p.Kill, LoseHost: p.LoseHost,
			Output: func() []string { return p.Output().Stderr },
		}, nil
	}
}
