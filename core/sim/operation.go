package sim

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/operation"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// deedKey names an operation: by the id that its framework gave it, or an
// operator, whose framework is empty, or by the master's name for one without.
type deedKey struct{ framework, id string }

// deed is the truth about an operation, which nobody in the world knows whole,
// and what its scheduler has noted of it.
type deed struct {
	key   deedKey
	agent string
	what  string
	uuid  string // the master's name for it, once an agent has heard it
	// applied is how often an agent has carried it out, durably.
	applied int
	// never: somebody was told that it was not carried out, and never will be.
	never string
	// abandoned: its framework is gone.
	abandoned bool

	final *mezzov1.OperationStatus // of the agent, to be acknowledged
	// gone: the master said that its agent will not come back.
	gone bool
	// believed is what the master said of it last, by itself.
	believed mezzov1.OperationState
}

func (d *deed) subjects() []string { return []string{d.key.id, d.key.framework, d.agent} }

// over is whether the scheduler holds the operation to have ended for good.
func (d *deed) over() bool { return d.final != nil || d.never != "" || d.gone }

func (w *world) addDeed(key deedKey, agent string, op *mezzov1.Offer_Operation, c operation.Change) *deed {
	d := &deed{key: key, agent: agent, what: fmt.Sprintf("%s of %s to %s", op.GetType(), c.From, c.To)}
	w.deeds[key] = d
	w.deedOrder = append(w.deedOrder, key)
	w.report.Operations++
	return d
}

// deedOf is the operation that a master sends. One without an id is known by the
// master's name for it alone.
func (w *world) deedOf(h *host, o *linkv1.Operation) *deed {
	uuid := hex.EncodeToString(o.GetUuid())
	key := deedKey{o.GetFrameworkId(), o.GetInfo().GetId().GetValue()}
	if key.id == "" {
		key.id = uuid
	}
	d := w.deeds[key]
	switch {
	case d == nil && key.id != uuid:
		w.fail([]string{h.name, key.id}, "%s is sent the operation %s, which nobody has asked for", h.name, key.id)
		return &deed{key: key}
	case d == nil:
		c, _ := operation.Of(o.GetInfo())
		d = w.addDeed(key, h.m.View().AgentID, o.GetInfo(), c)
	case d.uuid != "" && d.uuid != uuid:
		w.fail(append(d.subjects(), h.name), "the operation %s is sent as %s, and was sent as %s before", key.id, short(uuid), short(d.uuid))
	}
	d.uuid = uuid
	return d
}

// done notes that a host has carried an operation out, and that it is on its disk.
func (d *deed) done(h *host) {
	w := h.w
	d.applied++
	w.report.Applied++
	w.note(append(d.subjects(), h.name), "%s: operation %s is carried out: %s", h.name, d.key.id, d.what)
	switch {
	case d.applied > 1:
		w.fail(append(d.subjects(), h.name), "the operation %s is carried out again on %s: %s", d.key.id, h.name, d.what)
	case d.never != "":
		w.fail(append(d.subjects(), h.name), "the operation %s is carried out on %s, and somebody was told that it is not: %s", d.key.id, h.name, d.never)
	}
}

// refuse notes that somebody was told that an operation is not carried out.
func (w *world) refuse(d *deed, why string) {
	d.never = why
	if d.applied > 0 {
		w.fail(d.subjects(), "the operation %s was carried out, and somebody is told that it was not: %s", d.key.id, why)
	}
}

