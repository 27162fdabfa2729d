package config

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// ForMaster resolves the configuration of a master. A file that holds an agent
// block and no master block is an error; one that holds neither gives the
// defaults. The result is nil when there is an error.
func (f *File) ForMaster(defaults Defaults) (*Master, hcl.Diagnostics) {
	d := &decoder{}
	if f.HasAgent() && !f.HasMaster() {
		d.add(invalid(f.agent.rng, "No master block", "This configuration is for an agent. Write master {} to run a master with it, too."))
	}
	m := f.master.Master
	m.Files = f.Paths()
	m.DataDir, m.PluginDir = f.directories(d, defaults)
	m.TLS, m.Insecure = f.explicitTLS, f.base.insecure
	m.LogLevel, m.LogJSON = f.base.logLevel, f.base.logJSON
	f.checkListeners(d, f.master.listeners)

	m.Election = Election{Kind: standalone}
	if f.election != nil {
		m.Election = *f.election
	}
	m.Registry = Registry{Kind: bbolt}
	if f.registry != nil {
		m.Registry = *f.registry
	}
	if m.Registry.Kind == bbolt && m.Registry.File == "" {
		m.Registry.File = filepath.Join(m.DataDir, "registry.db")
	}
	m.Roles = slices.Clone(f.roles)
	allocator := f.byDefault(KindAllocator, "drf")
	if f.allocator != nil {
		allocator = *f.allocator
	}
	m.Allocator = &allocator
	m.Frameworks = slices.Concat(f.frameworks, f.master.frameworks)
	if f.HasMaster() && !f.HasAgent() {
		d.unused(f.isolators, "a master", "agent")
	}
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return &m, d.diags
}

// ForAgent resolves the configuration of an agent, as ForMaster does for a
// master.
func (f *File) ForAgent(defaults Defaults) (*Agent, hcl.Diagnostics) {
	d := &decoder{}
	if f.HasMaster() && !f.HasAgent() {
		d.add(invalid(f.master.rng, "No agent block", "This configuration is for a master. Write agent {} to run an agent with it, too."))
	}
	a := f.agent.Agent
	a.Files = f.Paths()
	a.DataDir, a.PluginDir = f.directories(d, defaults)
	if a.WorkDir == "" {
		a.WorkDir = filepath.Join(a.DataDir, "work")
	}
	a.TLS, a.Insecure = f.explicitTLS, f.base.insecure
	a.LogLevel, a.LogJSON = f.base.logLevel, f.base.logJSON
	f.checkListeners(d, f.agent.listeners)

	a.Masters = slices.Clone(a.Masters)
	a.Attributes = slices.Clone(a.Attributes)
	a.Isolators = slices.Clone(f.isolators)
	if len(a.Isolators) == 0 {
		a.Isolators = []Plugin{f.byDefault(KindIsolator, "cgroups")}
	}
	a.Frameworks = slices.Concat(f.frameworks, f.agent.frameworks)
	if f.allocator != nil && f.HasAgent() && !f.HasMaster() {
		d.unused([]Plugin{*f.allocator}, "an agent", "master")
	}
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return &a, d.diags
}

// directories gives the data and the plugin directory.
func (f *File) directories(d *decoder, defaults Defaults) (data, plugins string) {
	data, plugins = f.base.dataDir, f.base.pluginDir
	if data == "" {
		data = defaults.DataDir
	}
	if data == "" {
		diag := &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "No data_dir",
			Detail:   `Nothing says where state is kept. Write data_dir = "/var/lib/mezzo", or another directory, at the top of the configuration.`,
		}
		if len(f.paths) > 0 {
			start := hcl.Range{Filename: f.paths[0], Start: hcl.InitialPos, End: hcl.InitialPos}
			diag.Subject = &start
		}
		d.add(diag)
	}
	if plugins == "" {
		plugins = filepath.Join(filepath.Dir(defaults.Executable), "plugins")
	}
	return data, plugins
}

// checkListeners refuses listeners that others can reach without TLS: whoever
// reaches them can run commands on the cluster.
func (f *File) checkListeners(d *decoder, listeners []listener) {
	if f.explicitTLS != nil || f.base.insecure {
		return
	}
	for _, l := range listeners {
		if !isLoopback(l.address) {
			d.add(invalid(l.rng, "Listener without TLS",
				"Everybody who reaches %s = %q could run commands on the cluster. Write a tls block, or listen on 127.0.0.1, or write insecure = true at the top if the network is trusted.",
				l.name, l.address))
		}
	}
}

// unused warns of plugins that a process never starts.
func (d *decoder) unused(list []Plugin, process, block string) {
	for _, p := range list {
		diag := invalid(p.DefRange, fmt.Sprintf("Unused %s", p.Kind),
			"%s has no use for %s %q. It belongs in the configuration that holds the %s block.", capital(process), p.Kind, p.Name, block)
		diag.Severity = hcl.DiagWarning
		d.add(diag)
	}
}

// capital is a phrase as the beginning of a sentence.
func capital(text string) string { return string(text[0]-'a'+'A') + text[1:] }
