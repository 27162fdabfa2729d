package metric

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Plugins shows how a host's plugins are, and what their processes need, which
// no plugin has to tell by itself: it is read when it is asked for.
type Plugins struct {
	list func() []*operatorv1.Plugin
}

// NewPlugins returns the collector of the plugins that list returns, which may
// be called from any goroutine.
func NewPlugins(list func() []*operatorv1.Plugin) *Plugins { return &Plugins{list} }

var (
	upDesc       = pluginDesc("up", "Whether a plugin runs and is healthy or degraded.")
	restartsDesc = pluginDesc("restarts_total", "How often a plugin's process had to be replaced.")
	cpuDesc      = pluginDesc("cpu_seconds_total", "Processor time of a plugin's process, of the user and of the system.")
	memoryDesc   = pluginDesc("resident_memory_bytes", "Resident memory of a plugin's process.")
	filesDesc    = pluginDesc("open_fds", "Open file descriptors of a plugin's process.")
)

func pluginDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("mezzo_plugin_"+name, help, []string{"plugin"}, nil)
}

// Describe implements prometheus.Collector.
func (p *Plugins) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, restartsDesc, cpuDesc, memoryDesc, filesDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector. What the system says of a process is
// missing where there is none, or no more.
func (p *Plugins) Collect(out chan<- prometheus.Metric) {
	for _, plugin := range p.list() {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
			out <- prometheus.MustNewConstMetric(d, kind, v, plugin.GetId())
		}
		up := 0.0
		if s := plugin.GetState(); s == "healthy" || s == "degraded" {
			up = 1
		}
		send(upDesc, prometheus.GaugeValue, up)
		send(restartsDesc, prometheus.CounterValue, float64(plugin.GetRestarts()))
		if plugin.GetPid() == 0 {
			continue
		}
		process, err := procfs.NewProc(int(plugin.GetPid()))
		if err != nil {
			continue
		}
		if stat, err := process.Stat(); err == nil {
			send(cpuDesc, prometheus.CounterValue, stat.CPUTime())
			send(memoryDesc, prometheus.GaugeValue, float64(stat.ResidentMemory()))
		}
		if n, err := process.FileDescriptorsLen(); err == nil {
			send(filesDesc, prometheus.GaugeValue, float64(n))
		}
	}
}