// randomOperation changes some of a pool for a role, with an id or without; nil:
// nothing comes to mind. refined and shared are what whoever asks can handle.
func (w *world) randomOperation(id, role string, pool resource.Resources, refined, shared bool) *mezzov1.Offer_Operation {
	own := pool.Filter(func(k resource.Kind) bool { return k.IsReserved() && k.Role() == role })
	volumes := own.Filter(func(k resource.Kind) bool { return k.PersistenceID() != "" })
	plain := own.Filter(func(k resource.Kind) bool { return k.PersistenceID() == "" })
	disk := plain.Filter(func(k resource.Kind) bool { return k.Name() == "disk" })
	op := &mezzov1.Offer_Operation{}
	if id != "" {
		op.Id = &mezzov1.OperationID{Value: proto.String(id)}
	}
	switch n := w.pick(16); {
	case n < 5 && role != resource.Unreserved:
		from := pool.Unreserved()
		if w.chance(0.6) {
			from = from.Filter(func(k resource.Kind) bool { return k.Name() == "disk" })
		}
		if refined && w.chance(0.4) {
			from = pool.Filter(func(k resource.Kind) bool {
				return k.IsReserved() && resource.IsAncestor(k.Role(), role) && k.PersistenceID() == ""
			})
		}
		to := w.part(from, false).Push(resource.Reservation{Role: role, Dynamic: true, Labels: w.someLabels()})
		op.Type = mezzov1.Offer_Operation_RESERVE.Enum()
		op.Reserve = &mezzov1.Offer_Operation_Reserve{Resources: to.ToProto()}
		return unlessEmpty(op, to)
	case n < 7:
		from := w.part(plain, true)
		op.Type = mezzov1.Offer_Operation_UNRESERVE.Enum()
		op.Unreserve = &mezzov1.Offer_Operation_Unreserve{Resources: from.ToProto()}
		return unlessEmpty(op, from)
	case n < 12:
		volume := w.volumeOf(role, w.part(disk, false), shared)
		op.Type = mezzov1.Offer_Operation_CREATE.Enum()
		op.Create = &mezzov1.Offer_Operation_Create{Volumes: volume.ToProto()}
		return unlessEmpty(op, volume)
	case n < 14:
		volume := w.part(volumes, true)
		op.Type = mezzov1.Offer_Operation_DESTROY.Enum()
		op.Destroy = &mezzov1.Offer_Operation_Destroy{Volumes: volume.ToProto()}
		return unlessEmpty(op, volume)
	}
	return w.randomResize(op, volumes.NonShared(), disk)
}

// randomResize has a volume grow or shrink.
func (w *world) randomResize(op *mezzov1.Offer_Operation, volumes, disk resource.Resources) *mezzov1.Offer_Operation {
	volume := w.part(volumes, true)
	if volume.IsEmpty() {
		return nil
	}
	if w.chance(0.5) {
		op.Type = mezzov1.Offer_Operation_SHRINK_VOLUME.Enum()
		op.ShrinkVolume = &mezzov1.Offer_Operation_ShrinkVolume{
			Volume: volume.ToProto()[0], Subtract: &mezzov1.Value_Scalar{Value: proto.Float64(volume[0].Scalar.Float() / 2)},
		}
		return op
	}
	like := operation.Plain(volume)[0].Kind
	addition := w.part(disk.Filter(func(k resource.Kind) bool { return k == like }), false)
	if addition.IsEmpty() {
		return nil
	}
	op.Type = mezzov1.Offer_Operation_GROW_VOLUME.Enum()
	op.GrowVolume = &mezzov1.Offer_Operation_GrowVolume{Volume: volume.ToProto()[0], Addition: addition.ToProto()[0]}
	return op
}

func unlessEmpty(op *mezzov1.Offer_Operation, r resource.Resources) *mezzov1.Offer_Operation {
	if r.IsEmpty() {
		return nil
	}
	return op
}

// mostOf is how much of a scalar one operation takes, at most.
var mostOf = map[string]resource.Scalar{"cpus": resource.Unit, "mem": 512 * resource.Unit, "disk": 1000 * resource.Unit}

// part is some of one of the resources; all of that, if whole is and chance
// wants it. Now and then it is more than there is.
func (w *world) part(r resource.Resources, whole bool) resource.Resources {
	if len(r) == 0 {
		return nil
	}
	one := r[w.pick(len(r))]
	switch {
	case one.Kind.Atomic():
		one.Count = 1
	case one.Kind.Type() == resource.TypeRanges:
		first := one.Ranges[0]
		one.Ranges = resource.NewRanges(resource.Range{Begin: first.Begin, End: min(first.End, first.Begin+uint64(w.pick(3)))})
	case !whole || w.chance(0.3):
		some := mostOf[one.Kind.Name()] * resource.Scalar(1+w.pick(10)) / 10
		if some < one.Scalar || !w.healed && w.chance(0.05) {
			one.Scalar = some
		}
	}
	return resource.Of(one)
}

// someLabels make one reservation another than the next, now and then.
func (w *world) someLabels() *mezzov1.Labels {
	if !w.chance(0.1) {
		return nil
	}
	return &mezzov1.Labels{Labels: []*mezzov1.Label{{Key: proto.String("purpose"), Value: proto.String("tests")}}}
}

// volumeOf makes a volume of reserved disk. There are few names, so that a name
// is used again.
func (w *world) volumeOf(role string, disk resource.Resources, shared bool) resource.Resources {
	shared = shared && w.chance(0.3)
	id := fmt.Sprintf("v%d", w.pick(4))
	path := "data-" + strings.ReplaceAll(role, "/", "-") + "-" + id
	out := resource.Resources(nil)
	for i := range disk {
		one := disk[i]
		one.Count = 1
		one.Kind = one.Kind.WithDisk(&mezzov1.Resource_DiskInfo{
			Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String(id)},
			Volume:      &mezzov1.Volume{ContainerPath: proto.String(path), Mode: mezzov1.Volume_RW.Enum()},
		}).WithShared(shared)
		out = out.Add(resource.Of(one))
	}
	return out
}

