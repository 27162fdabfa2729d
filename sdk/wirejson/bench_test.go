package wirejson_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

func resources(role string) (list []*mezzov1.Resource) {
	for _, name := range []string{"cpus", "mem", "disk"} {
		list = append(list, &mezzov1.Resource{
			Name: &name, Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1024.5)},
			AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: &role},
			Reservations: []*mezzov1.Resource_ReservationInfo{{
				Type: mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role, Principal: proto.String("ops"),
			}},
		})
	}
	return append(list, &mezzov1.Resource{
		Name: proto.String("ports"), Type: mezzov1.Value_RANGES.Enum(), AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: &role},
		Ranges: &mezzov1.Value_Ranges{Range: []*mezzov1.Value_Range{ranges(31000, 31500), ranges(31502, 32000)}},
	})
}

func offers(n int) *schedulerv1.Event {
	event := &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{}}
	for i := range n {
		id := fmt.Sprintf("5d0c7f3e-2a41-4b8e-9c55-0e6f1a7b2c3d-%d", i)
		event.Offers.Offers = append(event.Offers.Offers, &mezzov1.Offer{
			Id: &mezzov1.OfferID{Value: &id}, FrameworkId: &mezzov1.FrameworkID{Value: &id}, AgentId: &mezzov1.AgentID{Value: &id},
			Hostname: proto.String("agent.example"), Resources: resources("ads"),
			AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("ads")},
			Url: &mezzov1.URL{Scheme: proto.String("http"), Path: proto.String("/slave(1)"), Address: &mezzov1.Address{
				Hostname: proto.String("agent.example"), Ip: proto.String("10.0.0.1"), Port: proto.Int32(5051),
			}},
			Attributes: []*mezzov1.Attribute{{Name: proto.String("rack"), Type: mezzov1.Value_TEXT.Enum(), Text: &mezzov1.Value_Text{Value: proto.String("r1")}}},
		})
	}
	return event
}

func accept(n int) *schedulerv1.Call {
	var tasks []*mezzov1.TaskInfo
	for i := range n {
		id := fmt.Sprintf("task-%d", i)
		tasks = append(tasks, &mezzov1.TaskInfo{
			Name: proto.String("web"), TaskId: &mezzov1.TaskID{Value: &id}, AgentId: &mezzov1.AgentID{Value: &id}, Resources: resources("ads"),
			Command: &mezzov1.CommandInfo{
				Value: proto.String(`exec ./server --port "$PORT0"`),
				Environment: &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{
					{Name: proto.String("PORT0"), Value: proto.String("31000")}, {Name: proto.String("HOME"), Value: proto.String("/srv")},
				}},
				Uris: []*mezzov1.CommandInfo_URI{{Value: proto.String("https://example.org/server.tar.gz")}},
			},
			Labels: &mezzov1.Labels{Labels: []*mezzov1.Label{{Key: proto.String("team"), Value: proto.String("é")}}},
			Data:   []byte("0123456789abcdef"),
		})
	}
	return &schedulerv1.Call{
		Type: schedulerv1.Call_ACCEPT.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		Accept: &schedulerv1.Call_Accept{
			OfferIds: []*mezzov1.OfferID{{Value: proto.String("o")}}, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(5)},
			Operations: []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks}}},
		},
	}
}

// BenchmarkCodec compares with protobuf's own codec, on an event with 50 offers
// and a call that launches 10 tasks.
func BenchmarkCodec(b *testing.B) {
	encoder, decoder := wirejson.Options{Defaults: true, Infinity: true, ASCII: true}.NewEncoder(), wirejson.NewDecoder()
	for name, message := range map[string]proto.Message{"offers": offers(50), "accept": accept(10)} {
		text, err := encoder.Marshal(message)
		if err != nil {
			b.Fatal(err)
		}
		run := func(which string, do func() error) {
			b.Run(name+"/"+which, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					if err := do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		var dst []byte
		run("encode", func() error {
			dst, err = encoder.Append(dst[:0], message)
			return err
		})
		theirs := protojson.MarshalOptions{UseProtoNames: true}
		run("encode by protojson", func() error {
			dst, err = theirs.MarshalAppend(dst[:0], message)
			return err
		})
		into := message.ProtoReflect().New().Interface()
		run("decode", func() error { return decoder.Unmarshal(text, into) })
		run("decode by protojson", func() error { return protojson.Unmarshal(text, into) })
	}
}
