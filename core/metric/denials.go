package metric

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mezzo-os/mezzo/core/authorization"
	"github.com/mezzo-os/mezzo/core/rpc"
)

// Denials is an authorizer that counts what another denies. At the log level
// debug each is a line: who begins with rules finds there what they keep from
// whom, and who asks a thousand times a second fills no disk.
type Denials struct {
	rpc.Authorizer
	logger hclog.Logger
	count  *prometheus.CounterVec
}

// NewDenials makes it.
func NewDenials(of rpc.Authorizer, logger hclog.Logger) *Denials {
	return &Denials{Authorizer: of, logger: logger, count: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mezzo_authorization_denials_total", Help: "What callers were not allowed, by action. At the log level debug each is in the log.",
	}, []string{"action"})}
}

// Register has a registry show what was counted.
func (d *Denials) Register(r prometheus.Registerer) {
	for _, name := range authorization.Names() {
		d.count.WithLabelValues(name)
	}
	r.MustRegister(d.count)
}

// Authorize implements rpc.Authorizer.
func (d *Denials) Authorize(ctx context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	err := d.Authorizer.Authorize(ctx, who, action, object)
	if err != nil {
		label := string(action)
		if _, known := authorization.Find(label); !known {
			label = "other" // an adapter asked for it
		}
		d.count.WithLabelValues(label).Inc()
		d.logger.Debug("not allowed", "action", action, "reason", err)
	}
	return err
}
