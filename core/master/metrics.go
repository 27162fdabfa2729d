package master

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/pluginhost"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// metrics are what /metrics shows. Gauges of what the mirror holds are read
// from it when they are asked for.
type metrics struct {
	registry *prometheus.Registry
	turn     prometheus.Histogram
	cycle    prometheus.Histogram
	write    prometheus.Histogram
	links    prometheus.Gauge
	terms    prometheus.Counter
	refused  *prometheus.CounterVec
	cut      *prometheus.CounterVec
	losses   prometheus.Counter
	swaps    *prometheus.CounterVec
	revoked  *prometheus.CounterVec
	traffic  *traffic
	calls    *metric.Calls // of plugins
	own      *metric.Own   // of plugins, by their own word
}

// all is the registry's and what plugins tell of themselves.
func (m *metrics) all() prometheus.Gatherer { return m.own.Beside(m.registry) }

func newMetrics(m *mirror, waiting func() int, leading, damaged func() bool, numbers func() []pluginhost.Numbers) *metrics {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-5, 2, 21)})
	}
	out := &metrics{
		registry: prometheus.NewRegistry(),
		turn:     histogram("mezzo_master_loop_turn_seconds", "How long one turn of the event loop took."),
		cycle:    histogram("mezzo_master_allocator_cycle_seconds", "How long one cycle of the allocator took, by its own word."),
		write:    histogram("mezzo_master_registry_write_seconds", "How long one write of the registry took."),
		links:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "mezzo_master_agent_streams", Help: "Open streams of agents."}),
		terms:    prometheus.NewCounter(prometheus.CounterOpts{Name: "mezzo_master_terms_total", Help: "How often this master has begun to lead."}),
		losses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mezzo_master_registry_losses_total", Help: "How often a server of ZooKeeper was found to lack committed writes of the registry. The log says which.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_master_allocator_decisions_refused_total", Help: "Decisions of the allocator that were refused, by reason.",
		}, []string{"reason"}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_master_streams_cut_total", Help: "Streams that were ended because what waited for the peer reached its bound.",
		}, []string{"peer"}),
		swaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_master_allocator_swaps_total", Help: "How often another allocator was to take over, by what came of it: done or failed.",
		}, []string{"outcome"}),
		revoked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mezzo_master_tasks_revoked_total", Help: "Tasks that the allocator took the resources of, by the role that lost them.",
		}, []string{"role"}),
	}
	out.traffic, out.calls = newTraffic(out.registry), metric.NewCalls()
	out.calls.Register(out.registry)
	out.own = metric.NewOwn(numbers)
	out.own.Register(out.registry)
	inbox := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mezzo_master_loop_queue_bytes", Help: "What waits for the event loop."},
		func() float64 { return float64(waiting()) })
	whether := func(name, help string, is func() bool) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if is() {
				return 1
			}
			return 0
		})
	}
	leads := whether("mezzo_master_leading", "1 while this master leads, else 0.", leading)
	damage := whether("mezzo_master_registry_damaged", "1 when this master was elected and could not lead, since no server of ZooKeeper holds all that was written; 0 once it leads.", damaged)
	out.registry.MustRegister(inbox, leads, damage, out.losses, out.terms, out.turn, out.cycle, out.write, out.links, out.refused, out.cut, out.swaps, out.revoked, &gauges{mirror: m}, m.tallies, metric.NewPlugins(m.listPlugins),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return out
}

// refusal is a reason as a label: "not_free".
func refusal(r allocator.RefusalReason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REFUSAL_REASON_"))
}

// gauges reads the mirror.
type gauges struct {
	mirror *mirror
}

