package scheduler

import (
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
		told.StreamId = nil // Mezzo's own; the header tells it
		if info := told.GetMasterInfo(); info != nil && a.options.Master != nil {
			a.options.Master(info)
		}
	case schedulerv1.Event_OFFERS:
		for _, offer := range event.GetOffers().GetOffers() {
			offer.Url = a.url(offer.GetUrl(), offer.GetAgentId())
		}
	case schedulerv1.Event_INVERSE_OFFERS:
		for _, offer := range event.GetInverseOffers().GetInverseOffers() {
			offer.Url = a.url(offer.GetUrl(), offer.GetAgentId())
		}
	case schedulerv1.Event_HEARTBEAT:
		return
	}
	a.convert.Downgrade(event, form)
}

// url is where an offer's agent answers. Clients read its address unguarded.
func (a *API) url(told *mezzov1.URL, agent *mezzov1.AgentID) *mezzov1.URL {
	if a.options.AgentURL != nil {
		if url := a.options.AgentURL(agent.GetValue()); url != nil {
			return url
		}
	}
	if told != nil && told.Path == nil {
		told.Path = proto.String(agentPath)
	}
	return told
}
