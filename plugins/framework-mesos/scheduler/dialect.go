package scheduler

import (
	"net"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// agentPath is the process that an agent is, as offers' urls name it.
const agentPath = "/slave(1)"

// outward turns an event into the form that its framework reads.
func (a *API) outward(form convert.Form, event *schedulerv1.Event) {
	switch event.GetType() {
	case schedulerv1.Event_SUBSCRIBED:
		told := event.GetSubscribed()
		told.StreamId, told.Epoch = nil, nil // Mezzo's own; the header tells the stream
		if info := told.GetMasterInfo(); info != nil && a.options.Master != nil {
			a.options.Master(info)
			info.Capabilities = slices.DeleteFunc(info.GetCapabilities(), unreadable)
		}
	case schedulerv1.Event_OFFERS:
		for _, offer := range event.GetOffers().GetOffers() {
			a.mesosURL(offer.GetUrl())
		}
	case schedulerv1.Event_INVERSE_OFFERS:
		for _, offer := range event.GetInverseOffers().GetInverseOffers() {
			a.mesosURL(offer.GetUrl())
		}
	case schedulerv1.Event_HEARTBEAT:
		return
	}
	a.convert.Downgrade(event, form)
}

// unreadable is a capability of masters that the JSON of some schedulers' libraries
// breaks on (mesos-go: unrecognized enum value). It is of use to operators alone.
func unreadable(c *mezzov1.MasterInfo_Capability) bool {
	return c.GetType() == mezzov1.MasterInfo_Capability_QUOTA_V2 || c.GetType() == mezzov1.MasterInfo_Capability_AGENT_DRAINING
}

// mesosURL has the url of an offer name the agent's adapter. Its address always
// has an IP address: clients read it unguarded.
func (a *API) mesosURL(url *mezzov1.URL) {
	if url == nil {
		return
	}
	for _, e := range url.GetEndpoints() {
		if e.GetName() != a.options.Endpoint {
			continue
		}
		host, text, err := net.SplitHostPort(e.GetAddress())
		port, bad := strconv.ParseUint(text, 10, 16)
		if err != nil || bad != nil {
			continue
		}
		url.Address.Port = proto.Int32(int32(port))
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
			url.Address.Ip = proto.String(host)
		}
	}
	url.Endpoints = nil // Mezzo's own
	url.Path = proto.String(agentPath)
}