var (
	agentsDesc     = prometheus.NewDesc("mezzo_master_agents", "Agents, by state.", []string{"state"}, nil)
	frameworksDesc = prometheus.NewDesc("mezzo_master_frameworks", "Frameworks, by state.", []string{"state"}, nil)
	tasksDesc      = prometheus.NewDesc("mezzo_master_tasks", "Tasks that the master knows, by state.", []string{"state"}, nil)
	offersDesc     = prometheus.NewDesc("mezzo_master_offers", "Outstanding offers.", nil, nil)
	// Of a role: per role and resource.
	roleSharesDesc    = prometheus.NewDesc("mezzo_master_role_dominant_share", "A role's greatest share of any resource of the cluster, offers included, without the roles below it.", []string{"role"}, nil)
	roleAllocatedDesc = prometheus.NewDesc("mezzo_master_role_allocated", "What the tasks and executors in a role hold, without the roles below it.", []string{"role", "resource"}, nil)
	roleConsumedDesc  = prometheus.NewDesc("mezzo_master_role_quota_consumed", "What counts toward a role's guarantee and limit, where it has one.", []string{"role", "resource"}, nil)
	roleGuaranteeDesc = prometheus.NewDesc("mezzo_master_role_guarantee", "What a role is guaranteed.", []string{"role", "resource"}, nil)
	roleLimitDesc     = prometheus.NewDesc("mezzo_master_role_limit", "What a role may have at most.", []string{"role", "resource"}, nil)
	awaitedDesc       = prometheus.NewDesc("mezzo_master_agents_awaited", "Agents that have not come back since this master began to lead.", nil, nil)

	taskEndsDesc      = prometheus.NewDesc("mezzo_master_tasks_ended_total", "Tasks that have ended, by their last state and who said so and why, since the process began.", []string{"state", "source", "reason"}, nil)
	agentChangesDesc  = prometheus.NewDesc("mezzo_master_agent_changes_total", "Agents that registered, registered again, became unreachable or were removed, since the process began.", []string{"change"}, nil)
	operationEndsDesc = prometheus.NewDesc("mezzo_master_operations_ended_total", "Operations on resources that have ended, by type and their last state, since the process began.", []string{"type", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{agentsDesc, frameworksDesc, tasksDesc, offersDesc, roleSharesDesc,
		roleAllocatedDesc, roleConsumedDesc, roleGuaranteeDesc, roleLimitDesc, awaitedDesc, taskEndsDesc, agentChangesDesc, operationEndsDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	m := g.mirror
	total := m.totals().total
	for _, r := range m.listRoles() {
		collectRole(gauge, r, total)
	}
	m.view.RLock()
	defer m.view.RUnlock()
	for s, n := range m.agentStates {
		gauge(agentsDesc, float64(n), string(s))
	}
	for s, n := range m.frameworkStates {
		gauge(frameworksDesc, float64(n), string(s))
	}
	for s, n := range m.taskStates {
		gauge(tasksDesc, float64(n), strings.ToLower(s.String()))
	}
	gauge(awaitedDesc, float64(m.awaited))
	for end, n := range m.taskEnds {
		out <- prometheus.MustNewConstMetric(taskEndsDesc, prometheus.CounterValue, float64(n), end.labels()...)
	}
	for end, n := range m.operationEnds {
		out <- prometheus.MustNewConstMetric(operationEndsDesc, prometheus.CounterValue, float64(n),
			strings.ToLower(end.Type.String()), strings.ToLower(strings.TrimPrefix(end.State.String(), "OPERATION_")))
	}
	for change, n := range m.agentChanges {
		out <- prometheus.MustNewConstMetric(agentChangesDesc, prometheus.CounterValue, float64(n), change)
	}
	gauge(offersDesc, float64(len(m.offers)))
}

// collectRole tells what a role has and may have. Roles are few: operators
// name them.
func collectRole(gauge func(*prometheus.Desc, float64, ...string), r *state.RoleView, total resource.Quantities) {
	share, _ := dominantShare(r, total)
	gauge(roleSharesDesc, share, r.Name)
	each := func(d *prometheus.Desc, list resource.Quantities) {
		for _, q := range list {
			gauge(d, q.Amount.Float(), r.Name, q.Name)
		}
	}
	each(roleAllocatedDesc, r.Used)
	each(roleGuaranteeDesc, r.Guarantee)
	each(roleLimitDesc, r.Limit)
	if len(r.Guarantee) > 0 || r.Limit != nil {
		each(roleConsumedDesc, r.Consumed)
	}
}
