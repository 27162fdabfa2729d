package master

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/http/ui"
	"github.com/mezzo-os/mezzo/core/rpc"
	"github.com/mezzo-os/mezzo/sdk/client"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// newUI returns the web UI, which asks what the Operator service answers.
// Agents are dialled with the master's own certificate.
func (m *Master) newUI(operator *operatorService, files *client.Files) *ui.UI {
	return ui.New(ui.Options{
		Operator: operator, Agent: operator.agentAddress, View: operator.view, Read: m.authorizeSandbox, Settings: m.settings,
		Dial: func(address string) (*grpc.ClientConn, error) {
			var options client.Options
			if files != nil {
				var err error
				if options.TLS, err = files.Client(); err != nil {
					return nil, err
				}
			}
			return client.Dial(address, options)
		},
	})
}

// agentAddress is where an agent serves its operators. Pages ask every second or
// two: the loop is not troubled for what may be a moment newer.
func (s *operatorService) agentAddress(ctx context.Context, id string) (string, error) {
	if err := s.view(ctx); err != nil {
		return "", err
	}
	if _, err := s.master.leading(); err != nil {
		return "", err
	}
	v := s.master.mirror.agent(id)
	switch {
	case v == nil:
		return "", fmt.Errorf("%w: there is no agent %s", rpc.ErrNotFound, id)
	case v.RPCAddress == "":
		return "", fmt.Errorf("%w: agent %s has not said where it listens", rpc.ErrUnavailable, id)
	}
	return v.RPCAddress, nil
}

// sample is the cluster for the UI's history.
func (m *Master) sample() *operatorv1.Status {
	out := &operatorv1.Status{Leadership: "standby"}
	if m.term.Load() != nil {
		out.Leadership = "leading"
	}
	m.mirror.counts(out)
	return out
}

// settings are what this master was configured with and has no page of its
// own. Secrets are not among them.
func (m *Master) settings() []ui.Setting {
	c := m.config.Load()
	security := "none: plain text"
	if c.TLS != nil {
		security = "certificate " + c.TLS.Cert
	}
	return []ui.Setting{
		{Name: "configuration", Value: strings.Join(c.Files, ", ")},
		{Name: "data_dir", Value: c.DataDir},
		{Name: "plugin_dir", Value: c.PluginDir},
		{Name: "rpc", Value: c.RPC},
		{Name: "http", Value: c.HTTP},
		{Name: "tls", Value: security},
		{Name: "offer_timeout", Value: c.OfferTimeout.String()},
		{Name: "batch_interval", Value: c.BatchInterval.String()},
		{Name: "min_refuse", Value: c.MinRefuse.String()},
		{Name: "agent_ping_interval", Value: c.AgentPingInterval.String()},
		{Name: "agent_ping_timeouts", Value: strconv.Itoa(c.AgentPingTimeouts)},
		{Name: "agent_reregister_timeout", Value: c.AgentReregisterTimeout.String()},
		{Name: "agent_removals_per_minute", Value: strconv.Itoa(c.AgentRemovalsPerMinute)},
		{Name: "max_decisions_per_second", Value: strconv.Itoa(c.MaxDecisionsPerSecond)},
		{Name: "max_completed_frameworks", Value: strconv.Itoa(c.MaxCompletedFrameworks)},
		{Name: "max_completed_tasks", Value: strconv.Itoa(c.MaxCompletedTasks)},
		{Name: "min_allocatable", Value: strings.Join(c.MinAllocatable, " or ")},
		{Name: "revocation", Value: strconv.FormatBool(c.Revocation.Enabled)},
		{Name: "log_level", Value: c.LogLevel},
	}
}