// can is whether the framework has a capability.
func (s *scheduler) can(c mezzov1.FrameworkInfo_Capability_Type) bool {
	return slices.ContainsFunc(s.info.GetCapabilities(), func(x *mezzov1.FrameworkInfo_Capability) bool { return x.GetType() == c })
}

// convert makes operations on what is offered, and returns what they leave.
func (s *scheduler) convert(o *mezzov1.Offer, pool resource.Resources) ([]*mezzov1.Offer_Operation, resource.Resources) {
	w, role := s.w, o.GetAllocationInfo().GetRole()
	var list []*mezzov1.Offer_Operation
	for n := 2 + w.pick(4); n > 0; n-- {
		id := ""
		if w.chance(0.8) {
			id = fmt.Sprintf("%s-%d-o%d", s.name, s.serial, s.conversions+1)
		}
		op := w.randomOperation(id, role, pool, s.can(mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT), s.can(mezzov1.FrameworkInfo_Capability_SHARED_RESOURCES))
		if op == nil {
			continue
		}
		change, err := operation.Of(op)
		if err != nil {
			continue // more of a volume is to go than there is
		}
		if pool.Contains(change.From) {
			pool = pool.Minus(change.From).Add(change.To)
		}
		list = append(list, op)
		if id == "" {
			continue // nobody will tell of it
		}
		s.conversions++
		d := w.addDeed(deedKey{s.id, id}, o.GetAgentId().GetValue(), op, change)
		s.deeds = append(s.deeds, d)
		w.note(append(d.subjects(), s.name), "%s asks for %s: %s", s.name, id, d.what)
	}
	return list, pool
}

// operationTold is what came of an operation.
func (s *scheduler) operationTold(st *mezzov1.OperationStatus) {
	w := s.w
	d := w.deeds[deedKey{s.id, st.GetOperationId().GetValue()}]
	if d == nil {
		w.fail([]string{s.name, s.id}, "%s is told of the operation %q, for which it never asked", s.name, st.GetOperationId().GetValue())
		return
	}
	subjects := append(d.subjects(), s.name)
	w.note(subjects, "%s <- %s", s.name, describeOperation(st))
	if len(st.GetUuid().GetValue()) == 0 {
		s.operationAnswered(d, st, subjects)
		return
	}
	switch state := st.GetState(); {
	case d.final != nil && (d.final.GetState() != state || !slices.Equal(d.final.GetUuid().GetValue(), st.GetUuid().GetValue())):
		w.fail(subjects, "the operation %s ended as %s, and then comes %s", d.key.id, describeOperation(d.final), describeOperation(st))
	case d.final != nil: // again
	case d.gone:
		w.fail(subjects, "the operation %s is gone with its agent, and then comes %s", d.key.id, describeOperation(st))
	case state == mezzov1.OperationState_OPERATION_FINISHED:
		if d.final = st; d.applied == 0 {
			w.fail(subjects, "the operation %s is said to have finished, and no agent has carried it out, or noted that it has: %s", d.key.id, d.what)
		}
	case state == mezzov1.OperationState_OPERATION_ERROR || state == mezzov1.OperationState_OPERATION_DROPPED:
		d.final = st
		w.refuse(d, describeOperation(st))
	default:
		w.fail(subjects, "the operation %s: an agent says %s", d.key.id, describeOperation(st))
	}
	s.acknowledgeOperation(st)
}

// operationAnswered is a status that nobody waits for: a refusal, a loss, an
// answer.
func (s *scheduler) operationAnswered(d *deed, st *mezzov1.OperationStatus, subjects []string) {
	w := s.w
	leads := s.cur.master == w.leader
	switch st.GetState() {
	case mezzov1.OperationState_OPERATION_FINISHED:
		if d.applied == 0 {
			w.fail(subjects, "the operation %s is said to have finished, and no agent has carried it out", d.key.id)
		}
	case mezzov1.OperationState_OPERATION_ERROR, mezzov1.OperationState_OPERATION_DROPPED:
		w.refuse(d, describeOperation(st))
	case mezzov1.OperationState_OPERATION_GONE_BY_OPERATOR:
		d.gone = true
	case mezzov1.OperationState_OPERATION_UNKNOWN:
		a := w.leader.views.agents[d.agent]
		if leads && !d.over() && a != nil && a.State == state.AgentActive {
			w.refuse(d, "the agent is there, and "+s.cur.master.name+" knows of no such operation")
		}
	}
	if leads {
		d.believed = st.GetState()
	}
}

