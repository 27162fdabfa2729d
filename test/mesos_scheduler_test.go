package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// httpScheduler is a Mesos v1 scheduler over plain HTTP, with protobuf bodies,
// written from Mesos's documentation: it knows nothing of Mezzo's own services.
type httpScheduler struct {
	t      *testing.T
	url    string
	client *http.Client
	info   *mezzov1.FrameworkInfo

	stream string
	events chan *schedulerv1.Event // closed when the subscription ends
	// states are those that the task was told to be in, in their order.
	states []mezzov1.TaskState
	agent  *mezzov1.AgentID // the task's
	port   int32            // of the agent, by the newest offer
}

// protobufMedia is the media type of both directions.
const protobufMedia = "application/x-protobuf"

func newHTTPScheduler(t *testing.T, address string, failover float64) *httpScheduler {
	s := &httpScheduler{
		t: t, url: "http://" + address + "/api/v1/scheduler", client: &http.Client{Transport: &http.Transport{}},
		info: &mezzov1.FrameworkInfo{User: proto.String(""), Name: proto.String("http"), FailoverTimeout: proto.Float64(failover)},
	}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func (s *httpScheduler) post(call *schedulerv1.Call) (*http.Response, error) {
	s.t.Helper()
	call.FrameworkId = s.info.GetId()
	body, err := proto.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", protobufMedia)
	r.Header.Set("Accept", protobufMedia)
	if call.GetType() != schedulerv1.Call_SUBSCRIBE {
		r.Header.Set("Mesos-Stream-Id", s.stream)
	}
	return s.client.Do(r)
}

// subscribe opens the stream; an answer other than 200 is an error.
func (s *httpScheduler) subscribe() error {
	s.t.Helper()
	response, err := s.post(&schedulerv1.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum(), Subscribe: &schedulerv1.Call_Subscribe{FrameworkInfo: s.info}})
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != protobufMedia {
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		return fmt.Errorf("SUBSCRIBE: %s %q: %s", response.Status, response.Header, text)
	}
	s.stream = response.Header.Get("Mesos-Stream-Id")
	events := make(chan *schedulerv1.Event, 100)
	s.events = events
	s.t.Cleanup(func() {
		response.Body.Close()
		for range events { // the reader ends
		}
	})
	go func() {
		defer close(events)
		in := recordio.NewReader(response.Body, recordio.DefaultLimit)
		for {
			record, err := in.Next()
			if err != nil {
				return
			}
			event := &schedulerv1.Event{}
			if err := proto.Unmarshal(record, event); err != nil {
				s.t.Errorf("an event cannot be read: %v", err)
				return
			}
			events <- event
		}
	}()
	first := s.next()
	if first.GetType() != schedulerv1.Event_SUBSCRIBED {
		return fmt.Errorf("the first event is %v", first)
	}
	s.info.Id = first.GetSubscribed().GetFrameworkId()
	return nil
}

// call makes a call, which is to be accepted.
func (s *httpScheduler) call(call *schedulerv1.Call) {
	s.t.Helper()
	response, err := s.post(call)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusAccepted || len(text) != 0 {
		s.t.Fatalf("%s: %s %s", call.GetType(), response.Status, text)
	}
}

// next is the next event; nil when the stream has ended.
func (s *httpScheduler) next() *schedulerv1.Event {
	s.t.Helper()
	select {
	case event := <-s.events:
		return event
	case <-time.After(patience):
		s.t.Fatal("no event comes")
		return nil
	}
}

// until launches the command on the first offer that comes, declines others, and
// acknowledges updates, until the task is in the state.
func (s *httpScheduler) until(state mezzov1.TaskState, command string) {
	s.t.Helper()
	for begun := time.Now(); ; {
		if time.Since(begun) > patience {
			s.t.Fatalf("the task does not come to %s, after %v", state, s.states)
		}
		event := s.next()
		switch event.GetType() {
		case schedulerv1.Event_OFFERS:
			for _, offer := range event.GetOffers().GetOffers() {
				s.offered(offer, command)
			}
		case schedulerv1.Event_UPDATE:
			status := event.GetUpdate().GetStatus()
			s.states = append(s.states, status.GetState())
			if status.Uuid != nil {
				s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
					AgentId: status.GetAgentId(), TaskId: status.GetTaskId(), Uuid: status.GetUuid(),
				}})
			}
			if status.GetState() == state {
				return
			}
		case schedulerv1.Event_HEARTBEAT:
		default:
			s.t.Fatalf("unexpected event, after %v: %v", s.states, event)
		}
	}
}

func (s *httpScheduler) offered(offer *mezzov1.Offer, command string) {
	s.t.Helper()
	if offer.GetUrl().GetAddress().GetIp() == "" || offer.GetUrl().GetPath() != "/slave(1)" || offer.AllocationInfo != nil {
		s.t.Errorf("offer %v", offer)
	}
	s.port = offer.GetUrl().GetAddress().GetPort()
	if s.agent != nil || command == "" {
		s.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
			OfferIds: []*mezzov1.OfferID{offer.GetId()}, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(3600)},
		}})
		return
	}
	s.agent = offer.GetAgentId()
	scalar := func(name string, value float64) *mezzov1.Resource {
		return &mezzov1.Resource{
			Name: proto.String(name), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(value)},
			Role: proto.String("*"), // as frameworks without RESERVATION_REFINEMENT write it
		}
	}
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
		OfferIds: []*mezzov1.OfferID{offer.GetId()},
		Operations: []*mezzov1.Offer_Operation{{
			Type: mezzov1.Offer_Operation_LAUNCH.Enum(),
			Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: []*mezzov1.TaskInfo{{
				Name: proto.String("task"), TaskId: &mezzov1.TaskID{Value: proto.String("task-1")}, AgentId: offer.GetAgentId(),
				Resources: []*mezzov1.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
				Command:   &mezzov1.CommandInfo{Value: proto.String(command)},
			}}},
		}},
		Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(3600)},
	}})
}

