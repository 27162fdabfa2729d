package metric

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/status"
)

// Calls measures the calls of a plugin host: see pluginhost.Options.OnCall.
type Calls struct {
	took   *prometheus.HistogramVec
	failed *prometheus.CounterVec
}

// NewCalls makes it. Calls may be measured before it is registered.
func NewCalls() *Calls {
	return &Calls{
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mezzo_plugin_call_seconds", Help: "How long calls of a plugin took, by method. What only waits for a container's end is not in it.",
			Buckets: prometheus.ExponentialBuckets(1e-4, 4, 10),
		}, []string{"plugin", "method"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_plugin_call_failures_total", Help: "Calls of a plugin that failed, by method and gRPC code. UNIMPLEMENTED is an answer, and not in it.",
		}, []string{"plugin", "method", "code"}),
	}
}

// Register has a registry show what was measured.
func (c *Calls) Register(r prometheus.Registerer) { r.MustRegister(c.took, c.failed) }

// Called takes a call in. Method is "/mezzo.plugin.v1.Plugin/Ping".
func (c *Calls) Called(plugin, method string, took time.Duration, err error) {
	method = method[strings.LastIndexByte(method, '/')+1:]
	if method != "Wait" {
		c.took.WithLabelValues(plugin, method).Observe(took.Seconds())
	}
	if code := status.Code(err).String(); err != nil && code != "Unimplemented" {
		c.failed.WithLabelValues(plugin, method, code).Inc()
	}
}
