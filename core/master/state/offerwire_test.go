package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// decoded is what a scheduler reads of the events.
func decoded(t *testing.T, events [][]byte) (out []*schedulerv1.Event) {
	t.Helper()
	for _, e := range events {
		data, err := proto.Marshal(SendOffers{Offers: e}.Event())
		if err != nil {
			t.Fatal(err)
		}
		event := new(schedulerv1.Event)
		if err := proto.Unmarshal(data, event); err != nil {
			t.Fatal(err)
		}
		if event.GetType() != schedulerv1.Event_OFFERS {
			t.Errorf("the event is %s", event.GetType())
		}
		out = append(out, event)
	}
	return out
}

func testAgent(info *linkv1.Agent) *agent {
	a := &agent{id: "a", hostname: info.GetHostname(), info: info, executors: map[executorKey]*executor{}}
	new(Machine).setInfo(a, info, "10.0.0.1:5")
	return a
}

func testOffer(serial int, a *agent) *offer {
	return &offer{
		id: fmt.Sprint("o", serial), serial: uint64(serial), agent: a, framework: &framework{id: "f"}, role: "eng",
		resources: resource.MustParse("cpus:1;ports:[1-2,4-5]"),
	}
}

// TestOffersAreWrittenWhole: a scheduler reads all that is known of an agent
// and an offer; the second time, from what is remembered.
func TestOffersAreWrittenWhole(t *testing.T) {
	start := time.Unix(100, 7)
	domain := &mezzov1.DomainInfo{FaultDomain: &mezzov1.DomainInfo_FaultDomain{
		Region: &mezzov1.DomainInfo_FaultDomain_RegionInfo{Name: proto.String("north")},
		Zone:   &mezzov1.DomainInfo_FaultDomain_ZoneInfo{Name: proto.String("n1")},
	}}
	attributes := []*mezzov1.Attribute{
		{Name: proto.String("rack"), Type: mezzov1.Value_TEXT.Enum(), Text: &mezzov1.Value_Text{Value: proto.String("r1")}},
		{Name: proto.String("slots"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(2)}},
	}
	whole := testAgent(&linkv1.Agent{
		Hostname: "h", HttpAddress: "0.0.0.0:5051", Attributes: attributes, Domain: domain,
		Endpoints: []*linkv1.Endpoint{{Name: "e", Address: "h:1"}},
	})
	for _, key := range []executorKey{{"f", "x2"}, {"other", "x3"}, {"f", "x1"}} {
		whole.executors[key] = &executor{}
	}
	whole.maintenance = &maintenance{window: allocator.Unavailability{Start: start, Duration: time.Minute}}
	small := testAgent(&linkv1.Agent{})
	want := &mezzov1.Offer{
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")}, AgentId: &mezzov1.AgentID{Value: proto.String("a")},
		Hostname: proto.String("h"), Attributes: attributes, Url: whole.url, Domain: domain,
		ExecutorIds: []*mezzov1.ExecutorID{{Value: proto.String("x1")}, {Value: proto.String("x2")}},
		Unavailability: &mezzov1.Unavailability{
			Start: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(start.UnixNano())}, Duration: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(time.Minute))},
		},
		AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("eng")},
		Resources:      resource.MustParse("cpus:1;ports:[1-2,4-5]").Allocate("eng").ToProto(),
	}
	plain := &mezzov1.Offer{
		FrameworkId: want.FrameworkId, AgentId: want.AgentId, Hostname: proto.String(""), Url: small.url,
		AllocationInfo: want.AllocationInfo, Resources: want.Resources,
	}
	// What is forgotten in this test or in the code shows here.
	for f := range fieldsOf(want) {
		if !want.ProtoReflect().Has(f) && f.Name() != "id" {
			t.Fatalf("the test's offer has no %s", f.Name())
		}
	}
	var w offerWriter
	for range 2 {
		gone := testOffer(9, whole)
		gone.over = true
		offers := []*offer{testOffer(1, whole), gone, testOffer(2, small), testOffer(3, whole)}
		events, err := w.write(offers)
		if err != nil {
			t.Fatal(err)
		}
		read := decoded(t, events)
		if len(read) != 1 {
			t.Fatalf("%d events", len(read))
		}
		var said []*mezzov1.Offer
		for i, p := range []*mezzov1.Offer{want, plain, want} {
			p = proto.Clone(p).(*mezzov1.Offer)
			p.Id = &mezzov1.OfferID{Value: proto.String(fmt.Sprint("o", i+1))}
			said = append(said, p)
		}
		if diff := cmp.Diff(said, read[0].GetOffers().GetOffers(), protocmp.Transform()); diff != "" {
			t.Errorf("a scheduler reads something else (-said +read):\n%s", diff)
		}
		for _, o := range offers {
			if o.sent == o.over {
				t.Errorf("offer %s is sent: %v", o.id, o.sent)
			}
		}
	}
}

