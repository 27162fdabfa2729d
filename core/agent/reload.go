package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// reloadTimeout bounds a reload that nobody waits for.
const reloadTimeout = 5 * time.Minute

// operatorService is the agent's own, and what concerns its whole process.
type operatorService struct {
	*Agent
	service *Service
}

// Reload has the configuration read again.
func (s *operatorService) Reload(ctx context.Context, _ *operatorv1.ReloadRequest) (*operatorv1.ReloadResponse, error) {
	if err := s.authorize(ctx, rpc.Administer, rpc.Object{ID: "reload"}); err != nil {
		return nil, err
	}
	return s.service.Reload(ctx)
}

// SetLogLevel changes how much is logged.
func (s *operatorService) SetLogLevel(ctx context.Context, q *operatorv1.SetLogLevelRequest) (*operatorv1.LogLevel, error) {
	if err := s.authorize(ctx, rpc.Administer, rpc.Object{ID: "log_level"}); err != nil {
		return nil, err
	}
	answer, err := s.service.logLevel.Answer(q)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.service.o.Logger.Info("log level set", "level", answer.GetLevel(), "until", answer.GetUntil().AsTime())
	return answer, nil
}

// GetLogLevel says how much is logged.
func (s *operatorService) GetLogLevel(ctx context.Context, _ *operatorv1.GetLogLevelRequest) (*operatorv1.LogLevel, error) {
	if err := s.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	return s.service.logLevel.Message(), nil
}

// ReloadOn reloads whenever there is a signal, until ctx ends; the outcome is
// logged.
func (s *Service) ReloadOn(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		reloading, cancel := context.WithTimeout(ctx, reloadTimeout)
		if _, err := s.Reload(reloading); err != nil {
			s.o.Logger.Warn("the configuration was not reloaded", "reason", status.Convert(err).Message())
		}
		cancel()
	}
}

// Reload reads the configuration again, changes the isolators and the log level
// where they changed, and says what else differs. With an error in the
// configuration, or an isolator that does not start, the answer says so, and
// nothing has changed but what the answer lists. An error means that the reload
// was not tried.
func (s *Service) Reload(ctx context.Context) (*operatorv1.ReloadResponse, error) {
	switch {
	case s.o.Reread == nil:
		return nil, status.Error(codes.FailedPrecondition, "this agent has no configuration to read again")
	case s.readiness() != nil:
		return nil, status.Error(codes.Unavailable, s.readiness().Error())
	case !s.reloading.TryLock():
		return nil, status.Error(codes.FailedPrecondition, "a reload is under way")
	}
	defer s.reloading.Unlock()
	next, file, diags := s.o.Reread()
	out := &operatorv1.ReloadResponse{Diagnostics: config.DiagnosticText(file, diags)}
	if diags.HasErrors() || next == nil {
		out.Failed = true
	} else if err := s.apply(ctx, next, out); err != nil {
		out.Failed = true
		var place hcl.Diagnostics
		if errors.As(err, &place) && len(place) > 0 {
			out.Diagnostics += config.DiagnosticText(file, place)
		} else {
			out.Diagnostics += err.Error() + "\n"
		}
	}
	s.logReload(out)
	return out, nil
}

func (s *Service) logReload(out *operatorv1.ReloadResponse) {
	for _, c := range out.Changes {
		s.o.Logger.Info("reload: changed", "what", c.What, "from", c.From, "to", c.To)
	}
	for _, c := range out.Restart {
		s.o.Logger.Warn("reload: differs, and counts only after a restart", "what", c.What, "from", c.From, "to", c.To)
	}
	if out.Failed {
		s.o.Logger.Error("the configuration was not reloaded", "diagnostics", out.Diagnostics)
		return
	}
	s.o.Logger.Info("the configuration was reloaded", "changes", len(out.Changes), "need_restart", len(out.Restart))
}

// apply changes what differs. All that is new is started or tried before
// anything that runs is touched.
func (s *Service) apply(ctx context.Context, next *config.Agent, out *operatorv1.ReloadResponse) error {
	now := &s.config
	change := func(what, from, to string) {
		out.Changes = append(out.Changes, &operatorv1.ReloadChange{What: what, From: from, To: to})
	}
	adapters, err := s.adapters.Prepare(ctx, next.Frameworks, next.PluginDir)
	if err != nil {
		return err
	}
	added, changed, err := s.prepareIsolators(ctx, next)
	if err != nil {
		return err
	}
	for _, c := range changed {
		if err := c.plugin.replace(ctx, c.spec); err != nil {
			s.forget(added)
			return err
		}
		change(fmt.Sprintf("isolator %q", c.plugin.name), "as it was", c.why)
	}
	var list []Isolator
	var names []string
	for _, block := range next.Isolators {
		list = append(list, s.plugin(block.Name))
		names = append(names, block.Name)
	}
	before := blockNames(now.Isolators)
	if !slices.Equal(names, before) {
		if err := s.agent.SetIsolators(list); err != nil {
			return err
		}
		change("isolators", strings.Join(before, ", "), strings.Join(names, ", "))
	}
	for _, block := range next.Isolators {
		s.plugin(block.Name).setLogLevel(block.LogLevel)
	}
	if now.LogLevel != next.LogLevel {
		change("log_level", now.LogLevel, next.LogLevel)
		s.logLevel.Configure(next.LogLevel)
	}
	out.Restart = needRestart(now, next)
	now.Isolators, now.LogLevel, now.PluginDir = next.Isolators, next.LogLevel, next.PluginDir
	// Those to come are known before they are up, and those that go after.
	s.agent.SetAdapters(append(s.adapters.Names(), blockNames(next.Frameworks)...))
	more, err := adapters.Apply(ctx)
	out.Changes = append(out.Changes, more...)
	s.agent.SetAdapters(s.adapters.Names())
	if err != nil {
		return err
	}
	now.Frameworks = next.Frameworks
	return nil
}

