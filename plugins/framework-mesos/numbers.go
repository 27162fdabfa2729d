package main

import (
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/metric"
)

// numbers are what an adapter tells of itself, at a master and at an agent.
type numbers struct {
	set    *metric.Set
	server transport.Counts
	calls  *metric.Counter
	ready  *metric.Gauge
	feeds  *metric.Counter
	queued *metric.Gauge
}

func newNumbers() *numbers {
	s := metric.NewSet()
	return &numbers{
		set: s,
		server: transport.Counts{
			Requests:    s.Counter("requests_total", "Requests over HTTP, by endpoint and status of the answer, when that begins.", "endpoint", "code"),
			Took:        s.Histogram("request_seconds", "How long answers took, by endpoint. Streams of events are not in it.", metric.Exponential(0.001, 4, 8), "endpoint"),
			Streams:     s.Gauge("streams", "Open streams of events, by endpoint: schedulers, subscribers of the operator API, executors, attached terminals.", "endpoint"),
			Cut:         s.Counter("streams_cut_total", "Streams of events that the adapter has ended, by endpoint and why: the client stalled or was too slow, it had to make room for others, or the master's feed broke off.", "endpoint", "reason"),
			Connections: s.Gauge("connections", "Open connections of clients."),
			Refused:     s.Counter("connections_refused_total", "Connections that were closed at once, since the most that may be open were."),
		},
		calls:  s.Counter("calls_total", "Calls of schedulers but SUBSCRIBE, by type and what the master said to them.", "type", "outcome"),
		ready:  s.Gauge("mirror_ready", "Whether the copy of the cluster is there which the operator API and the older endpoints answer from: it is while the master leads. Absent at an agent."),
		feeds:  s.Counter("mirror_feeds_total", "How often that copy was begun anew, with a snapshot of the cluster."),
		queued: s.Gauge("mirror_queued_bytes", "What waits for the subscribers of the operator API."),
	}
}
