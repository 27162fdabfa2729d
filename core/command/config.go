package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
)

func (c *cli) configCommand() *cobra.Command {
	group := &cobra.Command{Use: "config", Short: "Work with configuration files", Long: "Works with configuration files, without a cluster. docs/configuration.md has all that may be in them.", Args: cobra.NoArgs, RunE: needVerb}
	var dataDir string
	check := &cobra.Command{
		Use:   "check FILE…",
		Short: "Find every error in a configuration, the plugins' own complaints included",
		Long: `Reads configuration files (or directories of them) as a master and an agent
would, starts each plugin for a moment to check its part, and prints every error
with its place. It prints nothing (with --json: []) and exits 0 when all is well.
What it takes starts: ports that are taken are all that it does not look at.

A file without a data_dir is for a start that gets --data-dir, or for mezzo dev;
that is a warning, unless --data-dir is given here, too.`,
		Example: "  mezzo config check /etc/mezzo.d\n  mezzo config check --json /etc/mezzo.d | jq -r '.[] | \"\\(.file):\\(.line): \\(.summary)\"'\n  mezzo config check --data-dir /var/lib/mezzo agent.hcl",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return c.configCheck(cmd.Context(), args, dataDir) },
	}
	check.Flags().StringVar(&dataDir, "data-dir", "", "what a start will get as its --data-dir")
	c.addJSONFlag(check, shapeOfValue(jsonList, config.Finding{}))
	group.AddCommand(check)
	return group
}

func needVerb(cmd *cobra.Command, _ []string) error {
	_ = cmd.Help()
	var verbs []string
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() && child.Name() != "help" {
			verbs = append(verbs, child.Name())
		}
	}
	return usage("%s: say what to do: %s", cmd.CommandPath(), strings.Join(verbs, ", "))
}

func (c *cli) configCheck(ctx context.Context, paths []string, dataDir string) error {
	file, diags := config.Load(paths)
	var plugins []checkedPlugin
	if !diags.HasErrors() {
		defaults, err := c.defaults(dataDir)
		if err != nil {
			return err
		}
		if diag := file.NoDataDir(); diag != nil && dataDir == "" {
			diag.Severity = hcl.DiagWarning
			diags = append(diags, diag)
			defaults.DataDir = "." // for the rest of the check; nothing is written
		}
		if file.IsForMaster() {
			m, more := file.ForMaster(defaults)
			diags = diags.Extend(more)
			if !more.HasErrors() {
				diags = diags.Extend(m.Check())
				plugins = append(plugins, checkedPlugin{*m.Allocator, m.PluginDir})
				for _, p := range m.Frameworks {
					plugins = append(plugins, checkedPlugin{p, m.PluginDir})
				}
			}
		}
		if file.IsForAgent() {
			a, more := file.ForAgent(defaults)
			diags = diags.Extend(more)
			if !more.HasErrors() {
				diags = diags.Extend(a.Check())
				for _, p := range slices.Concat(a.Isolators, a.Frameworks) {
					plugins = append(plugins, checkedPlugin{p, a.PluginDir})
				}
			}
		}
	}
	diags = unique(diags)
	failed := diags.HasErrors()
	if !c.json {
		c.diagnose(file, diags)
	}
	complaints := checkPlugins(ctx, plugins)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, complaint := range complaints {
		if !c.json {
			c.complain(file, complaint.err)
		}
		failed = true
		diags = diags.Extend(complaint.diagnostics())
	}
	if c.json {
		if err := c.printValue(config.Findings(diags)); err != nil {
			return err
		}
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// unique drops what master and agent both complain about.
func unique(diags hcl.Diagnostics) hcl.Diagnostics {
	seen := map[string]bool{}
	var out hcl.Diagnostics
	for _, d := range diags {
		if key := d.Error(); !seen[key] {
			seen[key] = true
			out = append(out, d)
		}
	}
	return out
}

// checkedPlugin is a plugin that a configuration declares, or that runs by default.
type checkedPlugin struct {
	block config.Plugin
	dir   string // where plugins' binaries are
}

// complaint is what is wrong with a plugin.
type complaint struct {
	block config.Plugin
	err   error
}

// diagnostics are those that the complaint holds, or one of all that it says.
func (x complaint) diagnostics() hcl.Diagnostics {
	var diags hcl.Diagnostics
	if errors.As(x.err, &diags) && len(diags) > 0 {
		return diags
	}
	diag := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: x.block.ID() + ": it does not start", Detail: x.err.Error()}
	if e := (*pluginhost.Error)(nil); errors.As(x.err, &e) {
		diag.Summary = e.Summary()
	}
	if (x.block.DefRange != hcl.Range{}) {
		diag.Subject = &x.block.DefRange
	}
	return hcl.Diagnostics{diag}
}

// checkPlugins starts each plugin for a moment, and returns what they complain of.
func checkPlugins(ctx context.Context, plugins []checkedPlugin) []complaint {
	var out []complaint
	checked := map[string]bool{}
	for _, p := range plugins {
		spec := pluginhost.FromConfig(p.block, p.dir)
		// A framework block of master and agent together is one block.
		if place := spec.ID() + " " + spec.Place; checked[place] && spec.Place != "" {
			continue
		} else {
			checked[place] = true
		}
		if err := pluginhost.Check(ctx, spec, pluginhost.Options{}); err != nil {
			out = append(out, complaint{p.block, err})
		}
	}
	return out
}

// complain prints an error: with the operator's lines where it has places.
func (c *cli) complain(file *config.File, err error) {
	var diags hcl.Diagnostics
	if file != nil && errors.As(err, &diags) && len(diags) > 0 {
		c.diagnose(file, diags)
		return
	}
	fmt.Fprintf(c.err, "mezzo: %s\n", err)
}

func (c *cli) diagnose(file *config.File, diags hcl.Diagnostics) {
	if len(diags) == 0 {
		return
	}
	var sources map[string]*hcl.File
	if file != nil {
		sources = file.Sources()
	}
	width := terminalWidth(c.err)
	_ = config.WriteDiagnostics(c.err, sources, diags, config.Format{Width: width, Color: width > 0 && os.Getenv("NO_COLOR") == ""})
}

// defaults are what a file may leave out.
func (c *cli) defaults(dataDir string) (config.Defaults, error) {
	exe, err := os.Executable()
	if err != nil {
		return config.Defaults{}, fmt.Errorf("find the mezzo binary, to find its plugins beside it: %w", err)
	}
	return config.Defaults{Executable: exe, DataDir: dataDir}, nil
}