// replacement is an isolator whose process is to be replaced.
type replacement struct {
	plugin *Plugin
	spec   pluginhost.Spec
	why    string
}

// prepareIsolators starts the isolators that are new, and tries those whose
// configuration is. With an error none of the new ones is left.
func (s *Service) prepareIsolators(ctx context.Context, next *config.Agent) (added []string, changed []replacement, err error) {
	for _, block := range next.Isolators {
		spec := pluginhost.FromConfig(block, next.PluginDir)
		plugin := s.plugin(block.Name)
		if plugin == nil {
			if plugin, err = StartPlugin(ctx, s.host, spec); err != nil {
				break
			}
			s.mu.Lock()
			s.plugins[block.Name] = plugin
			s.mu.Unlock()
			added = append(added, block.Name)
			continue
		}
		if why := plugin.differs(block, next.PluginDir); why != "" {
			if err = pluginhost.Check(ctx, spec, pluginhost.Options{}); err != nil {
				break
			}
			changed = append(changed, replacement{plugin, spec, why})
		}
	}
	if err != nil {
		s.forget(added)
	}
	return added, changed, err
}

func (s *Service) plugin(name string) *Plugin {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plugins[name]
}

// forget stops isolators that nobody knows of yet.
func (s *Service) forget(names []string) {
	for _, name := range names {
		s.mu.Lock()
		p := s.plugins[name]
		delete(s.plugins, name)
		s.mu.Unlock()
		p.stop()
	}
}

// retire stops an isolator that is neither configured nor needed. It waits for a
// reload that is under way, which may want it again.
func (s *Service) retire(name string) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	if slices.ContainsFunc(s.config.Isolators, func(p config.Plugin) bool { return p.Name == name }) || s.plugin(name) == nil {
		return
	}
	s.o.Logger.Info("no container needs the isolator any more, and the configuration does not have it", "isolator", name)
	s.forget([]string{name})
}

func blockNames(list []config.Plugin) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out
}

// needRestart lists what differs and counts only after a restart.
func needRestart(now, next *config.Agent) []*operatorv1.ReloadChange {
	var out []*operatorv1.ReloadChange
	compare := func(what string, from, to any) {
		if a, b := fmt.Sprint(from), fmt.Sprint(to); a != b {
			out = append(out, &operatorv1.ReloadChange{What: what, From: a, To: b})
		}
	}
	tls := func(t *config.TLS) string {
		if t == nil {
			return "none"
		}
		return fmt.Sprintf("ca %s, cert %s, key %s", t.CA, t.Cert, t.Key)
	}
	compare("data_dir", now.DataDir, next.DataDir)
	compare("work_dir", now.WorkDir, next.WorkDir)
	compare("masters", strings.Join(config.WithoutCredentials(now.Masters), ", "), strings.Join(config.WithoutCredentials(next.Masters), ", "))
	compare("rpc", now.RPC, next.RPC)
	compare("http", now.HTTP, next.HTTP)
	compare("hostname", now.Hostname, next.Hostname)
	compare("resources", now.Resources, next.Resources)
	compare("attributes", now.Attributes, next.Attributes)
	compare("domain", now.Domain, next.Domain)
	compare("registration_backoff", now.RegistrationBackoff, next.RegistrationBackoff)
	compare("ping_timeout", now.PingTimeout, next.PingTimeout)
	compare("reconfiguration_policy", now.ReconfigurationPolicy, next.ReconfigurationPolicy)
	compare("executor_registration_timeout", now.ExecutorRegistrationTimeout, next.ExecutorRegistrationTimeout)
	compare("executor_reregistration_timeout", now.ExecutorReregistrationTimeout, next.ExecutorReregistrationTimeout)
	compare("executor_shutdown_grace", now.ExecutorShutdownGrace, next.ExecutorShutdownGrace)
	compare("recovery_timeout", now.RecoveryTimeout, next.RecoveryTimeout)
	compare("log_size", now.LogSize, next.LogSize)
	compare("log_files", now.LogFiles, next.LogFiles)
	compare("gc_delay", now.GCDelay, next.GCDelay)
	compare("gc_disk_headroom", now.GCDiskHeadroom, next.GCDiskHeadroom)
	compare("gc_interval", now.GCInterval, next.GCInterval)
	compare("disk_watch_interval", now.DiskWatchInterval, next.DiskWatchInterval)
	compare("enforce_disk", now.EnforceDisk, next.EnforceDisk)
	compare("fetcher", now.Fetcher, next.Fetcher)
	compare("secrets", now.Secrets, next.Secrets)
	compare("log_json", now.LogJSON, next.LogJSON)
	compare("tracing", now.Tracing.Text(), next.Tracing.Text())
	compare("tls", tls(now.TLS), tls(next.TLS))
	compare("insecure", now.Insecure, next.Insecure)
	return out
}
