package state

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/operation"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// resources are what the agent has: those of the configuration, with all that
// operations made of them since: reservations and volumes. Only the latter are
// written.
type resources struct {
	stored
	total resource.Resources
	// changed are those that operations made, as they were read.
	changed resource.Resources
}

type resourcesRecord struct {
	Version int      `json:"version"`
	Changed [][]byte `json:"changed"`
}

func (r *resources) records() []Record {
	record := resourcesRecord{Version: recordVersion}
	for _, p := range r.total.Filter(byOperation).ToProto() {
		record.Changed = append(record.Changed, wire(p))
	}
	return []Record{{bucketResources, "changed", encode(record)}}
}

func (m *Machine) readResources(d *decoder) {
	var r resourcesRecord
	d.json(&r, &r.Version)
	var list []*mezzov1.Resource
	for _, b := range r.Changed {
		p := &mezzov1.Resource{}
		d.message(b, p)
		list = append(list, p)
	}
	changed, err := resource.FromProto(list)
	if err != nil {
		d.fail("not what an agent wrote: %w", err)
	}
	m.resources.changed, m.resources.stored = changed, stored{known: true}
}

// byOperation is whether an operation made the resource what it is.
func byOperation(k resource.Kind) bool {
	if k.PersistenceID() != "" {
		return true
	}
	stack := k.Reservations()
	return len(stack) > 0 && stack[len(stack)-1].Dynamic
}

// original is what a resource was before any operation.
func original(r resource.Resources) resource.Resources {
	r = operation.Plain(r)
	var out resource.Resources
	for i := range r {
		one := r[i]
		for byOperation(one.Kind) {
			one.Kind = one.Kind.Pop()
		}
		out = out.Add(resource.Of(one))
	}
	return out
}

// restoreResources makes the agent's resources of the configuration and what was
// recorded. They must be there: nobody may lose a volume by a line in a file.
func (m *Machine) restoreResources() error {
	r := &m.resources
	configured, err := resource.FromProto(m.cfg.Resources)
	if err != nil {
		return fmt.Errorf("the agent's resources: %w", err)
	}
	configured = configured.Unallocate()
	before := original(r.changed)
	if missing := before.Minus(configured); !missing.IsEmpty() {
		return fmt.Errorf("the agent's configuration has %s, and of what was reserved or made into volumes here (%s) that lacks %s. "+
			"Give it those resources again, unreserve them and destroy the volumes (mezzo unreserve, mezzo volume destroy), and then take them away; "+
			"or start with --recover=skip as a new agent: then the volumes' directories stay on the disk and belong to nobody",
			configured, r.changed, missing)
	}
	r.total = configured.Minus(before).Add(r.changed)
	return nil
}

// inUse is what tasks and executors hold now, as the master counts it.
func (m *Machine) inUse() (sum resource.Resources, by map[operation.Volume]string) {
	by = map[operation.Volume]string{}
	add := func(list []*mezzov1.Resource, who string) {
		r, err := resource.FromProto(list)
		if err != nil {
			return // such a task was refused
		}
		r = r.Unallocate()
		sum = sum.Add(r)
		for _, v := range operation.Volumes(r) {
			by[v] = who
		}
	}
	for _, e := range m.sortedExecutors() {
		if e.info != nil && e.reported() {
			add(e.info.GetResources(), fmt.Sprintf("executor %s of framework %s", e.id, e.framework.id))
		}
	}
	for _, t := range m.sortedTasks() {
		if !t.ended() {
			add(t.info.GetResources(), fmt.Sprintf("task %s of framework %s", t.key.id, t.key.framework))
		}
	}
	return sum, by
}

// unknownResources says which reserved resources and volumes of a launch the
// agent does not have; empty: it has all.
func (m *Machine) unknownResources(list []*mezzov1.Resource) string {
	r, err := resource.FromProto(list)
	if err != nil {
		return ""
	}
	r = r.Unallocate().Filter(byOperation)
	for i := range r {
		one := r[i]
		if one.Kind.Shared() {
			one.Count = 1
		}
		if !m.resources.total.Contains(resource.Resources{one}) {
			return resource.Resources{one}.String()
		}
	}
	return ""
}

// VolumePlace is where a persistent volume lies. It is a map's key.
type VolumePlace struct {
	// Root is the disk's own directory; empty: the agent's.
	Root string
	// Whole: the volume is all of Root.
	Whole    bool
	Role, ID string
}

// String returns, say, "volume data of role db".
func (p VolumePlace) String() string { return "volume " + p.ID + " of role " + p.Role }

// Volume is a persistent volume as a task has it.
type Volume struct {
	VolumePlace
	// ContainerPath is where the task finds it: in the sandbox if it is relative.
	ContainerPath string
	Shared        bool
	// Mounted: the container was launched with it.
	Mounted bool
	// SizeMB is how much it may hold.
	SizeMB float64
}

