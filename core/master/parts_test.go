package master

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestPartsAreSmallEnough: no part of an event is larger than is said of it,
// whatever the offers have, and nothing is lost.
func TestPartsAreSmallEnough(t *testing.T) {
	ports := "ports:["
	for i := range 400 {
		ports += fmt.Sprintf("%d-%d,", 20_000+10*i, 20_005+10*i)
	}
	for name, text := range map[string]string{
		"plain": "cpus:24;mem:4096;disk:4096;ports:[31000-32000]", "many ranges": ports[:len(ports)-1] + "]",
		"set": "zones:{a,b,a-rather-long-name-of-a-zone-among-many-others}", "reserved": "cpus(a-role-with-a-rather-long-name):1;mem(b/c):10",
	} {
		event := &schedulerv1.Event{Type: schedulerv1.Event_OFFERS.Enum(), Offers: &schedulerv1.Event_Offers{}}
		for i := range 3000 {
			event.Offers.Offers = append(event.Offers.Offers, &mezzov1.Offer{
				Id:          &mezzov1.OfferID{Value: proto.String(fmt.Sprint("a-master-with-an-id-as-long-as-they-are-O", i))},
				FrameworkId: &mezzov1.FrameworkID{Value: proto.String("a-master-with-an-id-as-long-as-they-are-0001")},
				AgentId:     &mezzov1.AgentID{Value: proto.String("a-master-with-an-id-as-long-as-they-are-S0001")},
				Hostname:    proto.String("host.example.org"), Url: &mezzov1.URL{Scheme: proto.String("http"),
					Address: &mezzov1.Address{Hostname: proto.String("host.example.org"), Port: proto.Int32(5051)}},
				AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("*")},
				Resources:      resource.MustParse(text).Allocate("*").ToProto(),
				Attributes:     []*mezzov1.Attribute{{Name: proto.String("rack"), Type: mezzov1.Value_TEXT.Enum(), Text: &mezzov1.Value_Text{Value: proto.String("r1")}}},
				ExecutorIds:    []*mezzov1.ExecutorID{{Value: proto.String("an-executor")}},
			})
		}
		count := 0
		for _, p := range parts(event) {
			if size := proto.Size(p.event); size > p.size || p.size > chunk || 2*p.size > 3*size {
				t.Errorf("%s: a part of %d bytes is said to have %d, of at most %d", name, size, p.size, chunk)
			}
			count += len(p.event.GetOffers().GetOffers())
		}
		if count != 3000 {
			t.Errorf("%s: %d of 3000 offers are in the parts", name, count)
		}
	}
}
