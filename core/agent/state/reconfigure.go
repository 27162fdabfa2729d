package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Reconfiguration says how an agent's resources and attributes may differ from
// those that it had before.
type Reconfiguration string

// The policies.
const (
	// Additive: there may be more of everything; nothing may be less or other.
	Additive Reconfiguration = "additive"
	// Equal: nothing may differ.
	Equal Reconfiguration = "equal"
	// AnyChange: everything may. Tasks that do not fit any more are ended.
	AnyChange Reconfiguration = "any"
)

// IncompatibleError says that the configuration differs from what the agent had
// before in a way that the policy does not allow.
type IncompatibleError struct {
	Policy      Reconfiguration
	Differences []string
}

func (e *IncompatibleError) Error() string {
	rule := "may only have more of everything than before"
	if e.Policy == Equal {
		rule = "may not differ from before"
	}
	return fmt.Sprintf("the agent's configuration does not fit its checkpoint: with reconfiguration_policy = %q it %s, and it has %s. "+
		"Undo the change; or set reconfiguration_policy = %q, with which tasks that do not fit any more are ended; "+
		"or drain the agent and start it with --recover=skip, as a new one", e.Policy, rule, strings.Join(e.Differences, "; "), AnyChange)
}

// configured is what an agent was last started with.
type configured struct {
	Resources  [][]byte `json:"resources,omitempty"`
	Attributes [][]byte `json:"attributes,omitempty"`
	Domain     []byte   `json:"domain,omitempty"`
	Detected   bool     `json:"detected,omitempty"`
}

func (m *Machine) configured() *configured {
	c := &configured{Detected: m.cfg.Detected}
	for _, r := range m.cfg.Resources {
		c.Resources = append(c.Resources, wire(r))
	}
	for _, a := range m.cfg.Attributes {
		c.Attributes = append(c.Attributes, wire(a))
	}
	if m.cfg.Domain != nil {
		c.Domain = wire(m.cfg.Domain)
	}
	return c
}

// reconfigure compares the configuration with what the agent had before. It
// returns an error when the policy does not allow what differs.
func (m *Machine) reconfigure() error {
	before := m.before
	m.before = m.configured()
	if before == nil || m.id == "" {
		return nil
	}
	d := &differences{}
	if !m.cfg.Detected {
		// What is detected differs by itself from one start to the next.
		d.resources(before.Resources, m.before.Resources)
	}
	d.attributes(before.Attributes, m.before.Attributes)
	d.domain(before.Domain, m.before.Domain)
	wrong := d.less
	if m.cfg.Reconfiguration == Equal {
		wrong = append(wrong, d.more...)
	}
	if len(wrong) > 0 && m.cfg.Reconfiguration != AnyChange {
		return &IncompatibleError{Policy: m.cfg.Reconfiguration, Differences: wrong}
	}
	if all := append(d.less, d.more...); len(all) > 0 {
		m.log(Info, "the agent's configuration has changed", "changes", strings.Join(all, "; "))
		m.touch(agentEntity{m})
	}
	m.shrunk = len(d.less) > 0
	return nil
}

// differences are what there is more of than before, and what is less or other.
type differences struct{ less, more []string }

func (d *differences) resources(before, now [][]byte) {
	was, is := readResources(before), readResources(now)
	switch {
	case was.Equal(is):
	case is.Contains(was):
		d.more = append(d.more, fmt.Sprintf("resources %s (%s before)", is, was))
	default:
		d.less = append(d.less, fmt.Sprintf("resources %s (%s before)", is, was))
	}
}

func readResources(list [][]byte) resource.Resources {
	var messages []*mezzov1.Resource
	for _, b := range list {
		r := &mezzov1.Resource{}
		if unwire(b, r) == nil {
			messages = append(messages, r)
		}
	}
	r, _ := resource.FromProto(messages) // they were checked when they came
	return r
}

