package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/reload"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Reload reads the configuration again and changes what changed; see
// reload.Reloader.
func (m *Master) Reload(ctx context.Context) (*operatorv1.ReloadResponse, error) {
	return m.reloader.Reload(ctx)
}

// ReloadOn reloads whenever there is a signal, until ctx ends; the outcome is
// logged.
func (m *Master) ReloadOn(ctx context.Context, signals <-chan os.Signal) { m.reloader.On(ctx, signals) }

// hasStarted says why the master cannot be reloaded yet.
func (m *Master) hasStarted() error {
	select {
	case <-m.ready:
		return nil
	default:
		return errors.New("the master is still starting")
	}
}

// apply compares and changes. What can fail is done first, or tried.
func (m *Master) apply(ctx context.Context, next *config.Master, out *operatorv1.ReloadResponse) error {
	adapters, err := m.adapters.Prepare(ctx, next.Frameworks, next.PluginDir)
	if err != nil {
		return err
	}
	now := m.config.Load()
	policy, err := next.Authorization.Policy()
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	live, session, restart := compare(now, next)
	roles := compareRoles(now.Roles, next.Roles, m.setRoles())
	applied := merge(now, next)
	run := m.allocator.Load()
	why := run.differs(applied)
	if len(session) > 0 && why == "" {
		why = "a session with the new settings"
	}
	changes := slices.Concat(live, session, roles)
	if why != "" {
		changes.Add("allocator", run.block.Name, fmt.Sprintf("%s (%s)", applied.Allocator.Name, why))
	}
	if err := m.reconfigure(ctx, applied, why != "", len(live)+len(roles) > 0); err != nil {
		return err
	}
	out.Changes, out.Restart = changes, restart
	m.config.Store(applied)
	m.policy.Set(policy)
	if now.LogLevel != applied.LogLevel {
		m.logLevel.Configure(applied.LogLevel)
	}
	if run := m.allocator.Load(); run.instance != nil {
		run.instance.SetLogLevel(applied.Allocator.LogLevel)
	}
	more, err := adapters.Apply(ctx)
	out.Changes = append(out.Changes, more...)
	m.forgetAdapters()
	return err
}

// forgetAdapters takes those out of the operators' lists that have been taken
// out of the configuration, and says where the others are.
func (m *Master) forgetAdapters() {
	names := m.adapters.Names()
	for _, p := range m.mirror.listPlugins() {
		if name, is := strings.CutPrefix(p.Id, config.KindFramework+"/"); is && !slices.Contains(names, name) {
			m.mirror.put(change{pluginRemoved: p.Id})
		}
	}
	m.announce()
}

// reconfigure gives the machine its part: with another allocator's session, in
// one step, or alone.
func (m *Master) reconfigure(ctx context.Context, next *config.Master, swap, settings bool) error {
	t := m.term.Load()
	var cfg *state.Config
	if t != nil {
		c := m.stateConfig(next, t, 0)
		cfg = &c
	}
	if swap {
		return m.swapAllocator(ctx, next, cfg)
	}
	if cfg == nil || !settings {
		return nil
	}
	orders := &operatorService{master: m}
	_, err := orders.carryOut(ctx, func(r state.Request) state.Input { return state.Reconfigure{Request: r, Config: *cfg} })
	return err
}

// merge is the running configuration with what may change while a master runs.
func merge(now, next *config.Master) *config.Master {
	out := *now
	out.OfferTimeout, out.BatchInterval, out.MinRefuse = next.OfferTimeout, next.BatchInterval, next.MinRefuse
	out.MinAllocatable, out.FilterGPUResources = next.MinAllocatable, next.FilterGPUResources
	out.MaxDecisionsPerSecond, out.AgentRemovalsPerMinute = next.MaxDecisionsPerSecond, next.AgentRemovalsPerMinute
	out.MaxCompletedFrameworks, out.MaxCompletedTasks = next.MaxCompletedFrameworks, next.MaxCompletedTasks
	out.MaxUnreachableTasks, out.MaxAwayAgents = next.MaxUnreachableTasks, next.MaxAwayAgents
	out.Revocation, out.Roles = next.Revocation, next.Roles
	out.Allocator, out.PluginDir, out.LogLevel = next.Allocator, next.PluginDir, next.LogLevel
	out.Frameworks = next.Frameworks
	out.Authorization, out.Files = next.Authorization, next.Files
	return &out
}

