package sim

import (
	"slices"

	agentstate "github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/operation"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// taken is an operation that an agent has carried out, and that may not be on its
// disk yet.
type taken struct {
	deed   *deed
	change operation.Change
	// sequence is that of the checkpoint with which it is; 0: none was asked for.
	sequence uint64
}

// volume is the directory of a persistent volume. Another of the same name is
// another one.
type volume struct {
	place agentstate.VolumePlace
}

// has is what an agent believes that it has.
func (h *host) has() resource.Resources {
	list, err := resource.FromProto(h.m.View().Resources)
	if err != nil {
		h.w.fail([]string{h.name}, "%s: the agent's resources cannot be read: %v", h.name, err)
	}
	return list
}

// takeIn gives the agent an operation, and looks at what it makes of it: what the
// operation says, or nothing.
func (h *host) takeIn(session uint64, msg *linkv1.MasterMessage) {
	w, before := h.w, h.has()
	t := &taken{deed: w.deedOf(h, msg.GetOperation())}
	var err error
	if t.change, err = operation.Of(msg.GetOperation().GetInfo()); err != nil {
		w.fail(append(t.deed.subjects(), h.name), "%s is sent an operation that cannot be: %v", h.name, err)
	}
	h.taken = append(h.taken, t)
	h.step(agentstate.LinkMessage{Session: session, Message: msg})
	if !h.alive() || w.failure != nil {
		return // see crash
	}
	switch after := h.has(); {
	case after.Equal(before):
		h.taken = slices.DeleteFunc(h.taken, func(x *taken) bool { return x == t })
	case !after.Equal(before.Minus(t.change.From).Add(t.change.To)):
		w.fail(append(t.deed.subjects(), h.name), "%s: %s makes of %s %s", h.name, t.deed.what, before, after)
	}
}

// asked notes which checkpoint makes what was taken in durable.
func (h *host) asked(sequence uint64) {
	for _, t := range h.taken {
		if t.sequence == 0 {
			t.sequence = sequence
		}
	}
}

// wrote notes that a checkpoint is durable, and with it what was taken in before.
func (h *host) wrote(sequence uint64) {
	h.taken = slices.DeleteFunc(h.taken, func(t *taken) bool {
		if t.sequence == 0 || t.sequence > sequence {
			return false
		}
		h.made = h.made.Minus(t.change.From).Add(t.change.To)
		t.deed.done(h)
		return true
	})
}

// checkMade: an agent has what operations have made of its resources, and nothing
// else ever changes them.
func (h *host) checkMade(when string) {
	if !h.alive() || h.w.failure != nil {
		return
	}
	want := h.made
	for _, t := range h.taken {
		want = want.Minus(t.change.From).Add(t.change.To)
	}
	if got := h.has(); !got.Equal(want) {
		h.w.fail(h.itself(), "%s has %s %s; operations have made it %s", h.name, got, when, want)
	}
}

// carryOutVolume does what concerns the directories of volumes. What is asked for
// of one is done in that order, also what its containers wait for.
func (h *host) carryOutVolume(output agentstate.Output) bool {
	switch out := output.(type) {
	case agentstate.MakeVolume:
		h.submit(&op{container: out.Place.String(), run: func() agentstate.Input {
			if h.volumes[out.Place] == nil {
				h.volumes[out.Place] = &volume{out.Place}
			}
			return agentstate.VolumeDone{Chore: out.Chore}
		}})
	case agentstate.RemoveVolume:
		h.submit(&op{container: out.Place.String(), run: func() agentstate.Input {
			h.removeVolume(out)
			return agentstate.VolumeDone{Chore: out.Chore}
		}})
	case agentstate.ForgetVolume:
		delete(h.removed, out.Chore)
	default:
		return false
	}
	return true
}

// removeVolume removes a volume with all that is in it, unless that was done by
// this chore before.
func (h *host) removeVolume(out agentstate.RemoveVolume) {
	v := h.volumes[out.Place]
	if v == nil || h.removed[out.Chore] {
		h.removed[out.Chore] = true
		return
	}
	for _, c := range h.running() {
		if slices.Contains(c.volumes, v) {
			h.w.fail([]string{h.name, c.task.id}, "%s: %s is destroyed while task %s runs with it", h.name, v.place, c.task.id)
		}
	}
	h.w.note([]string{h.name}, "%s: %s is removed", h.name, v.place)
	delete(h.volumes, out.Place)
	h.removed[out.Chore] = true
}

// volumesBusy is whether something is to be done to one of the volumes before a
// container can have them.
func (h *host) volumesBusy(list []agentstate.Volume) bool {
	return slices.ContainsFunc(h.ops, func(o *op) bool {
		return slices.ContainsFunc(list, func(v agentstate.Volume) bool { return v.VolumePlace.String() == o.container })
	})
}

// onceVolumes is what an operation on a container does as soon as its volumes are
// ready.
func (h *host) onceVolumes(o *op, list []agentstate.Volume, run func() agentstate.Input) func() agentstate.Input {
	return func() agentstate.Input {
		if h.volumesBusy(list) {
			if !slices.Contains(h.ops, o) {
				h.submit(o)
			}
			return nil
		}
		return run()
	}
}

// give has a container find its volumes.
func (h *host) give(c *container, list []agentstate.Volume) {
	for _, x := range list {
		v := h.volumes[x.VolumePlace]
		if v == nil {
			h.w.fail([]string{h.name, c.task.id}, "%s: task %s is to have the %s, which is not there", h.name, c.task.id, x.VolumePlace)
			return
		}
		c.volumes = append(c.volumes, v)
	}
}

// occupies is what of a host a task takes, with the host's own eyes. A shared
// volume is there once, whoever has it.
func occupies(use resource.Resources) resource.Resources {
	return operation.Plain(use.Unallocate().NonShared()).ToUnreserved()
}

func isVolume(k resource.Kind) bool { return k.PersistenceID() != "" }

// plain is what is no volume.
func plain(r resource.Resources) resource.Resources {
	return r.Filter(func(k resource.Kind) bool { return !isVolume(k) })
}
