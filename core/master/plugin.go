package master

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/pluginhost"
)

// explainTimeout bounds a question to the allocator.
const explainTimeout = 10 * time.Second

// allocatorConn is a way to the allocator that runs now.
type allocatorConn struct{ conn grpc.ClientConnInterface }

// startAllocator brings the allocator's plugin up. Its error is the operator's
// to read.
func (m *Master) startAllocator(ctx context.Context) error {
	if m.options.Allocator != nil {
		m.background.Go(func() { m.serveAllocator(m.life, m.options.Allocator) })
		return nil
	}
	spec := pluginhost.FromConfig(*m.options.Config.Allocator, m.options.Config.PluginDir)
	spec.OnUp = func(ctx context.Context, g *pluginhost.Generation) { m.serveAllocator(ctx, g.Conn) }
	spec.OnStatus = func(s pluginhost.Status) { m.mirror.put(change{plugin: s.ToProto("master")}) }
	_, err := m.host.Start(ctx, spec)
	return err
}

// serveAllocator opens session after session with one process of the
// allocator, until ctx ends. Each begins with a snapshot.
func (m *Master) serveAllocator(ctx context.Context, conn grpc.ClientConnInterface) {
	current := &allocatorConn{conn}
	m.allocator.Store(current)
	defer m.allocator.CompareAndSwap(current, nil)
	pause := sessionBackoffMin
	for {
		t, err := m.awaitTerm(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		err = t.runSession(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > sessionPatience {
			pause = sessionBackoffMin
		}
		if m.term.Load() == t {
			m.logger.Warn("the allocator's session ended; it is begun again", "error", err, "pause", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, sessionBackoffMax)
	}
}