func fieldsOf(m proto.Message) map[protoreflect.FieldDescriptor]bool {
	out := map[protoreflect.FieldDescriptor]bool{}
	for fields, i := m.ProtoReflect().Descriptor().Fields(), 0; i < fields.Len(); i++ {
		out[fields.Get(i)] = true
	}
	return out
}

// TestOffersSayWhatTheAgentSaysNow: what is remembered of an agent is forgotten
// when it says something else of itself.
func TestOffersSayWhatTheAgentSaysNow(t *testing.T) {
	var m Machine
	a := &agent{id: "a"}
	for _, name := range []string{"before", "after"} {
		m.setInfo(a, &linkv1.Agent{Hostname: name}, "10.0.0.1:5")
		events, err := m.writer.write([]*offer{testOffer(1, a)})
		if err != nil {
			t.Fatal(err)
		}
		o := decoded(t, events)[0].GetOffers().GetOffers()[0]
		if o.GetHostname() != name || o.GetUrl().GetAddress().GetHostname() != name {
			t.Errorf("the offer is of %s at %v, want %s", o.GetHostname(), o.GetUrl(), name)
		}
	}
}

// TestOffersThatCannotBeWritten are an error that names them; the others go.
func TestOffersThatCannotBeWritten(t *testing.T) {
	bad := testAgent(&linkv1.Agent{Attributes: []*mezzov1.Attribute{{}}}) // without its name
	good := testAgent(&linkv1.Agent{})
	var w offerWriter
	events, err := w.write([]*offer{testOffer(1, good), testOffer(2, bad), testOffer(3, good)})
	if err == nil || !strings.Contains(err.Error(), "o2") {
		t.Errorf("error %v, want one that names offer o2", err)
	}
	var ids []string
	for _, o := range decoded(t, events)[0].GetOffers().GetOffers() {
		ids = append(ids, o.GetId().GetValue())
	}
	if diff := cmp.Diff([]string{"o1", "o3"}, ids); diff != "" {
		t.Error(diff)
	}
}

// TestWhatIsRememberedOfResourcesIsBounded: it does not grow for ever, and is
// right after it was forgotten.
func TestWhatIsRememberedOfResourcesIsBounded(t *testing.T) {
	var w offerWriter
	a := testAgent(&linkv1.Agent{})
	for i := range 2*formsLimit + 10 {
		o := testOffer(i, a)
		o.resources = resource.MustParse(fmt.Sprint("cpus:", i+1))
		events, err := w.write([]*offer{o})
		if err != nil {
			t.Fatal(err)
		}
		got := decoded(t, events)[0].GetOffers().GetOffers()[0].GetResources()
		if len(got) != 1 || got[0].GetScalar().GetValue() != float64(i+1) {
			t.Fatalf("offer %d has %v", i, got)
		}
	}
	if len(w.forms) > formsLimit {
		t.Errorf("%d lists are remembered", len(w.forms))
	}
}

func TestManyOffersGoInSeveralEvents(t *testing.T) {
	a := testAgent(&linkv1.Agent{Hostname: strings.Repeat("h", offersSize/25)}) // it is in the URL too
	var offers []*offer
	for i := range 100 {
		offers = append(offers, testOffer(i, a))
	}
	var w offerWriter
	events, err := w.write(offers)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) < 100*2/25 {
		t.Errorf("%d events", len(events))
	}
	next := 0
	for i, event := range decoded(t, events) {
		if size := len(events[i]); size > offersSize+64 {
			t.Errorf("event %d has %d bytes", i, size)
		}
		for _, o := range event.GetOffers().GetOffers() {
			if got := o.GetId().GetValue(); got != fmt.Sprint("o", next) {
				t.Fatalf("offer %s comes, want o%d", got, next)
			}
			next++
		}
	}
	if next != 100 {
		t.Errorf("%d offers are in the events", next)
	}
}
