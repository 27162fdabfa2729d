package metric_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/metric"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// core tells numbers.
type core struct {
	operatorv1.UnimplementedOperatorServer
	list []*operatorv1.Metric
}

func (c core) GetMetrics(context.Context, *operatorv1.GetMetricsRequest) (*operatorv1.GetMetricsResponse, error) {
	return &operatorv1.GetMetricsResponse{Metrics: c.list}, nil
}

func serve(t *testing.T, side transport.Side, from metric.Source) func(query string) (int, string) {
	t.Helper()
	options := transport.Options{Side: side, Address: "127.0.0.1:0"}
	if side == transport.Master {
		options.Leadership = transport.NewLeadership(mirror.Endpoint) // it need not lead
	}
	server, err := transport.Listen(options)
	if err != nil {
		t.Fatal(err)
	}
	metric.Register(server, from)
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	return func(query string) (int, string) {
		t.Helper()
		response, err := http.Get("http://" + server.Address() + "/metrics/snapshot" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(b)
	}
}

func master(t *testing.T, list []*operatorv1.Metric, leading bool, known ...*operatorv1.WatchEvent) *metric.Master {
	t.Helper()
	server := mirrortest.Start(t, core{list: list})
	server.Tell(known...)
	server.SetStatus(func(s *operatorv1.Status) {
		s.Started = mirrortest.At(0)
		if !leading {
			s.Leadership = "standby"
		}
	})
	m := mirror.New(server.Client, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return &metric.Master{Operator: server.Client, Mirror: m, Subscribers: func() int { return 3 }}
}

func parse(t *testing.T, text string) map[string]float64 {
	t.Helper()
	var out map[string]float64
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// exporter are the names that a well-known exporter reads of a master, each of
// which it takes for granted (G.4).
const exporter = `
	master/cpus_total master/cpus_used master/mem_total master/mem_used master/disk_total master/disk_used
	master/cpus_revocable_total master/cpus_revocable_used master/mem_revocable_total master/mem_revocable_used master/disk_revocable_total master/disk_revocable_used
	master/elected master/uptime_secs master/slave_registrations master/slave_reregistrations
	master/slave_shutdowns_scheduled master/slave_shutdowns_canceled master/slave_shutdowns_completed master/slave_removals
	master/slaves_active master/slaves_inactive master/slaves_disconnected master/frameworks_active master/frameworks_inactive master/frameworks_disconnected
	master/outstanding_offers master/tasks_error master/tasks_failed master/tasks_finished master/tasks_killed master/tasks_lost master/tasks_running master/tasks_staging master/tasks_starting
	master/valid_framework_to_executor_messages master/invalid_framework_to_executor_messages master/valid_status_updates master/invalid_status_updates
	master/valid_status_update_acknowledgements master/invalid_status_update_acknowledgements
	master/event_queue_messages master/event_queue_dispatches master/event_queue_http_requests
	allocator/mesos/allocation_run_ms/p50 allocator/mesos/allocation_run_ms/p90 allocator/mesos/allocation_run_ms/p95 allocator/mesos/allocation_run_ms/p99
	allocator/mesos/allocation_run_ms/p999 allocator/mesos/allocation_run_ms/p9999 allocator/mesos/allocation_run_ms/min allocator/mesos/allocation_run_ms/max
	allocator/mesos/allocation_run_latency_ms/p50 allocator/mesos/allocation_run_latency_ms/min allocator/mesos/allocation_run_latency_ms/max
	allocator/mesos/allocation_runs allocator/mesos/event_queue_dispatches allocator/event_queue_dispatches
	system/load_1min system/load_5min system/load_15min system/cpus_total system/mem_total_bytes system/mem_free_bytes`

// G.4: every name is there from the first answer on, also of a master that does
// not lead.
func TestNamesOfAStandby(t *testing.T) {
	get := serve(t, transport.Master, master(t, nil, false))
	code, text := get("")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	got := parse(t, text)
	for name := range strings.FieldsSeq(exporter) {
		if _, has := got[name]; !has {
			t.Errorf("%s is missing", name)
		}
	}
	if got["master/elected"] != 0 || got["master/uptime_secs"] <= 0 {
		t.Errorf("elected is %v, uptime %v", got["master/elected"], got["master/uptime_secs"])
	}
}

func TestNumbersOfALeader(t *testing.T) {
	label := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	operation := func(uuid string, state mezzov1.OperationState) *operatorv1.WatchEvent {
		return mirrortest.Operation(&mezzov1.Operation{
			Uuid: &mezzov1.UUID{Value: []byte(uuid)}, Info: &mezzov1.Offer_Operation{}, LatestStatus: &mezzov1.OperationStatus{State: state.Enum()},
		})
	}
	get := serve(t, transport.Master, master(t, []*operatorv1.Metric{
		{Name: "mezzo_master_calls_total", Labels: label("type", "kill"), Value: 4},
		{Name: "mezzo_master_agent_messages_total", Labels: label("type", "update"), Value: 5},
		{Name: "mezzo_master_agent_changes_total", Labels: label("change", "registered"), Value: 6},
		{Name: "mezzo_master_tasks_ended_total", Labels: label("state", "task_failed", "source", "agent", "reason", "executor_terminated"), Value: 7},
		{Name: "mezzo_master_tasks_ended_total", Labels: label("state", "task_finished", "source", "executor", "reason", ""), Value: 8},
		{Name: "mezzo_master_tasks_refused_total", Labels: label("state", "task_error", "reason", "task_invalid"), Value: 9},
		{Name: "mezzo_master_operations_ended_total", Labels: label("type", "create", "state", "finished"), Value: 10},
		{Name: "mezzo_master_operations_ended_total", Labels: label("type", "reserve", "state", "finished"), Value: 11},
		{Name: "mezzo_master_framework_calls_total", Labels: label("framework", "m-1-0000", "type", "accept"), Value: 12},
		{Name: "mezzo_master_framework_calls_total", Labels: label("framework", "m-1-0000", "type", "kill"), Value: 13},
		{Name: "mezzo_master_framework_calls_total", Labels: label("framework", "gone", "type", "kill"), Value: 99},
		{Name: "mezzo_master_framework_events_total", Labels: label("framework", "m-1-0000", "type", "offers"), Value: 14},
		{Name: "mezzo_master_framework_operations_total", Labels: label("framework", "m-1-0000", "type", "launch"), Value: 15},
		{Name: "mezzo_master_framework_offers_total", Labels: label("framework", "m-1-0000", "outcome", "sent"), Value: 16},
		{Name: "mezzo_master_framework_tasks_ended_total", Labels: label("framework", "m-1-0000", "state", "task_failed"), Value: 17},
		{Name: "mezzo_master_allocator_cycle_seconds", Value: 0.006, Count: 4, Buckets: []*operatorv1.MetricBucket{
			{UpperBound: 0.001, Count: 2}, {UpperBound: 0.002, Count: 4}, {UpperBound: 1, Count: 4},
		}},
	}, true, append(mirrortest.Sample(), operation("1", mezzov1.OperationState_OPERATION_PENDING), operation("2", mezzov1.OperationState_OPERATION_UNREACHABLE), operation("3", mezzov1.OperationState_OPERATION_FINISHED))...))
	_, text := get("")
	got := parse(t, text)
	for name, want := range map[string]float64{
		"master/elected": 1, "master/operator_event_stream_subscribers": 3,
		"master/slaves_connected": 1, "master/slaves_active": 1, "master/slaves_unreachable": 1, "master/slaves_disconnected": 0,
		"master/frameworks_connected": 1, "master/frameworks_active": 1, "master/outstanding_offers": 1,
		"master/tasks_running": 1, "master/tasks_unreachable": 1, "master/tasks_finished": 8, "master/tasks_failed": 7, "master/tasks_error": 9,
		"master/task_failed/source_slave/reason_executor_terminated": 7, "master/task_error/source_master/reason_task_invalid": 9,
		"master/messages_kill_task": 4, "master/messages_status_update": 5, "master/slave_registrations": 6,
		"master/cpus_total": 20, "master/cpus_used": 1.1, "master/cpus_percent": 0.055, "master/mem_total": 8192,
		"master/operations/total": 3, "master/operations/pending": 1, "master/operations/unreachable": 1,
		"master/operations/finished": 21, "master/operations/create/finished": 10, "master/operations/failed": 0,
		"master/frameworks/marathon/m-1-0000/calls": 25, "master/frameworks/marathon/m-1-0000/calls/kill": 13,
		"master/frameworks/marathon/m-1-0000/events": 14, "master/frameworks/marathon/m-1-0000/events/offers": 14,
		"master/frameworks/marathon/m-1-0000/operations": 15, "master/frameworks/marathon/m-1-0000/operations/launch": 15,
		"master/frameworks/marathon/m-1-0000/offers/sent": 16, "master/frameworks/marathon/m-1-0000/offers/declined": 0,
		"master/frameworks/marathon/m-1-0000/tasks/terminal/task_failed": 17, "master/frameworks/marathon/m-1-0000/tasks/terminal/task_lost": 0,
		"master/frameworks/marathon/m-1-0000/subscribed": 1, "master/frameworks/marathon/m-1-0000/tasks/active/task_running": 1,
		"allocator/mesos/allocation_runs": 4, "allocator/mesos/allocation_run_ms": 1.5, "allocator/mesos/allocation_run_ms/count": 4,
		"allocator/mesos/allocation_run_ms/p50": 1, "allocator/mesos/allocation_run_ms/max": 2, "allocator/mesos/allocation_run_ms/min": 0,
		"allocator/mesos/quota/roles/ads/resources/cpus/guarantee": 4, "allocator/mesos/quota/roles/ads/resources/cpus/limit": 6,
	} {
		if v, has := got[name]; !has || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
}

// A.2 and I.9: a timeout.
func TestTimeout(t *testing.T) {
	get := serve(t, transport.Master, master(t, nil, false))
	if code, _ := get("?timeout=5secs"); code != 200 {
		t.Errorf("with a timeout it is answered with %d", code)
	}
	if code, text := get("?timeout=5"); code != 400 || !strings.HasSuffix(text, "\n") {
		t.Errorf("a bad timeout is answered with %d %q", code, text)
	}
}