func (s *scheduler) acknowledgeOperation(st *mezzov1.OperationStatus) {
	w := s.w
	if !w.healed && w.chance(s.traits.forgets) {
		return // the agent will tell it again
	}
	stream := s.cur
	w.after(w.between(0, s.traits.thinks), func() {
		if s.cur != stream {
			return
		}
		s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE_OPERATION_STATUS.Enum(), AcknowledgeOperationStatus: &schedulerv1.Call_AcknowledgeOperationStatus{
			AgentId: st.GetAgentId(), Uuid: st.GetUuid().GetValue(), OperationId: st.GetOperationId(),
		}})
	})
}

// reconcileOperations asks what became of operations: each by name, or all.
func (s *scheduler) reconcileOperations(explicit bool) {
	ask := &schedulerv1.Call_ReconcileOperations{}
	for _, d := range s.deeds {
		if explicit && !d.over() {
			ask.Operations = append(ask.Operations, &schedulerv1.Call_ReconcileOperations_Operation{
				OperationId: &mezzov1.OperationID{Value: proto.String(d.key.id)}, AgentId: &mezzov1.AgentID{Value: proto.String(d.agent)},
			})
		}
	}
	if explicit && len(ask.Operations) == 0 {
		return
	}
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE_OPERATIONS.Enum(), ReconcileOperations: ask})
}

// convert has an operator change what resources of an agent are.
func (m *master) convert() {
	w := m.w
	agents := sorted(m.views.agents)
	if len(agents) == 0 {
		return
	}
	a := m.views.agents[agents[w.pick(len(agents))]]
	role := roleNames[1+w.pick(len(roleNames)-1)]
	id := fmt.Sprintf("operator-%d", w.requests)
	op := w.randomOperation(id, role, a.Total, true, true)
	if op == nil {
		return
	}
	change, err := operation.Of(op)
	if err != nil {
		return
	}
	d := w.addDeed(deedKey{"", id}, a.ID, op, change)
	w.note(append(d.subjects(), m.name), "an operator asks for %s: %s", id, d.what)
	m.order(func(err error) {
		var refused *state.OrderError
		switch {
		case err == nil && d.applied == 0:
			w.fail(append(d.subjects(), m.name), "an operator is told that %s is done, and no agent has done it: %s", id, d.what)
		case err == nil:
		case !errors.As(err, &refused):
			w.fail(append(d.subjects(), m.name), "an operator's operation %s fails: %v", id, err)
		case refused.Code != state.OrderLost:
			w.refuse(d, err.Error())
		}
	}, func(request state.Request) state.Input {
		return state.ApplyOperation{Request: request, AgentID: a.ID, Operation: op}
	})
}

// checkReserved: what is reserved to a role is offered to that role, and to those
// below it, alone.
func (m *master) checkReserved(offers []*state.OfferView) {
	for _, o := range offers {
		for i := range o.Resources {
			if k := o.Resources[i].Kind; k.IsReserved() && !resource.IsAncestorOrSelf(k.Role(), o.Role) {
				m.w.fail([]string{m.name, o.AgentID, o.ID}, "%s offers %s to role %s", m.name, o.Resources[i:i+1], o.Role)
			}
		}
	}
}

// checkDeeds: the cluster is healed and at rest. What operations have made is what
// everybody believes, and of each that has an id its framework knows what came of
// it.
func (w *world) checkDeeds(remembered map[string]bool) {
	for _, h := range w.hosts {
		h.checkMade("in the end")
		v := h.m.View()
		if a := w.leader.views.agents[v.AgentID]; a != nil && !a.Total.Equal(h.made) {
			w.fail([]string{h.name, v.AgentID, w.leader.name}, "%s has %s, and %s believes that it has %s", h.name, h.made, w.leader.name, a.Total)
		} else if a != nil && w.leader.lacks(a) {
			w.fail([]string{h.name, v.AgentID, w.leader.name}, "%s has %s, and %s believes that %s of it are used", h.name, h.made, w.leader.name, a.Used)
		}
	}
	for _, key := range w.deedOrder {
		d := w.deeds[key]
		switch {
		case d.abandoned || d.over() || key.framework == "" || d.key.id == d.uuid || !remembered[d.agent]:
		case d.applied > 0:
			w.fail(d.subjects(), "the operation %s was carried out, and its scheduler was never told: %s", key.id, d.what)
		case d.believed != mezzov1.OperationState_OPERATION_UNKNOWN:
			w.fail(d.subjects(), "the operation %s was never carried out, and its scheduler was told that it is %s", key.id, d.believed)
		}
	}
}