// teardown ends the framework; its stream ends without a further word.
func (s *httpScheduler) teardown() {
	s.t.Helper()
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_TEARDOWN.Enum()})
	for event := s.next(); event != nil; event = s.next() {
		if event.GetType() == schedulerv1.Event_ERROR {
			s.t.Errorf("after TEARDOWN: %v", event)
		}
	}
}

// again subscribes with the id that it has, until it is let in.
func (s *httpScheduler) again() {
	s.t.Helper()
	id := s.info.GetId().GetValue()
	eventually(s.t, "the scheduler to be subscribed again", func() bool { return s.subscribe() == nil })
	if got := s.info.GetId().GetValue(); got != id {
		s.t.Fatalf("it was %s and is %s", id, got)
	}
	// States are not told unasked.
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: &schedulerv1.Call_Reconcile{
		Tasks: []*schedulerv1.Call_Reconcile_Task{{TaskId: &mezzov1.TaskID{Value: proto.String("task-1")}, AgentId: s.agent}},
	}})
}

// TestMesosScheduler: a scheduler that only speaks the Mesos API runs a task to
// its end.
func TestMesosScheduler(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	s := newHTTPScheduler(t, c.fields["mesos"], 0)
	if err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	s.until(mezzov1.TaskState_TASK_FINISHED, "true")
	if _, port, _ := net.SplitHostPort(c.fields["mesos_agent"]); fmt.Sprint(s.port) != port {
		t.Errorf("offers have the agent at port %d, it is at %s", s.port, port)
	}
	if s.states[0] == mezzov1.TaskState_TASK_FINISHED {
		t.Errorf("states %v", s.states)
	}
	if list := c.list("frameworks"); len(list) != 1 || list[0]["id"] != s.info.GetId().GetValue() {
		t.Errorf("frameworks: %v", list)
	}
	s.teardown()
}

// killAdapter ends the master's adapter, and returns its pid.
func (c *cluster) killAdapter() int {
	c.t.Helper()
	var pid float64
	eventually(c.t, "an adapter that serves", func() bool {
		pid, _ = c.mesosPlugin(true)["pid"].(float64)
		return pid > 0
	})
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	keepFree(c.t, c.fields["mesos"])
	return int(pid)
}

// TestMesosSchedulerFailsOver: the adapter dies under a scheduler that has no
// failover timeout at all, then another scheduler takes the framework over. The
// task goes on.
func TestMesosSchedulerFailsOver(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	s := newHTTPScheduler(t, c.fields["mesos"], 0)
	if err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	release := c.dir + "-release"
	s.until(mezzov1.TaskState_TASK_RUNNING, "while ! test -e "+release+"; do sleep 0.05; done")
	first := c.killAdapter()
	for s.next() != nil { // the stream breaks
	}
	s.again()
	if now, _ := c.mesosPlugin(true)["pid"].(float64); int(now) == first {
		t.Errorf("the adapter's pid is still %d", first)
	}
	s.until(mezzov1.TaskState_TASK_RUNNING, "")

	other := newHTTPScheduler(t, c.fields["mesos"], 0)
	other.info.Id, other.agent = s.info.GetId(), s.agent
	other.again()
	for last := (*schedulerv1.Event)(nil); ; {
		event := s.next()
		if event == nil {
			if last.GetError().GetMessage() != "Framework failed over" {
				t.Errorf("the last that the old scheduler hears is %v", last)
			}
			break
		}
		last = event
	}
	response, err := s.post(&schedulerv1.Call{Type: schedulerv1.Call_REVIVE.Enum()})
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("a call of the old scheduler: %s", response.Status)
	}
	other.until(mezzov1.TaskState_TASK_RUNNING, "")
	writeFile(t, release, "")
	other.until(mezzov1.TaskState_TASK_FINISHED, "")
	other.teardown()
}

// TestMesosSchedulerMasterKilled: the master dies, its adapter with it, and both
// come back; so does the scheduler.
func TestMesosSchedulerMasterKilled(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	s := newHTTPScheduler(t, c.fields["mesos"], 60)
	if err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	release := c.dir + "-release"
	s.until(mezzov1.TaskState_TASK_RUNNING, "while ! test -e "+release+"; do sleep 0.05; done")
	c.killChild("master")
	for s.next() != nil {
	}
	c.startAgain("master")
	// While agents may still come back nothing is said of tasks that are not known.
	eventually(t, "the agent to be back", func() bool {
		agents := c.list("agents")
		return len(agents) == 1 && agents[0]["state"] == "active"
	})
	s.again()
	s.until(mezzov1.TaskState_TASK_RUNNING, "")
	writeFile(t, release, "")
	s.until(mezzov1.TaskState_TASK_FINISHED, "")
	s.teardown()
}
