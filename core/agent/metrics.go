package agent

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/core/rpc"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// metrics are what /metrics shows. What the machine counts is read from it when
// it is asked for.
type metrics struct {
	registry *prometheus.Registry
	fetches  *prometheus.CounterVec
	removals *prometheus.CounterVec
	pulls    *prometheus.CounterVec
	pulled   *prometheus.CounterVec   // bytes
	pulling  *prometheus.HistogramVec // seconds
	cleanups prometheus.Counter       // that did not work
	waiting  prometheus.Gauge         // sandboxes
	age      prometheus.Gauge         // of sandboxes, in seconds
	own      *metric.Own              // of plugins, by their own word
}

// all is the registry's and what plugins tell of themselves.
func (m *metrics) all() prometheus.Gatherer { return m.own.Beside(m.registry) }

func newMetrics(a *Agent) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		fetches:  counter("mezzo_agent_fetches_total", "Fetches of all URIs of a task or executor, by what came of it: succeeded or failed.", "outcome"),
		removals: counter("mezzo_agent_sandboxes_removed_total", "Old sandboxes that were to be removed, by what came of it: succeeded or failed.", "outcome"),
		pulls:    counter("mezzo_agent_image_pulls_total", "Pulls of tasks' images, by isolator and what came of it: succeeded or failed. What is there already is no pull; each launch that could not have its image counts as failed.", "isolator", "outcome"),
		pulled:   counter("mezzo_agent_image_pulled_bytes_total", "Bytes of images that were pulled, compressed, without the layers that were there already.", "isolator"),
		pulling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mezzo_agent_image_pull_seconds", Help: "How long pulls of images took that succeeded, unpacking included.",
			Buckets: prometheus.ExponentialBuckets(0.25, 2, 13),
		}, []string{"isolator"}),
		cleanups: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mezzo_agent_cleanup_failures_total", Help: "How often it did not work to remove what is left of a container; it is tried again.",
		}),
		waiting: gauge("mezzo_agent_sandboxes_waiting", "Sandboxes that are not in use and not old enough to be removed, as of the last look at them."),
		age:     gauge("mezzo_agent_sandbox_age_seconds", "How long a sandbox that is not in use is kept, with the disk as full as at the last look."),
	}
	for _, outcome := range []string{"succeeded", "failed"} {
		m.fetches.WithLabelValues(outcome)
		m.removals.WithLabelValues(outcome)
	}
	plugins := func() []*operatorv1.Plugin {
		if a.options.Plugins == nil {
			return nil
		}
		return a.options.Plugins()
	}
	m.own = metric.NewOwn(func() []pluginhost.Numbers {
		if a.options.Numbers == nil {
			return nil
		}
		return a.options.Numbers()
	})
	m.own.Register(m.registry)
	m.registry.MustRegister(metric.NewPlugins(plugins), m.fetches, m.removals, m.pulls, m.pulled, m.pulling, m.cleanups, m.waiting, m.age, &gauges{agent: a},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// pull counts a pull of an isolator's; nil: one that failed.
func (m *metrics) pull(isolator string, p *isolatorv1.Pulled) {
	if p == nil {
		m.pulls.WithLabelValues(isolator, "failed").Inc()
		return
	}
	m.pulls.WithLabelValues(isolator, "succeeded").Inc()
	m.pulled.WithLabelValues(isolator).Add(float64(p.GetBytes()))
	m.pulling.WithLabelValues(isolator).Observe(float64(p.GetDurationMs()) / 1000)
}

// outcome is what came of something, as a label.
func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "succeeded"
}

// gauges reads the machine.
type gauges struct{ agent *Agent }

// collectTimeout bounds how long the numbers wait for the loop.
const collectTimeout = 5 * time.Second