// VolumesOf are the persistent volumes among resources, in their order.
func VolumesOf(list []*mezzov1.Resource) []Volume {
	var out []Volume
	for _, r := range list {
		d := r.GetDisk()
		if d.GetPersistence().GetId() == "" {
			continue
		}
		v := Volume{ContainerPath: d.GetVolume().GetContainerPath(), Shared: r.GetShared() != nil, SizeMB: r.GetScalar().GetValue()}
		v.ID, v.Role = d.GetPersistence().GetId(), roleReserved(r)
		switch s := d.GetSource(); s.GetType() {
		case mezzov1.Resource_DiskInfo_Source_PATH:
			v.Root = s.GetPath().GetRoot()
		case mezzov1.Resource_DiskInfo_Source_MOUNT:
			v.Root, v.Whole = s.GetMount().GetRoot(), true
		}
		if !slices.ContainsFunc(out, func(o Volume) bool { return o.VolumePlace == v.VolumePlace }) { // several copies of a shared one
			out = append(out, v)
		}
	}
	return out
}

func roleReserved(r *mezzov1.Resource) string {
	if n := len(r.GetReservations()); n > 0 {
		return r.GetReservations()[n-1].GetRole()
	}
	return r.GetRole()
}

// volumeError says why a task cannot have its volumes where it wants them;
// empty: it can.
func (m *Machine) volumeError(list []*mezzov1.Resource) string {
	seen := map[string]bool{}
	for _, v := range VolumesOf(list) {
		p := path.Clean(v.ContainerPath)
		switch {
		case path.IsAbs(p) && !m.cfg.Root:
			return fmt.Sprintf("its %s is to be mounted at %s, and this agent does not run as root: it can only put volumes into sandboxes, at relative paths", v, p)
		case p == "/":
			return fmt.Sprintf("its %s cannot be mounted at /", v)
		case p == "." || p == ".." || strings.HasPrefix(p, "../"):
			return fmt.Sprintf("its %s is to be mounted at %q, which is not in the sandbox", v, v.ContainerPath)
		case seen[p]:
			return fmt.Sprintf("two volumes are to be mounted at %q", p)
		}
		seen[p] = true
	}
	return ""
}

// joinError says why tasks cannot have their volumes in the container of a custom
// executor, which its tasks share; empty: they can. e is nil when it is to be
// launched for them. What is mounted in a container stays as it was launched: a
// volume that comes later is a link in the sandbox.
func (m *Machine) joinError(e *executor, info *mezzov1.ExecutorInfo, tasks []*mezzov1.TaskInfo) string {
	held := slices.Clone(info.GetResources())
	var p *program
	if e != nil {
		for _, t := range e.tasks {
			held = append(held, t.info.GetResources()...)
		}
		if e.root != nil && e.root.phase != claiming {
			p = e.program
		}
	}
	places := map[string]VolumePlace{}
	for _, v := range VolumesOf(held) {
		places[path.Clean(v.ContainerPath)] = v.VolumePlace
	}
	c := info.GetContainer()
	image := c.GetMesos().GetImage() != nil || c != nil && c.GetType() == mezzov1.ContainerInfo_DOCKER
	for _, t := range tasks {
		for _, v := range VolumesOf(t.GetResources()) {
			at := path.Clean(v.ContainerPath)
			if other, taken := places[at]; taken && other != v.VolumePlace {
				return fmt.Sprintf("task %q: two volumes are to be mounted at %q of one executor: %s and %s", t.GetTaskId().GetValue(), at, other, v)
			}
			places[at] = v.VolumePlace
			if p == nil {
				continue
			}
			switch there, mounted := p.mounted[at]; {
			case mounted && there == v.VolumePlace:
			case mounted:
				return fmt.Sprintf("task %q: its executor, which runs already, has another volume at %q until it ends; use another path, or another executor", t.GetTaskId().GetValue(), at)
			case path.IsAbs(at), image:
				return fmt.Sprintf("task %q: its %s cannot be mounted at %s, since its executor runs already: what comes later can only be put into the sandbox of an executor without an image, at a relative path; use such a path, or another executor",
					t.GetTaskId().GetValue(), v, at)
			}
		}
	}
	return ""
}

// noteMounted keeps what is mounted in a custom executor's container when it is
// launched.
func (m *Machine) noteMounted(e *executor) {
	if !m.cfg.Root {
		return // all are links
	}
	for _, v := range m.volumesOf(e.root) {
		if e.program.mounted == nil {
			e.program.mounted = map[string]VolumePlace{}
		}
		e.program.mounted[path.Clean(v.ContainerPath)] = v.VolumePlace
	}
}

// unmounted notes that a volume is removed: where it was mounted there is none
// now, also when another of its name is made.
func (m *Machine) unmounted(place VolumePlace) {
	for _, e := range m.sortedExecutors() {
		if e.program == nil {
			continue
		}
		for at, there := range e.program.mounted {
			if there == place {
				e.program.mounted[at] = VolumePlace{}
				m.touch(e)
			}
		}
	}
}

// volumesOf are the volumes that a container is given.
func (m *Machine) volumesOf(c *container) []Volume {
	e := c.executor
	if c.task != nil {
		return VolumesOf(c.task.info.GetResources())
	}
	list := slices.Clone(e.info.GetResources())
	if e.program != nil { // its tasks have no containers of their own
		for _, t := range e.tasks {
			list = append(list, t.info.GetResources()...)
		}
	}
	all := VolumesOf(list)
	for i, v := range all {
		if e.program != nil && v.VolumePlace == e.program.mounted[path.Clean(v.ContainerPath)] {
			all[i].Mounted = true
		}
	}
	return all
}

func stringOf(text string) *string {
	if text == "" {
		return nil
	}
	return proto.String(text)
}
