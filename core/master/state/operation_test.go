package state_test

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/proto"

	corelink "github.com/mezzo-os/mezzo/core/link"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/operation"
	client "github.com/mezzo-os/mezzo/sdk/framework"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// In transcripts a resource that was reserved to "ads" by an operation has a tilde
// before it, a volume made of such disk an at sign before its id, and two where
// it is shared: "~disk:100", "@data:64", "@@data:64".
var (
	reservedText = regexp.MustCompile(`([a-z]+)\{"reservations":\[\{"role":"ads","type":"DYNAMIC"\}\]\}`)
	volumeText   = regexp.MustCompile(`disk\{"disk":\{"persistence":\{"id":"(\w+)"\},"volume":\{"container_path":"\w+","mode":"RW"\}\},("shared":\{\},)?"reservations":\[\{"role":"ads","type":"DYNAMIC"\}\]\}`)
)

func shortText(text string) string {
	text = volumeText.ReplaceAllStringFunc(text, func(m string) string {
		parts := volumeText.FindStringSubmatch(m)
		if parts[2] != "" {
			return "@@" + parts[1]
		}
		return "@" + parts[1]
	})
	return reservedText.ReplaceAllString(text, "~$1")
}

// parseShort reads resources with these signs.
func parseShort(text string) resource.Resources {
	var all resource.Resources
	for part := range strings.SplitSeq(text, ";") {
		switch {
		case strings.HasPrefix(part, "~"):
			all = all.Add(resource.MustParse(part[1:]).Push(resource.Reservation{Role: "ads", Dynamic: true}))
		case strings.HasPrefix(part, "@"):
			id, size, _ := strings.Cut(strings.TrimLeft(part, "@"), ":")
			disk := resource.MustParse("disk:" + size).Push(resource.Reservation{Role: "ads", Dynamic: true}).ToProto()[0]
			volume := client.PersistentVolume(disk, id, "data", "")
			if strings.HasPrefix(part, "@@") {
				volume = client.Shared(volume)
			}
			r, err := resource.FromProto([]*mezzov1.Resource{volume})
			if err != nil {
				panic(err)
			}
			all = all.Add(r)
		default:
			all = all.Add(resource.MustParse(part))
		}
	}
	return all
}

// resourceOperation is "reserve ID ~disk:100", "grow ID @data:64 ~disk:10" and so
// on; an id of "-" is none.
func resourceOperation(verb string, a args) *mezzov1.Offer_Operation {
	id := strings.TrimPrefix(a.words[0], "-")
	list := parseShort(a.words[1]).ToProto()
	switch verb {
	case "reserve":
		return client.Reserve(id, list...)
	case "unreserve":
		return client.Unreserve(id, list...)
	case "create":
		return client.CreateVolumes(id, list...)
	case "destroy":
		return client.DestroyVolumes(id, list...)
	case "grow":
		return client.GrowVolume(id, list[0], parseShort(a.words[2]).ToProto()[0])
	case "shrink":
		return client.ShrinkVolume(id, list[0], resource.MustParse("x:"+a.words[2]).Get("x").Float())
	}
	return nil
}

// operator is an agent's side of operations: what it has, and what it was sent.
type operated struct {
	total resource.Resources
	queue []*linkv1.Operation
	taken uint64
	// resumed are how many of the queue were taken in before.
	resumed int
}

func (s *script) operated(link state.Link) *operated {
	if s.operations == nil {
		s.operations = map[state.Link]*operated{}
	}
	if s.operations[link] == nil {
		s.operations[link] = &operated{}
	}
	return s.operations[link]
}

// registers is what an agent tells of operations when it registers: with those
// that it kept under way, or without.
func (s *script) registers(link state.Link, r *linkv1.Register, a args) {
	x := s.operated(link)
	*x = operated{total: parseShort(a.get("total", "cpus:4;mem:4096;disk:1000"))}
	if a.get("operations", "") != "" {
		for _, op := range s.underWay {
			op = proto.CloneOf(op)
			op.LatestStatus = &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_PENDING.Enum()}
			r.Operations = append(r.Operations, op)
			x.queue = append(x.queue, op)
		}
		// What was under way is finished without being taken in again.
		x.resumed = len(s.underWay)
		s.underWay = nil
	}
}

// heard notes the operations that agents were sent.
func (s *script) heard(outs []state.Output) {
	for _, o := range outs {
		if send, ok := o.(state.SendAgent); ok && send.Message.GetOperation() != nil {
			x := s.operated(send.Link)
			x.queue = append(x.queue, send.Message.GetOperation())
		}
	}
}

