package main

import (
	"context"
	"net"
	"strconv"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/agentapi"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/executor"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/files"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/metric"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// serveAgent puts the agent's APIs on a listener.
func (a *adapter) serveAgent(_ context.Context, listener net.Listener) error {
	if err := a.open(listener, transport.Agent, nil); err != nil {
		return err
	}
	about := a.about()
	a.server.HandleBasics(about)
	numbers, level := &metric.Agent{Agent: a.core.Own().AgentOperator()}, operator.NewVerbosity(a.core.AgentOperator(), a.core.Logger)
	a.ended = append(a.ended, level.Close)
	shown := &files.Files{Agent: a.core.AgentOperator()}
	api := agentapi.New(agentapi.Options{
		Agent: a.core.AgentOperator(), Own: a.core.Own().AgentOperator(), Files: shown, Port: a.at.port, PID: a.at.pid("slave(1)"), About: about, Verbosity: level,
		Metrics: func(ctx context.Context) []*mezzov1.Metric { return metric.List(ctx, numbers) },
	})
	a.ended = append(a.ended, api.Close)
	api.Register(a.server)
	shown.Register(a.server)
	metric.Register(a.server, numbers)
	legacy.RegisterProcess(a.server, level)
	executors := executor.New(executor.Options{Client: a.core.Executor(), Logger: a.log})
	a.ended = append(a.ended, executors.Close)
	executors.Register(a.server)
	return nil
}

// executorEnvironment tells executors where the agent is.
func (a *adapter) executorEnvironment() map[string]string {
	return map[string]string{
		"MESOS_AGENT_ENDPOINT": net.JoinHostPort(a.at.ip, strconv.Itoa(a.at.port)),
		"MESOS_SLAVE_PID":      a.at.pid("slave(1)"),
	}
}
