package pluginhost

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// running is a process that went through every step, with its open health
// stream and the first status from it.
type running struct {
	*process
	generation *Generation
	health     grpc.ServerStreamingClient[pluginv1.HealthStatus]
	first      *pluginv1.HealthStatus
	endHealth  context.CancelFunc
}

// bringUp takes one process through every step up to its first health status.
// With an error nothing is left of it.
func (h *Host) bringUp(ctx context.Context, spec Spec, logger hclog.Logger, number uint64) (*running, *Error) {
	p, g, err := h.introduce(ctx, spec, logger)
	if err != nil {
		err.Place = spec.Place
		return nil, err
	}
	g.Number = number
	r, err := h.settle(ctx, spec, logger, p, g)
	if err != nil {
		p.kill()
		err.Place = spec.Place
		return nil, err
	}
	return r, nil
}

// introduce finds, verifies, launches, and learns what the plugin is. The
// caller ends the process.
func (h *Host) introduce(ctx context.Context, spec Spec, logger hclog.Logger) (*process, *Generation, *Error) {
	path, e := spec.find()
	if e != nil {
		return nil, nil, e
	}
	checksum, e := spec.verify(path)
	if e != nil {
		return nil, nil, e
	}
	p, e := h.launch(ctx, spec, path, logger)
	if e != nil {
		return nil, nil, e
	}
	g := &Generation{PID: p.child.pid(), Conn: p.conn, Checksum: checksum, process: p}
	if g.Description, e = spec.describe(ctx, p, path, h.options.StartTimeout); e == nil {
		g.ContractVersion, e = spec.negotiate(p, g.Description, path)
	}
	if e == nil {
		e = spec.verifyCompanions(path, g.Description)
	}
	if e != nil {
		p.kill()
		return nil, nil, e
	}
	return p, g, nil
}

// launch starts the process, a second time if the file was busy the first.
func (h *Host) launch(ctx context.Context, spec Spec, path string, logger hclog.Logger) (*process, *Error) {
	for attempt := 1; ; attempt++ {
		dir, err := h.sockets.attempt()
		if err != nil {
			return nil, &Error{
				Plugin: spec.title(), Path: path, Step: StepLaunch, Err: err,
				Problem: "there is no directory for its socket: " + err.Error(),
				Remedy:  "check that data_dir can be written and is not full",
			}
		}
		l := launcher{
			spec: spec, path: path, versions: spec.versions(), socketDir: dir,
			startTimeout: h.options.StartTimeout, logger: logger, onCall: h.options.OnCall,
		}
		p, e := l.launch(ctx)
		if e == nil || attempt > 1 || !textBusy(e.Err) {
			return p, e
		}
		logger.Debug("the binary is being written; trying once more", "path", path)
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, e
		}
	}
}

// busyPause is how long whoever writes the binary gets to finish.
const busyPause = 200 * time.Millisecond

// settle configures the process and opens its health stream.
func (h *Host) settle(ctx context.Context, spec Spec, logger hclog.Logger, p *process, g *Generation) (*running, *Error) {
	path := p.child.Name()
	dataDir, err := h.pluginDataDir(spec)
	if err != nil {
		return nil, &Error{
			Plugin: spec.title(), Path: path, Step: StepConfigure, Err: err,
			Problem: "its data directory cannot be made: " + err.Error(),
			Remedy:  "check that data_dir can be written and is not full",
		}
	}
	if e := spec.configure(ctx, p, g, path, h.options, dataDir, false, logger); e != nil {
		return nil, e
	}
	r := &running{process: p, generation: g}
	// The stream lives as long as the process, not as the start.
	var healthCtx context.Context
	healthCtx, r.endHealth = context.WithCancel(context.Background())
	giveUp := context.AfterFunc(ctx, r.endHealth)
	timer := time.AfterFunc(h.options.StartTimeout, r.endHealth)
	r.health, err = p.base.Health(healthCtx, &pluginv1.HealthRequest{})
	if err == nil {
		r.first, err = r.health.Recv()
	}
	late := !timer.Stop()
	if !giveUp() && err == nil {
		err = ctx.Err()
	}
	if err == nil && late {
		err = context.DeadlineExceeded
	}
	if err != nil {
		r.endHealth()
		if late {
			err = errors.Join(context.DeadlineExceeded, err)
		}
		return nil, &Error{
			Plugin: spec.title(), Path: path, Step: StepServe, Err: err, Output: p.out.get(),
			Problem: p.callProblem("tell its health", h.options.StartTimeout, err),
			Remedy:  "report it to the plugin's author",
		}
	}
	return r, nil
}
