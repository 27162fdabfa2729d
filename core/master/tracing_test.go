package master_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/trace/tracetest"
	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// again is a filter that wants what is left at once.
func again() *mezzov1.Filters { return &mezzov1.Filters{RefuseSeconds: proto.Float64(0)} }

// TestTraceOfAnOffer is an offer's life, and what was launched on it, in one
// trace; a scheduler that traces itself has the launch in its own.
func TestTraceOfAnOffer(t *testing.T) {
	c := tracetest.Start(t)
	o := options(t)
	o.Config.Tracing = &config.Tracing{Endpoint: "http://" + c.GRPC, Protocol: "grpc", SampleRatio: 1, QueueSize: 1024}
	m := start(t, o)
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "the subscription", e.subscribed)

	offer := await(t, "an offer", e.offers)
	launch := func(offer *mezzov1.Offer, traceparent string, tasks ...*mezzov1.TaskInfo) {
		t.Helper()
		for _, x := range tasks {
			x.AgentId = offer.GetAgentId()
		}
		ctx := framework.WithTraceparent(t.Context(), traceparent)
		if err := e.Accept(ctx, []*mezzov1.OfferID{offer.GetId()}, []*mezzov1.Offer_Operation{{
			Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
		}}, again()); err != nil {
			t.Fatal(err)
		}
	}
	launch(offer, "", task("t1", "cpus:1;mem:64"))
	e.until(t, "t1", mezzov1.TaskState_TASK_RUNNING)
	a.finish(e.FrameworkID(), "t1")
	e.until(t, "t1", mezzov1.TaskState_TASK_FINISHED)
	a.settled()

	second := await(t, "another offer", e.offers)
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	launch(second, "00-"+traceID+"-b7ad6b7169203331-01", task("t2", "cpus:1;mem:64"))
	e.until(t, "t2", mezzov1.TaskState_TASK_RUNNING)
	a.settled()

	third := await(t, "a third offer", e.offers)
	launch(third, "", task("t3", "cpus:100;mem:64"))
	e.until(t, "t3", mezzov1.TaskState_TASK_ERROR)
	fourth := await(t, "a fourth offer", e.offers)
	if err := e.Decline(t.Context(), again(), fourth.GetId()); err != nil {
		t.Fatal(err)
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}

	spans := c.Spans()
	byOffer := func(o *mezzov1.Offer) tracetest.Span {
		t.Helper()
		found := spans.Named("offer").With("mezzo.offer.id", o.GetId().GetValue())
		if len(found) != 1 {
			t.Fatalf("offer %s has %d spans", o.GetId().GetValue(), len(found))
		}
		return found[0]
	}
	first := byOffer(offer)
	want := `mezzo-master: offer accepted
  mezzo-master: accept
    mezzo-master: launch
      mezzo-master: deliver update TASK_FINISHED
      mezzo-master: deliver update TASK_RUNNING
`
	if diff := cmp.Diff(want, spans.Of(first.Trace).Tree()); diff != "" {
		t.Errorf("the first trace (-want +got):\n%s", diff)
	}
	if first.Attributes["mezzo.agent.id"] != a.id || first.Attributes["mezzo.framework.id"] != e.FrameworkID() {
		t.Errorf("the offer's span is %+v", first)
	}
	want = `mezzo-master: accept
  mezzo-master: launch
    mezzo-master: deliver update TASK_RUNNING
`
	own := spans.Of(traceID)
	if diff := cmp.Diff(want, own.Tree()); diff != "" {
		t.Errorf("the scheduler's own trace (-want +got):\n%s", diff)
	}
	if s := own.One("accept"); s == nil || s.Parent != "b7ad6b7169203331" || len(s.Links) != 1 || s.Links[0] != byOffer(second).ID {
		t.Errorf("the scheduler's ACCEPT is %+v", s)
	}
	refused := spans.Of(byOffer(third).Trace).One("accept")
	if refused == nil || !refused.Failed || cmp.Diff([]string{"task refused"}, refused.Events) != "" {
		t.Errorf("an ACCEPT whose task is wrong is %+v", refused)
	}
	if s := byOffer(fourth); s.Attributes["mezzo.outcome"] != "declined" {
		t.Errorf("the declined offer is %+v", s)
	}
	if s := spans.One("subscribe"); s == nil || s.Failed || s.Attributes["mezzo.framework.id"] != e.FrameworkID() {
		t.Errorf("the subscription is %+v", s)
	}
}
