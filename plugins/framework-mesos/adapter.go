package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/framework"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// endpoint is the name under which adapters of this kind are found.
const endpoint = mirror.Endpoint

// defaultListen is where an adapter listens when the operator says nothing.
var defaultListen = map[framework.Side]string{framework.Master: "127.0.0.1:5050", framework.Agent: "127.0.0.1:5051"}

// adapter serves the APIs of one side.
type adapter struct {
	settings *settings
	numbers  *numbers

	core   *framework.Core
	log    *slog.Logger
	at     place
	server *transport.Server
	ended  []func() // what is to be closed when no request is under way any more

	stop context.CancelFunc
	run  sync.WaitGroup
}

// Serve implements framework.Adapter.
func (a *adapter) Serve(ctx context.Context, core *framework.Core) (_ *framework.Serving, err error) {
	ctx, a.stop = context.WithCancel(ctx)
	a.core, a.log = core, newLog(core.Logger)
	listen := a.settings.Listen
	if listen == "" {
		listen = defaultListen[core.Side]
	}
	listener, err := core.Listen(ctx, endpoint, listen)
	if err != nil {
		return nil, err
	}
	a.at = findPlace(ctx, listener.Addr(), a.settings.Hostname, core.Hostname)
	serving := &framework.Serving{Endpoints: map[string]string{endpoint: a.at.address}}
	if core.Side == framework.Agent {
		err = a.serveAgent(ctx, listener)
		serving.ExecutorEnvironment = a.executorEnvironment()
		if a.settings.authenticators()[transport.Executor] != nil {
			serving.ExecutorTokenVariable = "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"
		}
	} else {
		err = a.serveMaster(ctx, listener)
	}
	if err != nil {
		a.Shutdown(ctx)
		listener.Close()
		return nil, err
	}
	a.run.Go(func() {
		if err := a.server.Serve(); err != nil {
			a.log.Error("the listener failed", "error", err)
			core.Health.Unhealthy("its listener failed: " + err.Error())
		}
	})
	return serving, nil
}

// open makes the server of a side.
func (a *adapter) open(listener net.Listener, side transport.Side, leadership *transport.Leadership) error {
	var security *tls.Config
	if a.settings.TLS != nil {
		var err error
		if security, err = a.settings.TLS.config(); err != nil {
			return err
		}
	}
	server, err := transport.Listen(transport.Options{
		Side: side, Listener: listener, TLS: security, Logger: a.log, Authenticators: a.settings.authenticators(),
		View: a.mayView, Leadership: leadership, Limits: a.settings.limits(), Counts: a.numbers.server,
	})
	if err != nil {
		return err
	}
	a.server = server
	return nil
}

// mayView asks the core whether the principal of a context may see the cluster.
func (a *adapter) mayView(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	_, err := a.core.Authorization().Check(ctx, &frameworkv1.CheckRequest{Action: "view_cluster"})
	return err
}

// viewPatience is how long the core may take to say who may see the cluster.
const viewPatience = 10 * time.Second

// about is what the side tells of itself.
func (a *adapter) about() transport.About {
	about := transport.About{BuildUser: "mezzo", Flags: func() map[string]string { return a.settings.flags(a.at) }}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				about.Built, _ = time.Parse(time.RFC3339, s.Value)
			}
		}
	}
	return about
}

// Shutdown implements framework.Adapter.
func (a *adapter) Shutdown(ctx context.Context) {
	a.stop()
	if a.server != nil {
		if err := a.server.Shutdown(ctx); err != nil {
			a.log.Warn("requests were cut off at the end", "error", err)
		}
	}
	for _, end := range a.ended {
		end()
	}
	a.run.Wait()
}
