package main

import "github.com/mezzo-os/mezzo/sdk/plugin"

// detectPerf finds out which of the configured events can be counted here, given
// the error that says that none can. Tasks run all the same; only with enforce is
// it an error that none can.
func (p *cgroups) detectPerf(env plugin.Environment, err error) *plugin.Diagnostic {
	problem := p.DetectPerf(p.config.PerfEvents, err)
	switch {
	case problem == "":
	case p.Perf == nil && p.config.Enforce:
		d := plugin.Errorf("perf events cannot be counted on this host", "perf_events", "%s. Make that so, or take perf_events away, or set enforce = false.", problem)
		return &d
	default:
		env.Health.Degraded(problem)
	}
	return nil
}