// take has an agent take in the oldest operation, and refuse it where the line
// says why, or keep it under way.
func (s *script) take(link state.Link, a args) []state.Output {
	x := s.operated(link)
	op := x.queue[0]
	x.queue = x.queue[1:]
	resumed := x.resumed > 0
	if resumed {
		x.resumed--
	} else {
		x.taken++
	}
	status := &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_FINISHED.Enum()}
	if why := a.get("refuse", ""); why != "" {
		status.State, status.Message = mezzov1.OperationState_OPERATION_ERROR.Enum(), proto.String(why)
	} else if !resumed {
		change, err := operation.Of(op.GetInfo())
		if err != nil || !x.total.Contains(change.From) {
			s.t.Fatalf("the master sent what the agent cannot do: %v, %s of %s", err, change.From, x.total)
		}
		x.total = x.total.Minus(change.From).Add(change.To)
	}
	if op.GetOperationId() != "" {
		status.OperationId = &mezzov1.OperationID{Value: proto.String(op.GetOperationId())}
		status.Uuid = &mezzov1.UUID{Value: uuid(s.number(a.get("uuid", "1")))}
	}
	p := corelink.NewPacker()
	r := register("", "h", nil, nil)
	r.Agent.Resources = p.Pack(x.total)
	outs := s.w.step(state.LinkMessage{Link: link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{
		State: &linkv1.AgentState{Agent: r.Agent, Kinds: p.Kinds(), Operations: x.taken},
	}}})
	if a.get("pending", "") != "" {
		s.underWay = append(s.underWay, op)
		return outs
	}
	return append(outs, s.w.step(state.LinkMessage{Link: link, Message: &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Operation{
		Operation: &linkv1.OperationUpdate{FrameworkId: op.GetFrameworkId(), OperationUuid: op.GetUuid(), Status: status, LatestStatus: status},
	}}})...)
}

// actorResources are those of a random cluster's agent at first.
const actorResources = "cpus:4;mem:1000;disk:100;ports:[1-9]"

// conversion is a random operation on what is offered, which may make no sense.
func (c *cluster) conversion(o *mezzov1.Offer) *mezzov1.Offer_Operation {
	have, err := resource.FromProto(o.GetResources())
	if err != nil {
		c.rt.Fatal(err)
	}
	have = have.Unallocate()
	role, id := o.GetAllocationInfo().GetRole(), ""
	if c.pick(2, "with an id") == 0 {
		c.uuids++
		id = fmt.Sprintf("op%d", c.uuids)
	}
	reserved := resource.MustParse("disk:5;cpus:0.5").Push(resource.Reservation{Role: role, Dynamic: true})
	volumes := have.Filter(func(k resource.Kind) bool { return k.PersistenceID() != "" })
	switch c.pick(4, "operation") {
	case 0:
		plain := have.Filter(func(k resource.Kind) bool { return k.IsReserved() && k.PersistenceID() == "" })
		if !plain.IsEmpty() {
			return client.Unreserve(id, plain.ToProto()...)
		}
	case 1:
		disk := resource.MustParse("disk:2").Push(resource.Reservation{Role: role, Dynamic: true}).ToProto()[0]
		return client.CreateVolumes(id, client.PersistentVolume(disk, fmt.Sprintf("v%d", c.pick(3, "volume")), "data", ""))
	case 2:
		if !volumes.IsEmpty() {
			return client.DestroyVolumes(id, volumes.ToProto()...)
		}
	}
	return client.Reserve(id, reserved.ToProto()...)
}

// operate is how an agent takes an operation in: it carries it out, or refuses
// it, because it cannot or for no reason.
func (c *cluster) operate(a *actorAgent, op *linkv1.Operation) []state.Input {
	a.taken++
	status := &mezzov1.OperationStatus{State: mezzov1.OperationState_OPERATION_FINISHED.Enum()}
	change, err := operation.Of(op.GetInfo())
	if err != nil {
		c.rt.Fatalf("the master sent what makes no sense: %v", err)
	}
	if !a.total.Contains(change.From) || c.pick(5, "refuse") == 0 {
		status.State = mezzov1.OperationState_OPERATION_ERROR.Enum()
	} else {
		a.total = a.total.Minus(change.From).Add(change.To)
	}
	if op.GetOperationId() != "" {
		c.uuids++
		status.OperationId = &mezzov1.OperationID{Value: proto.String(op.GetOperationId())}
		status.Uuid = &mezzov1.UUID{Value: uuid(c.uuids)}
	}
	r := register(a.id, a.host, a.total, nil)
	message := func(m *linkv1.AgentMessage) state.Input { return state.LinkMessage{Link: a.link, Message: m} }
	return []state.Input{
		message(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_State{State: &linkv1.AgentState{Agent: r.Agent, Kinds: r.Kinds, Operations: a.taken}}}),
		message(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Operation{Operation: &linkv1.OperationUpdate{
			FrameworkId: op.GetFrameworkId(), OperationUuid: op.GetUuid(), Status: status, LatestStatus: status,
		}}}),
	}
}
