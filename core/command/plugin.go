package command

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

func (c *cli) pluginCommand() *cobra.Command {
	group := &cobra.Command{Use: "plugin", Short: "Work with plugin binaries", Long: "Works with plugin binaries, without a cluster. mezzo plugins lists those that a cluster runs.", Args: cobra.NoArgs, RunE: needVerb}
	inspect := &cobra.Command{
		Use: "inspect BINARY", Short: "Show what a plugin binary is and what its configuration may hold", Args: cobra.ExactArgs(1),
		Long:    "Starts the plugin for a moment and asks it: its kind, name and version, its checksum, the contract it speaks, and its schema.",
		Example: "  mezzo plugin inspect /usr/lib/mezzo/plugins/mezzo-allocator-drf",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, checksum, err := pluginhost.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				return c.writeJSON(d)
			}
			c.printPlugin(args[0], checksum, d)
			return nil
		},
	}
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
	if len(d.GetSchema().GetAttributes())+len(d.GetSchema().GetBlocks()) == 0 {
		fmt.Fprintln(c.out, "\nIts config block holds nothing.")
		return
	}
	fmt.Fprint(c.out, "\nconfig {\n")
	c.printSchema(d.Schema, "  ")
	fmt.Fprintln(c.out, "}")
}

func (c *cli) printSchema(s *pluginv1.Schema, indent string) {
	for _, a := range s.GetAttributes() {
		kind := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(a.Type.String(), "TYPE_")), "_", " ")
		switch {
		case a.Required:
			kind += ", required"
		case a.DefaultJson != "":
			kind += ", default " + defaultText(a)
		}
		fmt.Fprintf(c.out, "%s%s # %s%s\n", indent, a.Name, kind, sentence(a.Help))
	}
	for _, b := range s.GetBlocks() {
		label := ""
		if b.Label != "" {
			label = " <" + b.Label + ">"
		}
		fmt.Fprintf(c.out, "%s%s%s { #%s\n", indent, b.Name, label, strings.TrimPrefix(sentence(b.Help), ":"))
		c.printSchema(b.Schema, indent+"  ")
		fmt.Fprintf(c.out, "%s}\n", indent)
	}
}

// defaultText writes a default as the operator would.
func defaultText(a *pluginv1.Attribute) string {
	number, err := strconv.ParseInt(a.DefaultJson, 10, 64)
	switch {
	case err == nil && a.Type == pluginv1.Type_TYPE_DURATION:
		return strconv.Quote(time.Duration(number).String())
	case err == nil && a.Type == pluginv1.Type_TYPE_SIZE:
		return strconv.Quote(plugin.Size(number).String())
	}
	return a.DefaultJson
}

func sentence(help string) string {
	if help == "" {
		return ""
	}
	return ": " + help
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
