package adapter

import (
	"context"
	"time"

	"github.com/mezzo-os/mezzo/core/pluginhost"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Source is the process of an adapter that calls come from.
type Source struct {
	// Name is the adapter's: "mesos".
	Name string

	life context.Context // ends when the process is gone or is being stopped
	base pluginv1.PluginClient
	gone chan struct{} // closed once Options.Down has returned
}

func newSource(name string, g *pluginhost.Generation) *Source {
	return &Source{Name: name, life: g.Context(), base: pluginv1.NewPluginClient(g.Conn), gone: make(chan struct{})}
}

// String is the adapter's name; empty for nil, which stands for no adapter.
func (s *Source) String() string {
	if s == nil {
		return ""
	}
	return s.Name
}

const (
	// aliveTimeout is how long a process may take to show that it lives.
	aliveTimeout = 2 * time.Second
	// deathPatience is how long the host may take to notice that it does not.
	deathPatience = 15 * time.Second
)

// Lost tells why a stream of this process has ended: false when the process
// closed it, true when the process itself was lost, or is being stopped, and
// with it all its streams. In that case Options.Down has been called when Lost
// returns. A dead process and a closed stream look alike on the wire, so the
// process is asked for a sign of life.
func (s *Source) Lost() bool {
	if s.life.Err() == nil {
		ctx, cancel := context.WithTimeout(s.life, aliveTimeout)
		_, err := s.base.Ping(ctx, &pluginv1.PingRequest{})
		cancel()
		if err == nil && s.life.Err() == nil {
			return false
		}
	}
	late := time.NewTimer(deathPatience)
	defer late.Stop()
	select {
	case <-s.gone:
		return true
	case <-late.C:
		return false // it hangs, and lives
	}
}
