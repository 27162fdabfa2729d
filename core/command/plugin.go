package command

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

func (c *cli) pluginCommand() *cobra.Command {
	group := &cobra.Command{Use: "plugin", Short: "Work with plugin binaries", Long: "Works with plugin binaries, without a cluster. mezzo plugins lists those that a cluster runs.", Args: cobra.NoArgs, RunE: needVerb}
	var markdown bool
	inspect := &cobra.Command{
		Use: "inspect BINARY", Short: "Show what a plugin binary is and what its configuration may hold", Args: cobra.ExactArgs(1),
		Long: `Starts the plugin for a moment and asks it: its kind, name and version, its
checksum, the contract it speaks, and its settings, each with its type, its default
and what it is for. With --markdown it prints the settings alone, as tables for a
manual.`,
		Example:    "  mezzo plugin inspect /usr/lib/mezzo/plugins/mezzo-allocator-drf\n  mezzo plugin inspect --markdown ./mezzo-allocator-favourites > SETTINGS.md",
		SuggestFor: []string{"describe", "show"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if markdown && c.json {
				return usage("--markdown and --json are two forms: give one")
			}
			d, checksum, err := pluginhost.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case c.json:
				return c.writeJSON(d)
			case markdown:
				_, err := fmt.Fprint(c.out, settingsMarkdown(d.GetSchema()))
				return err
			}
			c.printPlugin(args[0], checksum, d)
			return nil
		},
	}
	inspect.Flags().BoolVar(&markdown, "markdown", false, "print the settings as tables in Markdown, for a manual")
	c.addJSONFlag(inspect, shapeOf(jsonOne, (*pluginv1.Description)(nil)))
	lock := &cobra.Command{
		Use: "lock FILE…", Short: "Write the checksums of a configuration's plugins into mezzo.lock.hcl beside it",
		Long: `Takes the checksum of every plugin that the configuration names, companions
included, and writes them to mezzo.lock.hcl beside the file (or in the
directory). From then on a plugin whose binary has changed is not started. Run
it again after an upgrade.`,
		Example: "  mezzo plugin lock /etc/mezzo.d",
		Args:    cobra.MinimumNArgs(1),
		RunE:    c.pluginLock,
	}
	c.addJSONFlag(lock, shapeOfValue(jsonList, lockedPlugin{}))
	group.AddCommand(c.pluginNewCommand(), inspect, c.pluginVerifyCommand(), lock)
	return group
}

func (c *cli) printPlugin(path, checksum string, d *pluginv1.Description) {
	fmt.Fprintf(c.out, "%s %q, version %s\n", plugin.KindName(d.Kind), d.Name, d.Version)
	if d.Summary != "" {
		fmt.Fprintln(c.out, d.Summary)
	}
	versions := make([]string, len(d.ContractVersions))
	for i, v := range d.ContractVersions {
		versions[i] = fmt.Sprint(v)
	}
	fmt.Fprintf(c.out, "\nfile          %s\nchecksum      %s\ncontract      mezzo.%s.v%s\n", path, checksum, plugin.KindName(d.Kind), strings.Join(versions, ", v"))
	if len(d.Capabilities) > 0 {
		fmt.Fprintf(c.out, "capabilities  %s\n", strings.Join(d.Capabilities, ", "))
	}
	fmt.Fprint(c.out, "\n"+settingsText(d.GetSchema(), cmp.Or(terminalWidth(c.out), helpWidth)))
}

// pluginLock pins the plugins of a configuration.
func (c *cli) pluginLock(cmd *cobra.Command, args []string) error {
	file, diags := config.Load(args)
	if diags.HasErrors() {
		c.diagnose(file, diags)
		return &exitError{code: 1}
	}
	defaults, err := c.defaults("/")
	if err != nil {
		return err
	}
	var plugins []config.Plugin
	dirs := map[string]string{} // plugin_dir, by plugin
	add := func(dir string, list ...config.Plugin) {
		for _, p := range list {
			if _, known := dirs[p.ID()]; !known {
				dirs[p.ID()] = dir
				plugins = append(plugins, p)
			}
		}
	}
	if file.IsForMaster() {
		m, more := file.ForMaster(defaults)
		diags = diags.Extend(more)
		if m != nil {
			add(m.PluginDir, append([]config.Plugin{*m.Allocator}, m.Frameworks...)...)
		}
	}
	if file.IsForAgent() {
		a, more := file.ForAgent(defaults)
		diags = diags.Extend(more)
		if a != nil {
			add(a.PluginDir, slices.Concat(a.Isolators, a.Frameworks)...)
		}
	}
	if diags.HasErrors() {
		c.diagnose(file, unique(diags))
		return &exitError{code: 1}
	}
	var entries []config.LockEntry
	locked := []lockedPlugin{}
	for _, p := range plugins {
		path := p.Binary(dirs[p.ID()])
		_, checksum, err := pluginhost.Inspect(cmd.Context(), path)
		if err != nil {
			return err
		}
		entries = append(entries, config.LockEntry{Kind: p.Kind, Name: p.Name, Path: path, Checksum: checksum})
		locked = append(locked, lockedPlugin{p.ID(), path, checksum})
	}
	lock := config.LockPath(args[0])
	if err := config.WriteLock(lock, entries); err != nil {
		return fmt.Errorf("write %s: %w", lock, err)
	}
	path, err := filepath.Abs(lock)
	if err != nil {
		return err
	}
	if c.json {
		return c.printValue(locked)
	}
	for _, p := range locked {
		fmt.Fprintf(c.out, "%s  %s\n", p.ID, p.Checksum)
	}
	fmt.Fprintf(c.out, "written to %s\n", path)
	return nil
}

// lockedPlugin is a plugin in a lock file, in JSON.
type lockedPlugin struct {
	ID       string `json:"id"`
	Path     string `json:"path"`
	Checksum string `json:"checksum"`
}
