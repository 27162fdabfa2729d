package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// detectPerf finds out which of the configured events can be counted here, given
// the error that says that none can, and says so once when not all can. Tasks run
// all the same; only with enforce is it an error that none can.
func (p *cgroups) detectPerf(env plugin.Environment, err error) *plugin.Diagnostic {
	p.Perf = nil
	if len(p.config.PerfEvents) == 0 {
		return nil
	}
	var absent []string
	if err == nil {
		var cpus []int
		if cpus, err = onlineProcessors(); err == nil {
			p.Perf, absent, err = perf.New(p.Host.PerfDir(""), p.config.PerfEvents, cpus)
		}
	}
	switch {
	case err != nil && p.config.Enforce:
		d := plugin.Errorf("perf events cannot be counted on this host", "perf_events", "%v. Make that so, or take perf_events away, or set enforce = false.", err)
		return &d
	case err != nil:
		why := fmt.Sprintf("no perf events are counted: %v", err)
		p.Logger.Warn(why)
		env.Health.Degraded(why)
	case len(absent) > 0:
		why := fmt.Sprintf("perf events that this machine does not have are not counted: %s", strings.Join(absent, ", "))
		p.Logger.Warn(why)
		env.Health.Degraded(why)
	}
	if p.Perf != nil {
		p.Logger.Info("perf events are counted of each container", "descriptors", p.Perf.Each())
	}
	return nil
}

func onlineProcessors() ([]int, error) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, err
	}
	return parseNumbers(string(text))
}
