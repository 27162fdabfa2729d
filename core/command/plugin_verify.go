package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

// verifyFlags are what `plugin verify` can be told.
type verifyFlags struct {
	config   string
	only     []string
	settle   time.Duration
	patience time.Duration
	quiet    bool
	list     bool
}

func (c *cli) pluginVerifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use: "verify BINARY", Short: "Run the conformance suite of its kind against a plugin binary", Args: cobra.ExactArgs(1),
		Long: `Starts the binary as a master or an agent would, plays the core against it, and
says of every rule of its contract whether the plugin keeps it, with what led to
each failure. It needs no cluster, and takes about half a minute.

An isolator starts containers while it is verified, with its own settings.

The exit status is 0 when no check failed, 1 when one did or the plugin could not
be started, 2 when the command makes no sense.`,
		Example: `  mezzo plugin verify ./mezzo-allocator-favourites
  mezzo plugin verify ./mezzo-allocator-favourites --config master.hcl   # its block gives the settings
  mezzo plugin verify ./mezzo-allocator-favourites --list                # what would be checked
  mezzo plugin verify ./mezzo-allocator-favourites --only filters,revive # while repairing them`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.settle < 0:
				return usage("--settle %s: it must not be negative", f.settle)
			case f.patience < 0:
				return usage("--patience %s: it must not be negative", f.patience)
			case f.quiet && (c.json || f.list):
				return usage("--quiet goes with neither --json nor --list")
			}
			return c.pluginVerify(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "a configuration file (or directory) whose block of this plugin gives its settings (default: none, as if the operator had written nothing)")
	flags.StringSliceVar(&f.only, "only", nil, "make these checks alone, by `NAME,...`")
	flags.DurationVar(&f.settle, "settle", 0, "for how long a plugin that knows all must be silent to be taken to have decided all (default: as quick as it is, 50 to 300 ms)")
	flags.DurationVar(&f.patience, "patience", 0, "how long to wait for what the plugin must do, on a busy machine (default: 10s)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print the checks that failed, and nothing when there are none")
	flags.BoolVar(&f.list, "list", false, "print the checks for a plugin of this kind, and make none")
	c.addJSONFlag(cmd, shapeOfValue(jsonOne, plugintest.Report{}))
	return cmd
}

func (c *cli) pluginVerify(ctx context.Context, binary string, f verifyFlags) error {
	d, _, err := pluginhost.Inspect(ctx, binary)
	if err != nil {
		return err
	}
	if f.list {
		return c.listChecks(plugintest.Checks(d.GetKind()))
	}
	block := config.Plugin{Kind: plugin.KindName(d.GetKind()), Name: d.GetName(), Body: hcl.EmptyBody()}
	var file *config.File
	if f.config != "" {
		if file, block, err = c.pluginBlock(f.config, block); err != nil {
			return err
		}
	}
	spec := pluginhost.FromConfig(block, "")
	spec.Path, spec.Checksum = binary, "" // it is this binary that is verified
	options := plugintest.Options{Only: f.only, Settle: f.settle, Patience: f.patience}
	if terminalWidth(c.err) > 0 && !f.quiet {
		options.Done = func(name string) { fmt.Fprintf(c.err, "\r\033[Kchecked: %s", name) }
	}
	report, err := plugintest.Verify(ctx, openProbe(spec), options)
	if options.Done != nil {
		fmt.Fprint(c.err, "\r\033[K")
	}
	if unknown := (*plugintest.UnknownCheckError)(nil); errors.As(err, &unknown) {
		return usage("--only: %v", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.complain(file, err)
		return &exitError{code: 1}
	}
	switch {
	case c.json:
		err = c.printValue(report)
	case f.quiet:
		err = report.WriteFailed(c.out)
	default:
		err = report.Write(c.out)
	}
	if err == nil && !report.OK() {
		err = &exitError{code: 1}
	}
	return err
}

// printValue prints what is no message as JSON.
func (c *cli) printValue(v any) error {
	encoder := json.NewEncoder(c.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// listChecks prints what a suite would check.
func (c *cli) listChecks(checks []plugintest.Check) error {
	if c.json {
		type check struct {
			Name string `json:"name"`
			Rule string `json:"rule"`
		}
		out := []check{}
		for _, x := range checks {
			out = append(out, check{x.Name, x.Rule})
		}
		return c.printValue(out)
	}
	width := 0
	for _, x := range checks {
		width = max(width, len(x.Name))
	}
	for _, x := range checks {
		if _, err := fmt.Fprintf(c.out, "%-*s  %s\n", width, x.Name, x.Rule); err != nil {
			return err
		}
	}
	return nil
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
		if file.IsForMaster() {
			m, more := file.ForMaster(defaults)
			if diags = diags.Extend(more); m != nil {
				found = append(append(found, *m.Allocator), m.Frameworks...)
			}
		}
		if file.IsForAgent() {
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
			Close: p.Close, Offer: p.Offer, Exited: p.Exited(), Kill: p.Kill, LoseHost: p.LoseHost,
			Output: func() []string { return p.Output().Stderr },
		}, nil
	}
}
