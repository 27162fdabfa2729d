package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

const (
	dialPatience  = 5 * time.Second  // for containerd to take a connection
	dialPause     = time.Second      // between attempts
	probePatience = 10 * time.Second // for it to answer
	probeEvery    = 2 * time.Second
)

// connection is that to containerd. It is made when it is first needed, and the
// client makes it again by itself once containerd is back; what runs when it is
// away needs it for nothing.
type connection struct {
	address, namespace string
	logger             hclog.Logger
	health             *plugin.Health
	up                 *metric.Gauge // may be nil

	mu     sync.Mutex
	client *containerd.Client
	failed error     // why there is none…
	at     time.Time // …and since when that is known
}

func newConnection(address, namespace string, logger hclog.Logger, health *plugin.Health) *connection {
	return &connection{address: address, namespace: namespace, logger: logger, health: health}
}

// get returns the client. The error is for the task's owner, of code
// Unavailable: it may pass.
func (c *connection) get() (*containerd.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		return c.client, nil
	}
	// Many may want one while none can be had: each waits for one attempt at most.
	if c.failed != nil && time.Since(c.at) < dialPause {
		return nil, c.failed
	}
	client, err := containerd.New(c.address, containerd.WithDefaultNamespace(c.namespace), containerd.WithTimeout(dialPatience))
	if err != nil {
		c.failed, c.at = status.Errorf(codes.Unavailable, "containerd at %s cannot be reached: %v", c.address, err), time.Now()
		return nil, c.failed
	}
	c.client, c.failed = client, nil
	return client, nil
}

// in is a context for calls in the agent's namespace.
func (c *connection) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, c.namespace)
}

// probe asks containerd whether it is there.
func (c *connection) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	client, err := c.get()
	if err != nil {
		return err
	}
	serving, err := client.IsServing(ctx)
	if err != nil {
		return fmt.Errorf("containerd at %s does not answer: %w", c.address, err)
	}
	if !serving {
		return fmt.Errorf("containerd at %s is not ready", c.address)
	}
	return nil
}

// watch keeps the plugin's health: without containerd it can launch nothing.
func (c *connection) watch(ctx context.Context) {
	well := true
	for ctx.Err() == nil {
		err := c.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		up := 1.0
		if err != nil {
			up = 0
		}
		c.up.Set(up)
		switch {
		case err != nil:
			why := status.Convert(err).Message() + "; containers that run go on, and new ones are not taken until it is back"
			if well {
				c.logger.Warn(why)
			}
			well = false
			c.health.Unhealthy(why)
		case !well:
			c.logger.Info("containerd answers again", "address", c.address)
			well = true
			c.health.Healthy()
		}
		select {
		case <-ctx.Done():
		case <-time.After(probeEvery/2 + rand.N(probeEvery)):
		}
	}
}

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil {
		_ = c.client.Close()
		c.client = nil
	}
}