var (
	startedDesc    = prometheus.NewDesc("mezzo_agent_start_time_seconds", "When the process began to be an agent, since 1970.", nil, nil)
	registeredDesc = prometheus.NewDesc("mezzo_agent_registered", "Whether the agent is registered with a master.", nil, nil)
	recoveryDesc   = prometheus.NewDesc("mezzo_agent_recovery_seconds", "How long it took to find what an earlier process has left; absent: that goes on.", nil, nil)
	frameworksDesc = prometheus.NewDesc("mezzo_agent_frameworks", "Frameworks that have something on the agent.", nil, nil)
	tasksDesc      = prometheus.NewDesc("mezzo_agent_tasks", "Tasks that have not ended, by state.", []string{"state"}, nil)
	taskEndsDesc   = prometheus.NewDesc("mezzo_agent_tasks_ended_total", "Tasks that have ended since the process began, by their last state.", []string{"state"}, nil)
	revokedDesc    = prometheus.NewDesc("mezzo_agent_tasks_revoked_total", "Tasks whose resources were taken back.", nil, nil)
	executorsDesc  = prometheus.NewDesc("mezzo_agent_executors", "Executors, by how far they are: starting, running or ending. Each command task has one, the agent itself.", []string{"state"}, nil)
	executorsEnded = prometheus.NewDesc("mezzo_agent_executors_ended_total", "Executors that have ended.", nil, nil)
	launchesDesc   = prometheus.NewDesc("mezzo_agent_launch_failures_total", "Launches that failed: nobody took the container, or it could not be made or started.", nil, nil)
	updatesDesc    = prometheus.NewDesc("mezzo_agent_status_updates_total", "Status updates of tasks, by whether they were valid.", []string{"valid"}, nil)
	messagesDesc   = prometheus.NewDesc("mezzo_agent_framework_messages_total", "Messages between executors and schedulers, by whether they could be passed on.", []string{"valid"}, nil)
	resourcesDesc  = prometheus.NewDesc("mezzo_agent_resources", "What the agent has to give, by resource and whether it may be taken back.", []string{"resource", "revocable"}, nil)
	usedDesc       = prometheus.NewDesc("mezzo_agent_resources_used", "What tasks and executors hold of it.", []string{"resource", "revocable"}, nil)
	cacheDesc      = prometheus.NewDesc("mezzo_agent_fetch_cache_bytes", "What the fetch cache may hold.", nil, nil)
	cachedDesc     = prometheus.NewDesc("mezzo_agent_fetch_cache_used_bytes", "What the fetch cache holds.", nil, nil)
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		startedDesc, registeredDesc, recoveryDesc, frameworksDesc, tasksDesc, taskEndsDesc, revokedDesc, executorsDesc, executorsEnded, launchesDesc,
		updatesDesc, messagesDesc, resourcesDesc, usedDesc, cacheDesc, cachedDesc,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector. What the machine counts is missing
// before the agent runs and when the loop does not answer in time.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { send(d, prometheus.GaugeValue, v, labels...) }
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		send(d, prometheus.CounterValue, float64(v), labels...)
	}
	a := g.agent
	gauge(startedDesc, float64(a.born.UnixNano())/1e9)
	if f := a.options.Fetcher; f != nil {
		used, total := f.CacheUse()
		gauge(cacheDesc, float64(total))
		gauge(cachedDesc, float64(used))
	}
	select {
	case <-a.running:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	var n state.Numbers
	if a.query(ctx, func(m *state.Machine) { n = m.Numbers() }) != nil {
		return
	}
	gauge(registeredDesc, truth(n.Registered))
	if n.Recovery >= 0 {
		gauge(recoveryDesc, n.Recovery.Seconds())
	}
	gauge(frameworksDesc, float64(n.Frameworks))
	for s, tasks := range n.Tasks {
		gauge(tasksDesc, float64(tasks), strings.ToLower(s.String()))
	}
	for s, tasks := range n.TasksEnded {
		count(taskEndsDesc, tasks, strings.ToLower(s.String()))
	}
	count(revokedDesc, n.TasksRevoked)
	gauge(executorsDesc, float64(n.ExecutorsStarting), "starting")
	gauge(executorsDesc, float64(n.ExecutorsRunning), "running")
	gauge(executorsDesc, float64(n.ExecutorsEnding), "ending")
	count(executorsEnded, n.ExecutorsEnded)
	count(launchesDesc, n.LaunchFailures)
	count(updatesDesc, n.StatusUpdates, "true")
	count(updatesDesc, n.InvalidStatusUpdates, "false")
	count(messagesDesc, n.Messages, "true")
	count(messagesDesc, n.DroppedMessages, "false")
	amounts := func(d *prometheus.Desc, list resource.Quantities, revocable string) {
		for _, q := range list {
			gauge(d, q.Amount.Float(), q.Name, revocable)
		}
	}
	amounts(resourcesDesc, n.Total, "false")
	amounts(resourcesDesc, n.TotalRevocable, "true")
	amounts(usedDesc, n.Used, "false")
	amounts(usedDesc, n.UsedRevocable, "true")
}

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

// GetMetrics serves what /metrics shows.
func (a *Agent) GetMetrics(ctx context.Context, _ *operatorv1.GetMetricsRequest) (*operatorv1.GetMetricsResponse, error) {
	if err := a.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	list, err := metric.Messages(a.metrics.all())
	return &operatorv1.GetMetricsResponse{Metrics: list}, err
}
