package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Offers are most of what a master says, so they are written by hand, as they
// go over the wire. What an offer says of its agent is the same in all its
// offers, and most offers have the same list of resources as another: both are
// encoded once, and an offer is a few copies.

const (
	// offersSize is the size above which offers go in several events: a large
	// message would hold up others of its connection.
	offersSize = 256 << 10
	// formsLimit bounds what is remembered of offers' resources.
	formsLimit = 4096
)

// The numbers of the fields that are written by hand.
const (
	eventOffers, offersOffer = 3, 1

	offerID, offerFramework, offerAgent, offerHostname, offerResources = 1, 2, 3, 4, 5
	offerExecutors, offerAttributes, offerURL, offerUnavailability     = 6, 7, 8, 9
	offerAllocation, offerDomain                                       = 10, 11

	idValue = 1
)

// offeredForm names a list of resources in a role. The list is known by where
// it lies: it is never changed, and kept from being used again by the map that
// has it as a key.
type offeredForm struct {
	first  *resource.Resource
	length int
	role   string
}

// offerWriter writes events of offers. What it gives out is never changed.
type offerWriter struct {
	forms map[offeredForm][]byte
	list  []byte // memory for the offers of an event
	rest  []byte // memory for what is seldom in an offer
}

// write returns the offers as events (their fields of offers), in order. Those whose agent cannot be
// encoded are left out, and named by the error.
func (w *offerWriter) write(offers []*offer) (events [][]byte, err error) {
	list := w.list[:0]
	for _, o := range offers {
		if o.over {
			continue
		}
		begin := len(list)
		next, failed := w.append(list, o)
		if failed != nil {
			err = fmt.Errorf("offer %s: %w", o.id, failed)
			continue
		}
		if list = next; begin > 0 && len(list) > offersSize {
			events = append(events, offersEvent(list[:begin]))
			list = append(list[:0], list[begin:]...)
		}
		o.sent = true
	}
	if len(list) > 0 {
		events = append(events, offersEvent(list))
	}
	if w.list = list[:0]; cap(w.list) > 2*offersSize {
		w.list = nil
	}
	return events, err
}

// offersEvent is the field of offers of an event that has a copy of these.
func offersEvent(list []byte) []byte {
	out := make([]byte, 0, protowire.SizeTag(eventOffers)+protowire.SizeBytes(len(list)))
	out = protowire.AppendTag(out, eventOffers, protowire.BytesType)
	return protowire.AppendBytes(out, list)
}

// append writes one offer as an entry of a list of offers. On an error the list
// is as it was.
func (w *offerWriter) append(list []byte, o *offer) ([]byte, error) {
	a, f := o.agent, o.framework
	if a.text == nil {
		_, err := a.encode()
		return list, err
	}
	resources, err := w.resources(o)
	if err != nil {
		return list, err
	}
	if w.rest, err = o.encodeRest(w.rest[:0]); err != nil {
		return list, err
	}
	size := len(a.text) + len(resources) + len(w.rest) + sizeID(offerID, o.id) + sizeID(offerFramework, f.id)
	list = protowire.AppendTag(list, offersOffer, protowire.BytesType)
	list = protowire.AppendVarint(list, uint64(size))
	list = appendID(list, offerID, o.id)
	list = appendID(list, offerFramework, f.id)
	list = append(list, a.text...)
	list = append(list, resources...)
	return append(list, w.rest...), nil
}

// encode is what an offer says of its agent, but for what changes with time.
func (a *agent) encode() ([]byte, error) {
	out := appendID(nil, offerAgent, a.id)
	out = protowire.AppendTag(out, offerHostname, protowire.BytesType)
	out = protowire.AppendString(out, a.hostname)
	for _, attribute := range a.info.GetAttributes() {
		var err error
		if out, err = appendMessage(out, offerAttributes, attribute); err != nil {
			return nil, fmt.Errorf("an attribute of agent %s: %w", a.id, err)
		}
	}
	if a.url != nil {
		var err error
		if out, err = appendMessage(out, offerURL, a.url); err != nil {
			return nil, fmt.Errorf("the URL of agent %s: %w", a.id, err)
		}
	}
	if domain := a.info.GetDomain(); domain != nil {
		var err error
		if out, err = appendMessage(out, offerDomain, domain); err != nil {
			return nil, fmt.Errorf("the domain of agent %s: %w", a.id, err)
		}
	}
	return slices.Clip(out), nil
}

// resources is what an offer has, with the role that it is for.
func (w *offerWriter) resources(o *offer) ([]byte, error) {
	key := offeredForm{nil, len(o.resources), o.role}
	if len(o.resources) > 0 {
		key.first = &o.resources[0]
	}
	if form, known := w.forms[key]; known {
		return form, nil
	}
	var form []byte
	for _, r := range o.resources.Allocate(o.role).ToProto() {
		var err error
		if form, err = appendMessage(form, offerResources, r); err != nil {
			return nil, err
		}
	}
	form, err := appendMessage(form, offerAllocation, &mezzov1.Resource_AllocationInfo{Role: proto.String(o.role)})
	if err != nil {
		return nil, err
	}
	if w.forms == nil || len(w.forms) >= formsLimit {
		w.forms = map[offeredForm][]byte{}
	}
	w.forms[key] = slices.Clip(form)
	return form, nil
}

// encodeRest is what few offers say: of executors that run on the agent, and of
// a planned unavailability.
func (o *offer) encodeRest(out []byte) ([]byte, error) {
	if len(o.agent.executors) > 0 {
		for _, id := range o.agent.executorIDs(o.framework) {
			out = appendID(out, offerExecutors, id)
		}
	}
	if window := unavailabilityProto(o.agent.unavailability()); window != nil {
		return appendMessage(out, offerUnavailability, window)
	}
	return out, nil
}

// executorIDs returns the ids of a framework's executors on the agent, sorted.
func (a *agent) executorIDs(f *framework) []string {
	var ids []string
	for key := range a.executors {
		if key.framework == f.id {
			ids = append(ids, key.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// appendID writes a message of which the one field is a text.
func appendID(out []byte, number protowire.Number, value string) []byte {
	out = protowire.AppendTag(out, number, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(protowire.SizeTag(idValue)+protowire.SizeBytes(len(value))))
	out = protowire.AppendTag(out, idValue, protowire.BytesType)
	return protowire.AppendString(out, value)
}

func sizeID(number protowire.Number, value string) int {
	return protowire.SizeTag(number) + protowire.SizeBytes(protowire.SizeTag(idValue)+protowire.SizeBytes(len(value)))
}

func appendMessage(out []byte, number protowire.Number, m proto.Message) ([]byte, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	out = protowire.AppendTag(out, number, protowire.BytesType)
	return protowire.AppendBytes(out, data), nil
}
