package holder

import (
	"fmt"
	"os"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	"github.com/mezzo-os/mezzo/plugins/internal/perf"
)

// DetectPerf has the events of the settings counted of each container, as far as
// this host can, on which cgroup.Host.AddPerf has ended with err. problem says
// what cannot be counted; "": nothing is amiss. None of them is counted when Perf
// is nil afterwards.
func (h *Holder) DetectPerf(events []string, err error) (problem string) {
	h.Perf = nil
	if len(events) == 0 {
		return ""
	}
	var absent []string
	if err == nil {
		var cpus []int
		if cpus, err = onlineProcessors(); err == nil {
			h.Perf, absent, err = perf.New(h.Host.PerfDir(""), events, cpus)
		}
	}
	switch {
	case err != nil:
		problem = fmt.Sprintf("no perf events are counted: %v", err)
	case len(absent) > 0:
		problem = fmt.Sprintf("perf events that this machine does not have are not counted: %s", strings.Join(absent, ", "))
	}
	if problem != "" {
		h.Logger.Warn(problem)
	}
	if h.Perf != nil {
		h.Logger.Info("perf events are counted of each container", "descriptors", h.Perf.Each())
	}
	return problem
}

// onlineProcessors are those that the kernel runs on.
func onlineProcessors() ([]int, error) {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, err
	}
	return cgroup.ParseList(string(text))
}
