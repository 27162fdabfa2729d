package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/loglevel"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/reload"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

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
	return s.service.reloader.Reload(ctx)
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
	s.service.o.Logger.Info("log level set", "level", answer.GetLevel(), "until", loglevel.Until(answer))
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
	s.reloader.On(ctx, signals)
}

// apply changes the isolators, the adapters and the log level where they differ,
// and says what else does. All that is new is started or tried before anything
// that runs is touched.
func (s *Service) apply(ctx context.Context, next *config.Agent, out *operatorv1.ReloadResponse) error {
	now := &s.config
	changes := (*reload.Changes)(&out.Changes)
	policy, err := next.Authorization.Policy()
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
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
		changes.Add(fmt.Sprintf("isolator %q", c.plugin.name), "as it was", c.why)
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
		changes.Add("isolators", strings.Join(before, ", "), strings.Join(names, ", "))
	}
	for _, block := range next.Isolators {
		s.plugin(block.Name).setLogLevel(block.LogLevel)
	}
	reload.Authorization(changes, now.Authorization, next.Authorization)
	s.policy.Set(policy)
	now.Authorization = next.Authorization
	if now.LogLevel != next.LogLevel {
		changes.Add("log_level", now.LogLevel, next.LogLevel)
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
			if plugin, err = startPlugin(ctx, s.host, spec); err != nil {
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
	s.reloader.Between(func() {
		if slices.ContainsFunc(s.config.Isolators, func(p config.Plugin) bool { return p.Name == name }) || s.plugin(name) == nil {
			return
		}
		s.o.Logger.Info("no container needs the isolator any more, and the configuration does not have it", "isolator", name)
		s.forget([]string{name})
	})
}

func blockNames(list []config.Plugin) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out
}

// needRestart lists what differs and counts only after a restart.
func needRestart(now, next *config.Agent) (out reload.Changes) {
	out.Compare("data_dir", now.DataDir, next.DataDir)
	out.Compare("work_dir", now.WorkDir, next.WorkDir)
	out.Compare("masters", strings.Join(config.WithoutCredentials(now.Masters), ", "), strings.Join(config.WithoutCredentials(next.Masters), ", "))
	out.Compare("rpc", now.RPC, next.RPC)
	out.Compare("http", now.HTTP, next.HTTP)
	out.Compare("hostname", now.Hostname, next.Hostname)
	out.Compare("resources", now.Resources, next.Resources)
	out.Compare("attributes", now.Attributes, next.Attributes)
	out.Compare("domain", now.Domain, next.Domain)
	out.Compare("registration_backoff", now.RegistrationBackoff, next.RegistrationBackoff)
	out.Compare("ping_timeout", now.PingTimeout, next.PingTimeout)
	out.Compare("reconfiguration_policy", now.ReconfigurationPolicy, next.ReconfigurationPolicy)
	out.Compare("executor_registration_timeout", now.ExecutorRegistrationTimeout, next.ExecutorRegistrationTimeout)
	out.Compare("executor_reregistration_timeout", now.ExecutorReregistrationTimeout, next.ExecutorReregistrationTimeout)
	out.Compare("executor_shutdown_grace", now.ExecutorShutdownGrace, next.ExecutorShutdownGrace)
	out.Compare("recovery_timeout", now.RecoveryTimeout, next.RecoveryTimeout)
	out.Compare("log_size", now.LogSize, next.LogSize)
	out.Compare("log_files", now.LogFiles, next.LogFiles)
	out.Compare("gc_delay", now.GCDelay, next.GCDelay)
	out.Compare("gc_disk_headroom", now.GCDiskHeadroom, next.GCDiskHeadroom)
	out.Compare("gc_interval", now.GCInterval, next.GCInterval)
	out.Compare("disk_watch_interval", now.DiskWatchInterval, next.DiskWatchInterval)
	out.Compare("enforce_disk", now.EnforceDisk, next.EnforceDisk)
	out.Compare("fetcher", now.Fetcher, next.Fetcher)
	out.Compare("secrets", now.Secrets, next.Secrets)
	out.Compare("log_json", now.LogJSON, next.LogJSON)
	out.Compare("tracing", now.Tracing.Text(), next.Tracing.Text())
	out.Compare("tls", reload.TLS(now.TLS), reload.TLS(next.TLS))
	out.Compare("insecure", now.Insecure, next.Insecure)
	return out
}