// compare lists what differs: what is taken over at once, what needs another
// session of the allocator besides, and what needs a restart.
func compare(now, next *config.Master) (live, session, restart reload.Changes) {
	live.Compare("offer_timeout", now.OfferTimeout, next.OfferTimeout)
	live.Compare("agent_removals_per_minute", now.AgentRemovalsPerMinute, next.AgentRemovalsPerMinute)
	live.Compare("max_completed_frameworks", now.MaxCompletedFrameworks, next.MaxCompletedFrameworks)
	live.Compare("max_completed_tasks", now.MaxCompletedTasks, next.MaxCompletedTasks)
	live.Compare("max_unreachable_tasks", now.MaxUnreachableTasks, next.MaxUnreachableTasks)
	live.Compare("max_away_agents", now.MaxAwayAgents, next.MaxAwayAgents)
	live.Compare("revocation enabled", now.Revocation.Enabled, next.Revocation.Enabled)
	live.Compare("revocation min_grace", now.Revocation.MinGrace, next.Revocation.MinGrace)
	live.Compare("revocation max_per_minute", now.Revocation.MaxPerMinute, next.Revocation.MaxPerMinute)
	reload.Authorization(&live, now.Authorization, next.Authorization)
	live.Compare("log_level", now.LogLevel, next.LogLevel)
	live.Compare("plugin_dir", now.PluginDir, next.PluginDir)

	session.Compare("batch_interval", now.BatchInterval, next.BatchInterval)
	session.Compare("min_refuse", now.MinRefuse, next.MinRefuse)
	session.Compare("max_decisions_per_second", now.MaxDecisionsPerSecond, next.MaxDecisionsPerSecond)
	session.Compare("min_allocatable", strings.Join(now.MinAllocatable, ", "), strings.Join(next.MinAllocatable, ", "))
	session.Compare("filter_gpu_resources", now.FilterGPUResources, next.FilterGPUResources)

	restart.Compare("data_dir", now.DataDir, next.DataDir)
	restart.Compare("rpc", now.RPC, next.RPC)
	restart.Compare("http", now.HTTP, next.HTTP)
	restart.Compare("hostname", now.Hostname, next.Hostname)
	restart.Compare("domain", domainText(now.Domain), domainText(next.Domain))
	restart.Compare("agent_ping_interval", now.AgentPingInterval, next.AgentPingInterval)
	restart.Compare("agent_ping_timeouts", now.AgentPingTimeouts, next.AgentPingTimeouts)
	restart.Compare("agent_reregister_timeout", now.AgentReregisterTimeout, next.AgentReregisterTimeout)
	restart.Compare("agent_forget_after", now.AgentForgetAfter, next.AgentForgetAfter)
	restart.Compare("tls", reload.TLS(now.TLS), reload.TLS(next.TLS))
	restart.Compare("insecure", now.Insecure, next.Insecure)
	restart.Compare("log_json", now.LogJSON, next.LogJSON)
	restart.Compare("tracing", now.Tracing.Text(), next.Tracing.Text())
	restart.Compare("election", electionText(now.Election), electionText(next.Election))
	restart.Compare("registry", registryText(now.Registry), registryText(next.Registry))
	return live, session, restart
}

func domainText(d config.Domain) string {
	if d == (config.Domain{}) {
		return "none"
	}
	return fmt.Sprintf("region %s, zone %s", d.Region, d.Zone)
}

func electionText(e config.Election) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s%s", e.Kind, strings.Join(e.Servers, ","), e.Path))
}

func registryText(r config.Registry) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s%s%s", r.Kind, r.File, strings.Join(r.Servers, ","), r.Path))
}

// setRoles are the roles of which an operator has set something.
func (m *Master) setRoles() map[string]bool {
	set := map[string]bool{}
	for _, r := range m.mirror.listRoles() {
		set[r.Name] = r.WeightSet || r.QuotaSet
	}
	return set
}

// compareRoles lists the roles whose first values differ, by name.
func compareRoles(now, next []config.Role, set map[string]bool) (out reload.Changes) {
	texts := func(list []config.Role) map[string]string {
		out := map[string]string{}
		for _, r := range list {
			s := fmt.Sprintf("weight %g", r.Weight)
			if r.Guarantee != "" {
				s += ", guarantee " + r.Guarantee
			}
			if r.Limit != "" {
				s += ", limit " + r.Limit
			}
			out[r.Name] = s
		}
		return out
	}
	from, to := texts(now), texts(next)
	var names []string
	for _, r := range slices.Concat(now, next) {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		n := len(out)
		out.Compare(fmt.Sprintf("role %q", name), or(from[name], "none"), or(to[name], "none"))
		if len(out) > n && set[name] {
			out[n].To += " (what an operator has set of it stays)"
		}
	}
	return out
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// differs says why a configuration's allocator is not the one that runs; empty:
// it is.
func (r *allocatorRun) differs(c *config.Master) string {
	if r.instance == nil {
		return "" // Options.Allocator
	}
	if c.Allocator.Name != r.block.Name {
		return "another policy"
	}
	r.mu.Lock()
	given := r.given
	r.mu.Unlock() // the instance must not be called with it held: it calls back
	return r.instance.Differs(*c.Allocator, c.PluginDir, r.binary, r.block.Checksum, given)
}

// Reload has the configuration read again.
func (s *operatorService) Reload(ctx context.Context, _ *operatorv1.ReloadRequest) (*operatorv1.ReloadResponse, error) {
	if err := s.master.authorize(ctx, rpc.Administer, rpc.Object{ID: "reload"}); err != nil {
		return nil, err
	}
	return s.master.Reload(ctx)
}
