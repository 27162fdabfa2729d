package master

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// fill sets every field of a message, and of the messages in it, so that what
// is forgotten shows. Messages that contain themselves are left at the depth.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(string(f.Name()))
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(f.Name()))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.EnumKind:
				return protoreflect.ValueOfEnum(f.Enum().Values().Get(f.Enum().Values().Len() - 1).Number())
			case protoreflect.DoubleKind:
				return protoreflect.ValueOfFloat64(1.5)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(7)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(7)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(7)
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(7)
			}
			panic(fmt.Sprintf("a field of kind %s", f.Kind()))
		}
		switch {
		case f.IsMap():
		case f.IsList() && f.Message() != nil:
			if depth > 0 {
				list := m.Mutable(f).List()
				fill(list.AppendMutable().Message(), depth-1)
				fill(list.AppendMutable().Message(), depth-1)
			}
		case f.IsList():
			m.Mutable(f).List().Append(value())
		case f.Message() != nil:
			if depth > 0 {
				fill(m.Mutable(f).Message(), depth-1)
			}
		default:
			m.Set(f, value())
		}
	}
}

// sent is what a scheduler reads of the parts.
func sent(t *testing.T, parts []part) (events []*schedulerv1.Event) {
	t.Helper()
	for _, p := range parts {
		data, err := proto.Marshal(p.event)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > p.size || p.size > len(data)+2*eventFrame {
			t.Errorf("a part has %d bytes and is counted as %d", len(data), p.size)
		}
		event := new(schedulerv1.Event)
		if err := proto.Unmarshal(data, event); err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
	return events
}

// TestOffersAreEncodedWhole: a scheduler reads what the machine said, of every
// field that an offer has; the second time, from what is remembered.
func TestOffersAreEncodedWhole(t *testing.T) {
	whole := new(mezzov1.Offer)
	fill(whole.ProtoReflect(), 8)
	small := &mezzov1.Offer{
		Id: &mezzov1.OfferID{Value: proto.String("o")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		AgentId: &mezzov1.AgentID{Value: proto.String("a")}, Hostname: proto.String(""),
	}
	event := &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{Offers: []*mezzov1.Offer{whole, small, whole}}}
	var e offerEncoder
	for range 2 {
		parts, err := e.parts(event)
		if err != nil {
			t.Fatal(err)
		}
		events := sent(t, parts)
		if len(events) != 1 {
			t.Fatalf("%d parts", len(events))
		}
		if diff := cmp.Diff(event, events[0], protocmp.Transform()); diff != "" {
			t.Errorf("a scheduler reads another event (-said +read):\n%s", diff)
		}
	}
}

// TestOffersThatCannotBeEncoded are an error, and nothing is sent of them.
func TestOffersThatCannotBeEncoded(t *testing.T) {
	bad := &mezzov1.Offer{Id: &mezzov1.OfferID{Value: proto.String("o")}, Url: &mezzov1.URL{}} // without its scheme
	var e offerEncoder
	if parts, err := e.parts(&schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{Offers: []*mezzov1.Offer{bad}}}); err == nil {
		t.Errorf("parts %v", parts)
	}
}

// TestListsAreBounded: what is remembered of lists does not grow for ever, and
// is right after it was forgotten.
func TestListsAreBounded(t *testing.T) {
	var e offerEncoder
	for i := range 2*listsLimit + 10 {
		o := &mezzov1.Offer{
			Id: &mezzov1.OfferID{Value: proto.String("o")}, FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
			AgentId: &mezzov1.AgentID{Value: proto.String("a")}, Hostname: proto.String("h"),
			Resources: resource.MustParse(fmt.Sprint("cpus:", i+1)).ToProto(),
		}
		if err := e.encode(o); err != nil {
			t.Fatal(err)
		}
		got := new(mezzov1.Offer)
		if err := proto.Unmarshal(e.offer, got); err != nil || !proto.Equal(o, got) {
			t.Fatalf("offer %d became %v: %v", i, got, err)
		}
	}
	if len(e.lists) > listsLimit {
		t.Errorf("%d lists are remembered", len(e.lists))
	}
}

func TestLargeOfferEventsGoInParts(t *testing.T) {
	event := &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{}}
	for i := range 100 {
		event.Offers.Offers = append(event.Offers.Offers, &mezzov1.Offer{
			Id: &mezzov1.OfferID{Value: proto.String(fmt.Sprint(i))}, Hostname: proto.String(strings.Repeat("h", chunk/10)),
			FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")}, AgentId: &mezzov1.AgentID{Value: proto.String("a")},
		})
	}
	var e offerEncoder
	parts, err := e.parts(event)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for i, part := range sent(t, parts) {
		if size := parts[i].size; size > chunk+eventFrame {
			t.Errorf("a part has %d bytes", size)
		}
		if part.GetType() != schedulerv1.Event_OFFERS {
			t.Errorf("a part is %s", part.GetType())
		}
		for _, offer := range part.GetOffers().GetOffers() {
			if got := offer.GetId().GetValue(); got != fmt.Sprint(next) {
				t.Fatalf("offer %s comes, want %d", got, next)
			}
			next++
		}
	}
	if next != 100 {
		t.Errorf("%d offers are in the parts", next)
	}
	small := &schedulerv1.Event{Type: schedulerv1.Event_HEARTBEAT.Enum()}
	if got, err := e.parts(small); err != nil || len(got) != 1 || got[0].event != small {
		t.Errorf("a small event became %v, %v", got, err)
	}
}
