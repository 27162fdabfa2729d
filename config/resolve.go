package config

import (
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
	m.TLS, m.Insecure = f.explicitTLS, m.Insecure || f.base.insecure
	m.LogLevel, m.LogJSON, m.Tracing = f.base.logLevel, f.base.logJSON, f.tracing
	m.Authorization = f.authorization
	d.strangers(m.Authorization, m.TLS)
	d.checkListeners(f.master.listeners, m.TLS != nil || m.Insecure)

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
		for _, p := range f.isolators {
			d.unused(p.DefRange, "A master", "isolator", "agent")
		}
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
	a.TLS, a.Insecure = f.explicitTLS, a.Insecure || f.base.insecure
	a.LogLevel, a.LogJSON, a.Tracing = f.base.logLevel, f.base.logJSON, f.tracing
	a.Authorization = f.authorization
	d.strangers(a.Authorization, a.TLS)
	d.checkListeners(f.agent.listeners, a.TLS != nil || a.Insecure)

	a.Masters = slices.Clone(a.Masters)
	a.Attributes = slices.Clone(a.Attributes)
	a.Isolators = slices.Clone(f.isolators)
	if len(a.Isolators) == 0 {
		a.Isolators = []Plugin{f.byDefault(KindIsolator, "cgroups")}
	}
	a.Frameworks = slices.Concat(f.frameworks, f.agent.frameworks)
	if f.HasAgent() && !f.HasMaster() {
		f.unusedByAgent(d)
	}
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	return &a, d.diags
}

// directories gives the data and the plugin directory.
func (f *File) directories(d *decoder, defaults Defaults) (data, plugins string) {
	data, plugins = defaults.DataDir, f.base.pluginDir
	if data == "" {
		data = f.base.dataDir
	}
	if data == "" {
		d.add(f.NoDataDir())
	}
	if plugins == "" {
		plugins = filepath.Join(filepath.Dir(defaults.Executable), "plugins")
	}
	return data, plugins
}

// NoDataDir is the error of a configuration that does not say where state is
// kept; nil when it does.
func (f *File) NoDataDir() *hcl.Diagnostic {
	if f.base.dataDir != "" {
		return nil
	}
	diag := &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "No data_dir",
		Detail:   `Nothing says where state is kept. Write data_dir = "/var/lib/mezzo", or another directory, at the top of the configuration, or give --data-dir.`,
	}
	if len(f.paths) == 0 {
		diag.Detail = "Nothing says where state is kept: give a configuration with --config, or a directory with --data-dir."
	} else {
		start := hcl.Range{Filename: f.paths[0], Start: hcl.InitialPos, End: hcl.InitialPos}
		diag.Subject = &start
	}
	return diag
}

// checkListeners refuses listeners that others can reach without TLS: whoever
// reaches them can run commands on the cluster.
func (d *decoder) checkListeners(listeners []listener, allowed bool) {
	if allowed {
		return
	}
	for _, l := range listeners {
		if !isLoopback(l.address) {
			d.add(invalid(l.rng, "Listener without TLS",
				"Everybody who reaches %s = %q could run commands on the cluster. Write a tls block, or listen on 127.0.0.1, or write insecure = true if the network is trusted.",
				l.name, l.address))
		}
	}
}

// unusedByAgent warns of what only a master uses.
func (f *File) unusedByAgent(d *decoder) {
	if f.allocator != nil {
		d.unused(f.allocator.DefRange, "An agent", "allocator", "master")
	}
	if f.election != nil {
		d.unused(f.election.DefRange, "An agent", "election", "master")
	}
	if f.registry != nil {
		d.unused(f.registry.DefRange, "An agent", "registry", "master")
	}
	for _, r := range f.roles {
		d.unused(r.DefRange, "An agent", "role", "master")
	}
}

// unused warns of a block that a process never looks at.
func (d *decoder) unused(rng hcl.Range, process, kind, owner string) {
	diag := invalid(rng, "Unused "+kind+" block",
		"%s has no use for it. It belongs in the configuration that holds the %s block.", process, owner)
	diag.Severity = hcl.DiagWarning
	d.add(diag)
}