func (d *differences) attributes(before, now [][]byte) {
	was, is := readAttributes(before), readAttributes(now)
	for _, a := range was {
		switch b := find(is, a.GetName()); {
		case b == nil:
			d.less = append(d.less, fmt.Sprintf("no attribute %s (%s before)", a.GetName(), attributeText(a)))
		case !proto.Equal(a, b):
			d.less = append(d.less, fmt.Sprintf("attribute %s = %s (%s before)", a.GetName(), attributeText(b), attributeText(a)))
		}
	}
	for _, a := range is {
		if find(was, a.GetName()) == nil {
			d.more = append(d.more, fmt.Sprintf("attribute %s = %s (none before)", a.GetName(), attributeText(a)))
		}
	}
}

func readAttributes(list [][]byte) []*mezzov1.Attribute {
	var out []*mezzov1.Attribute
	for _, b := range list {
		a := &mezzov1.Attribute{}
		if unwire(b, a) == nil {
			out = append(out, a)
		}
	}
	return out
}

func find(list []*mezzov1.Attribute, name string) *mezzov1.Attribute {
	for _, a := range list {
		if a.GetName() == name {
			return a
		}
	}
	return nil
}

func attributeText(a *mezzov1.Attribute) string {
	switch {
	case a.GetScalar() != nil:
		return fmt.Sprint(a.GetScalar().GetValue())
	case a.GetRanges() != nil:
		var list []string
		for _, r := range a.GetRanges().GetRange() {
			list = append(list, fmt.Sprintf("%d-%d", r.GetBegin(), r.GetEnd()))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	return fmt.Sprintf("%q", a.GetText().GetValue())
}

func (d *differences) domain(before, now []byte) {
	switch {
	case string(before) == string(now):
	case before == nil:
		d.more = append(d.more, "a fault domain (none before)")
	default:
		d.less = append(d.less, "another fault domain")
	}
}

// endUnfitting ends the tasks for which there is no room any more: the younger
// ones first.
func (m *Machine) endUnfitting() {
	left, err := resource.FromProto(m.cfg.Resources)
	if err != nil {
		return
	}
	room := newRoom(left)
	for _, e := range m.sortedExecutors() {
		if e.info != nil && len(e.tasks) > 0 {
			room.take(e.info.GetResources(), true)
		}
	}
	tasks := m.sortedTasks()
	slices.SortStableFunc(tasks, func(a, b *task) int { return cmp.Or(a.launched.Compare(b.launched), a.key.compare(b.key)) })
	for _, t := range tasks {
		if !t.ended() && t.info != nil && !room.take(t.info.GetResources(), false) {
			m.kill(t, m.grace(t, nil), byRevoke, "The agent was started again with fewer resources, and the task does not fit any more")
		}
	}
}

// room is what is left of an agent, by name: how a resource is reserved does not
// matter to whether it is there.
type room struct {
	scalars map[string]resource.Scalar
	ranges  map[string]resource.Ranges
}

func newRoom(total resource.Resources) *room {
	r := &room{scalars: map[string]resource.Scalar{}, ranges: map[string]resource.Ranges{}}
	for _, name := range total.Names() {
		if ranges := total.RangesOf(name); len(ranges) > 0 {
			r.ranges[name] = ranges
		} else {
			r.scalars[name] = total.Get(name)
		}
	}
	return r
}

// take takes what a task uses, if it is there, or in any case when forced.
func (r *room) take(list []*mezzov1.Resource, force bool) bool {
	use, err := resource.FromProto(list)
	if err != nil {
		return true
	}
	fits := true
	for _, name := range use.Names() {
		if ranges := use.RangesOf(name); len(ranges) > 0 {
			fits = fits && r.ranges[name].Contains(ranges)
		} else {
			fits = fits && use.Get(name) <= r.scalars[name]
		}
	}
	if fits || force {
		for _, name := range use.Names() {
			if len(use.RangesOf(name)) == 0 {
				r.scalars[name] -= use.Get(name)
			}
		}
	}
	return fits
}
