package master

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// offerEncoder writes events of offers as they go over the wire. Most of an
// offer is its resources, and most offers have the same list, which is encoded
// once; so an offer costs a tenth of what encoding the message as a whole does.
// It is for one goroutine at a time.
type offerEncoder struct {
	lists map[listKey][]byte
	list  []byte // memory for some offers
	offer []byte // memory for one
	field []byte // memory for a part of one
	err   error
}

// listKey is the identity of a list of resources, which is never changed.
type listKey struct {
	first  *mezzov1.Resource
	length int
}

const (
	// listsLimit bounds what is remembered of lists.
	listsLimit = 4096
	// eventFrame is about what an event takes beside its contents.
	eventFrame = 8
)

// The numbers of the fields that are written by hand.
const (
	eventOffers, offersOffer = 3, 1

	offerID, offerFramework, offerAgent, offerHostname, offerResources = 1, 2, 3, 4, 5
	offerExecutors, offerAttributes, offerURL, offerUnavailability     = 6, 7, 8, 9
	offerAllocation, offerDomain                                       = 10, 11

	idValue = 1
)

// part is an event, or one of the events that a large one became.
type part struct {
	event *schedulerv1.Event
	size  int // in bytes, about
}

// parts makes an event ready to be sent: one of offers is encoded, and cut into
// several of fewer if it is large. What is encoded is in the message as fields
// of which nothing is known, so that it is sent as any other.
func (e *offerEncoder) parts(event *schedulerv1.Event) ([]part, error) {
	offers := event.GetOffers().GetOffers()
	if len(offers) == 0 {
		return []part{{event, proto.Size(event)}}, nil
	}
	var out []part
	list := e.list[:0]
	flush := func() {
		data := make([]byte, 0, len(list)+eventFrame)
		data = protowire.AppendTag(data, eventOffers, protowire.BytesType)
		data = protowire.AppendBytes(data, list)
		encoded := &schedulerv1.Event{Type: event.Type}
		encoded.ProtoReflect().SetUnknown(data)
		out = append(out, part{encoded, len(data) + eventFrame})
		list = list[:0]
	}
	for _, o := range offers {
		if err := e.encode(o); err != nil {
			return nil, err
		}
		if len(list) > 0 && len(list)+len(e.offer)+2*eventFrame > chunk {
			flush()
		}
		list = protowire.AppendTag(list, offersOffer, protowire.BytesType)
		list = protowire.AppendBytes(list, e.offer)
	}
	flush()
	e.list = list
	return out, nil
}

// encode leaves the encoded offer in e.offer.
func (e *offerEncoder) encode(o *mezzov1.Offer) error {
	e.offer, e.err = e.offer[:0], nil
	e.id(offerID, o.GetId().GetValue())
	e.id(offerFramework, o.GetFrameworkId().GetValue())
	e.id(offerAgent, o.GetAgentId().GetValue())
	e.offer = protowire.AppendTag(e.offer, offerHostname, protowire.BytesType)
	e.offer = protowire.AppendString(e.offer, o.GetHostname())
	e.resources(o.GetResources())
	for _, id := range o.GetExecutorIds() {
		e.id(offerExecutors, id.GetValue())
	}
	for _, a := range o.GetAttributes() {
		e.message(offerAttributes, a)
	}
	if o.GetUrl() != nil {
		e.message(offerURL, o.GetUrl())
	}
	if o.GetUnavailability() != nil {
		e.message(offerUnavailability, o.GetUnavailability())
	}
	if a := o.GetAllocationInfo(); a != nil {
		e.id(offerAllocation, a.GetRole())
	}
	if o.GetDomain() != nil {
		e.message(offerDomain, o.GetDomain())
	}
	return e.err
}

// id writes a message of which the one field is a text.
func (e *offerEncoder) id(number protowire.Number, value string) {
	e.offer = protowire.AppendTag(e.offer, number, protowire.BytesType)
	e.offer = protowire.AppendVarint(e.offer, uint64(protowire.SizeTag(idValue)+protowire.SizeBytes(len(value))))
	e.offer = protowire.AppendTag(e.offer, idValue, protowire.BytesType)
	e.offer = protowire.AppendString(e.offer, value)
}

func (e *offerEncoder) message(number protowire.Number, m proto.Message) {
	var err error
	if e.field, err = (proto.MarshalOptions{}).MarshalAppend(e.field[:0], m); err != nil {
		e.err = err
		return
	}
	e.offer = protowire.AppendTag(e.offer, number, protowire.BytesType)
	e.offer = protowire.AppendBytes(e.offer, e.field)
}

func (e *offerEncoder) resources(list []*mezzov1.Resource) {
	if len(list) == 0 {
		return
	}
	key := listKey{list[0], len(list)}
	encoded, known := e.lists[key]
	if !known {
		begin := len(e.offer)
		for _, r := range list {
			e.message(offerResources, r)
		}
		if e.lists == nil || len(e.lists) >= listsLimit {
			e.lists = map[listKey][]byte{}
		}
		e.lists[key] = append([]byte(nil), e.offer[begin:]...)
		return
	}
	e.offer = append(e.offer, encoded...)
}
