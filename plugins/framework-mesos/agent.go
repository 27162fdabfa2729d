package main

import (
	"context"
	"net"
	"strconv"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/executor"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
)

// serveAgent puts the agent's APIs on a listener.
func (a *adapter) serveAgent(_ context.Context, listener net.Listener) error {
	if err := a.open(listener, transport.Agent, nil); err != nil {
		return err
	}
	a.server.HandleBasics(a.about())
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
