package engine_test

import (
	"fmt"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// running is a world in which tasks run and may be revoked.
type running struct {
	*world
	preempt engine.Preempt
	serial  uint64
	// want is what a task of a framework needs; how many it wants.
	want  map[string]resource.Resources
	count map[string]int
	// due is when a task that is asked to end will have ended: when its grace
	// is over, or as early says before.
	due   map[uint64]time.Duration
	early func(task uint64) time.Duration
	// polite are those who suppress offers when they have all that they want.
	polite map[string]bool
}

func newRunning(t testing.TB, begin allocator.Begin, p engine.Preempt, events ...allocator.Event) *running {
	w := unborn(t, begin, &engine.DominantShare{})
	w.engine.Preempt(p)
	w.apply(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: events})
	return &running{world: w, preempt: p, want: map[string]resource.Resources{}, count: map[string]int{}, due: map[uint64]time.Duration{}}
}

func patient() engine.Preempt {
	return engine.Preempt{After: 2 * time.Minute, GracePeriod: 30 * time.Second}
}

// wants subscribes a framework that wants n tasks of a size.
func (r *running) wants(id, role, size string, n int) {
	r.t.Helper()
	r.want[id], r.count[id] = r.parse(size), n
	r.framework(id, role)
}

// start tells of a task in what a framework holds.
func (r *running) start(h holder, size resource.Resources) {
	r.serial++
	r.tell(&allocator.TaskStarted{Number: r.serial, Agent: h.Agent, Framework: h.Framework, Role: h.Role, Resources: size,
		Started: r.at()})
}

func (r *running) end(number uint64) {
	r.t.Helper()
	t := r.Tasks[number]
	if t == nil {
		return
	}
	delete(r.due, number)
	r.tell(&allocator.TaskEnded{Number: number})
	r.release(t.Agent, t.Framework, t.Role, t.Resources, 0, false)
}

// use launches what a framework wants from an offer, and leaves the rest.
func (r *running) use(o *allocator.Offer) {
	left, n := o.Resources, 0
	var sizes []resource.Resources
	for want := r.want[o.Framework]; r.count[o.Framework] > 0 && left.Contains(want) && !want.IsEmpty(); n++ {
		left = left.Minus(want)
		r.count[o.Framework]--
		sizes = append(sizes, want)
	}
	for _, size := range sizes {
		r.start(holder{Agent: o.Agent, Framework: o.Framework, Role: o.Role}, size)
	}
	if !left.IsEmpty() {
		r.release(o.Agent, o.Framework, o.Role, left, 5*time.Minute, n == 0)
	}
	if r.polite[o.Framework] && r.count[o.Framework] == 0 {
		r.tell(&allocator.Suppressed{Framework: o.Framework, Roles: []string{o.Role}})
	}
}

// pass lets time pass: offers are used, and tasks end when their grace is over.
func (r *running) pass(d time.Duration) {
	r.t.Helper()
	end := r.now + d
	for {
		at, ok := r.engine.Next()
		if !ok || at > end {
			at = end
		}
		first := uint64(0)
		for number, due := range r.due {
			if due < at || due == at && (first == 0 || number < first) {
				at, first = due, number
			}
		}
		r.now = max(r.now, at)
		if first > 0 {
			r.end(first)
			continue
		}
		before := len(r.revoked)
		for _, o := range r.run() {
			r.use(o)
		}
		for _, x := range r.revoked[before:] {
			if r.Tasks[x.Task] == nil {
				r.t.Fatalf("task %d is revoked, and does not run", x.Task)
			}
			if _, twice := r.due[x.Task]; twice {
				r.t.Fatalf("task %d is revoked twice", x.Task)
			}
			switch {
			case r.refuseOther != 0:
			case r.refuseTask != nil && r.refuseTask(x.Task) != 0:
			case r.early != nil:
				r.due[x.Task] = r.now + x.Grace - r.early(x.Task)
			default:
				r.due[x.Task] = r.now + x.Grace
			}
		}
		if r.now >= end {
			if next, ok := r.engine.Next(); !ok || next > end {
				return
			}
		}
	}
}

// cpus is how many a role holds in tasks, with the roles below it.
func (r *running) cpus(role string) (n resource.Scalar) {
	for _, t := range r.Tasks {
		if resource.IsAncestorOrSelf(role, t.Role) {
			n += t.Resources.Get("cpus")
		}
	}
	return n / resource.Unit
}

func (r *running) wantRevoked(want ...uint64) {
	r.t.Helper()
	var got []uint64
	for _, x := range r.revoked {
		got = append(got, x.Task)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatalf("revoked tasks (-want +got):\n%s", diff)
	}
}

// full is a cluster of two agents of four CPUs with eight tasks of rich, in the
// order of their numbers. Agent a has the first four.
func full(t *testing.T, p engine.Preempt) *running {
	r := newRunning(t, defaults(), p)
	r.wants("rich", "rich", "cpus:1", 8)
	r.agent("a", "cpus:4")
	r.pass(time.Second)
	r.agent("b", "cpus:4")
	r.pass(time.Second)
	if len(r.Tasks) != 8 || r.Tasks[8].Agent != "b" || r.Tasks[1].Agent != "a" {
		t.Fatalf("tasks %v", r.Tasks)
	}
	return r
}

func TestTheStarvedGetTheirShare(t *testing.T) {
	r := full(t, patient())
	r.wants("poor", "poor", "cpus:1", 100)
	r.pass(2*time.Minute - time.Second)
	r.wantRevoked()
	r.pass(10 * time.Second)
	// All at once, the youngest first.
	r.wantRevoked(8, 7, 6, 5)
	if r.revoked[0].Grace != 30*time.Second || r.revoked[0].Reason == "" {
		t.Errorf("revocation %+v, want the configured grace and a reason", r.revoked[0])
	}
	r.pass(time.Hour)
	r.wantRevoked(8, 7, 6, 5)
	if r.cpus("poor") != 4 || r.cpus("rich") != 4 {
		t.Errorf("poor has %v, rich %v, want 4 each", r.cpus("poor"), r.cpus("rich"))
	}
}

func TestNothingIsRevoked(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(r *running)
	}{
		{"when nobody wants more", func(r *running) {
			r.wants("poor", "poor", "cpus:1", 100)
			r.tell(&allocator.Suppressed{Framework: "poor", Roles: []string{"poor"}})
		}},
		{"for a framework that is disconnected", func(r *running) {
			r.tell(&allocator.FrameworkUpdated{ID: "poor", Name: "poor", Roles: []string{"poor"}})
		}},
		{"where constraints would keep the starved from it", func(r *running) {
			r.tell(&allocator.FrameworkUpdated{ID: "poor", Name: "poor", Roles: []string{"poor"}, Active: true,
				Settings: []allocator.RoleSettings{{Role: "poor", Constraints: constraintBytes(t, `groups { attribute_constraints { selector { attribute_name: "rack" } predicate { exists {} } } }`)}}})
		}},
		{"where it would be too small to be offered", func(r *running) {
			r.tell(&allocator.FrameworkUpdated{ID: "poor", Name: "poor", Roles: []string{"poor"}, Active: true,
				Settings: []allocator.RoleSettings{{Role: "poor", MinAllocatable: []resource.Quantities{{{Name: "cpus", Amount: 5 * resource.Unit}}}}}})
		}},
		{"where the starved has reached its limit", func(r *running) {
			r.tell(&allocator.RoleUpdated{Name: "poor", Limit: resource.Quantities{{Name: "cpus", Amount: 0}}})
			r.wants("poor", "poor", "cpus:1", 100)
		}},
		{"of an agent that is inactive", func(r *running) {
			for _, id := range []string{"a", "b"} {
				u := r.State(id)
				u.Active = false
				r.tell(u)
			}
			r.wants("poor", "poor", "cpus:1", 100)
		}},
		{"of a guarantee", func(r *running) {
			r.tell(&allocator.RoleUpdated{Name: "rich", Guarantee: resource.Quantities{{Name: "cpus", Amount: 8 * resource.Unit}}})
			r.wants("poor", "poor", "cpus:1", 100)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := full(t, patient())
			test.do(r)
			r.pass(3 * time.Hour)
			r.wantRevoked()
		})
	}
	t.Run("when it is off", func(t *testing.T) {
		w := newWorld(t, defaults(), &engine.DominantShare{})
		w.framework("rich", "rich")
		w.agent("a", "cpus:4")
		o := w.wantOffer("rich")
		w.tell(&allocator.TaskStarted{Number: 1, Agent: "a", Framework: "rich", Role: "rich", Resources: o.Resources})
		w.framework("poor", "poor")
		w.until(time.Hour)
		if len(w.revoked) > 0 {
			t.Errorf("revoked %v", w.revoked)
		}
	})
}

// A role below its guarantee takes from others, whatever the shares, but not
// from those who would then lack some of theirs.
func TestGuaranteesAreMetByRevocation(t *testing.T) {
	r := newRunning(t, defaults(), patient())
	quota := func(role string, n int64) {
		r.tell(&allocator.RoleUpdated{Name: role, Guarantee: resource.Quantities{{Name: "cpus", Amount: resource.Scalar(n) * resource.Unit}}})
	}
	r.wants("one", "one", "cpus:1", 3)
	r.agent("a", "cpus:3")
	r.pass(time.Second)
	r.wants("two", "two", "cpus:1", 5)
	r.agent("b", "cpus:5")
	r.pass(time.Second)
	quota("one", 2)
	quota("two", 1)
	quota("three", 6)
	r.wants("three", "three", "cpus:1", 100)
	r.pass(time.Hour)
	if r.cpus("one") != 2 || r.cpus("two") != 1 || r.cpus("three") != 5 {
		t.Errorf("one has %v, two %v, three %v, want 2, 1 and 5", r.cpus("one"), r.cpus("two"), r.cpus("three"))
	}
	if len(r.revoked) != 5 {
		t.Errorf("%d tasks were revoked, want 5", len(r.revoked))
	}
}

// What a role above both lacks is not met by passing on what is below it.
func TestGuaranteesAboveBoth(t *testing.T) {
	r := newRunning(t, defaults(), patient())
	r.tell(&allocator.RoleUpdated{Name: "a", Guarantee: resource.Quantities{{Name: "cpus", Amount: 100 * resource.Unit}}},
		&allocator.RoleUpdated{Name: "a/x", Weight: 9000})
	r.wants("x", "a/x", "cpus:1", 9)
	r.agent("one", "cpus:9")
	r.pass(time.Second)
	r.wants("y", "a/y", "cpus:1", 9)
	r.agent("two", "cpus:1")
	r.pass(time.Hour)
	r.wantRevoked()
	if r.cpus("a/x") != 9 || r.cpus("a/y") != 1 {
		t.Errorf("x has %v, y %v, want 9 and 1", r.cpus("a/x"), r.cpus("a/y"))
	}
}

// One task that is enough goes before several, and of several no more than are
// needed.
func TestFewestTasks(t *testing.T) {
	for _, test := range []struct {
		name  string
		sizes []string // on one agent, the oldest first
		need  string
		want  []uint64
	}{
		{"one large before two young", []string{"cpus:4", "cpus:2", "cpus:2"}, "cpus:4", []uint64{1}},
		{"the youngest that is enough", []string{"cpus:4", "cpus:4", "cpus:4"}, "cpus:4", []uint64{3}},
		{"two of three", []string{"cpus:3", "cpus:3", "cpus:1"}, "cpus:6", []uint64{2, 1}},
		{"all that it takes", []string{"cpus:2", "cpus:2", "cpus:2"}, "cpus:4", []uint64{3, 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRunning(t, defaults(), patient())
			r.agent("huge", "cpus:30")
			r.agent("a", "cpus:4")
			r.framework("idle", "idle")
			r.framework("rich", "rich")
			// A world that is full: what no task has, an idle framework holds.
			total := resource.Resources(nil)
			for _, size := range test.sizes {
				v := r.parse(size)
				total = total.Add(v)
				r.tell(&allocator.AgentUpdated{ID: "a", Hostname: "a", Total: total, Active: true, HoldingsSet: true})
				h := holder{Agent: "a", Framework: "rich", Role: "rich"}
				r.Held[h] = total
				r.tell(r.State("a"))
				r.now += time.Second
				r.start(h, v)
			}
			hold := holder{Agent: "huge", Framework: "idle", Role: "idle"}
			r.Held[hold] = r.Agents["huge"].Update.Total
			r.tell(r.State("huge"))
			r.tell(&allocator.Suppressed{Framework: "idle", Roles: []string{"idle"}}, &allocator.Suppressed{Framework: "rich", Roles: []string{"rich"}})
			r.tell(&allocator.RoleUpdated{Name: "poor", Guarantee: resource.Quantities{{Name: "cpus", Amount: r.parse(test.need).Get("cpus")}}})
			r.wants("poor", "poor", test.need, 1)
			r.tell(&allocator.Requested{Framework: "poor", Resources: r.parse(test.need).Quantities()})
			r.pass(2*time.Minute + 10*time.Second)
			r.wantRevoked(test.want...)
		})
	}
}

// Whatever runs: no role is taken below its guarantee, nothing is revoked twice
// or to and fro, and those who want more end with their fair share, within a
// task.
func TestAnyPreemption(t *testing.T) {
	revoked := 0
	rapid.Check(t, func(rt *rapid.T) {
		r := newRunning(t, defaults(), patient())
		roles := []string{"a", "b", "c", "a/x", "a/y"}
		for i := range rapid.IntRange(1, 5).Draw(rt, "agents") {
			r.agent(fmt.Sprint("agent", i), fmt.Sprintf("cpus:%d", rapid.IntRange(4, 12).Draw(rt, "cpus")))
		}
		largest, sizes := 0, rapid.IntRange(1, 3).Draw(rt, "sizes")
		names := []string{}
		for i := range rapid.IntRange(2, 5).Draw(rt, "frameworks") {
			size := rapid.IntRange(1, sizes).Draw(rt, "size")
			largest = max(largest, size)
			id := fmt.Sprint("f", i)
			names = append(names, id)
			r.wants(id, rapid.SampledFrom(roles).Draw(rt, "role"), fmt.Sprint("cpus:", size), 1000)
			r.pass(time.Duration(rapid.IntRange(0, 300).Draw(rt, "wait")) * time.Second)
		}
		r.pass(2 * time.Hour)
		n := len(r.revoked)
		revoked += n
		r.pass(6 * time.Hour)
		// Where all tasks are alike all is settled. Where a share has no room for
		// a task, it is tried again in vain, ever less often.
		most := 0
		if largest > 1 {
			most = 6 * largest * len(names)
		}
		if more := len(r.revoked) - n; more > most {
			rt.Fatalf("%d tasks were revoked, and with nothing changed %d more", n, more)
		}
		// Between any two top-level roles no task can pass any more.
		top := map[string]resource.Scalar{}
		for h := range r.Held {
			role := h.Role[:1]
			top[role] = r.cpus(role)
		}
		var list []string
		for role := range top {
			list = append(list, role)
		}
		sort.Strings(list)
		for _, poor := range list {
			for _, rich := range list {
				// A task of the rich that is small enough for the poor to use it at once.
				for _, task := range r.Tasks {
					if task.Role[:1] != rich || rich == poor || !slices.ContainsFunc(names, func(id string) bool {
						h, wants := r.roleOf(id), r.want[id].Get("cpus")
						return h == poor && wants <= task.Resources.Get("cpus")
					}) {
						continue
					}
					if size := task.Resources.Get("cpus") / resource.Unit; top[poor]+size <= top[rich]-size {
						rt.Fatalf("role %s has %v and %s %v CPUs: a task of %v should have passed", poor, top[poor], rich, top[rich], size)
					}
				}
			}
		}
	})
	if revoked == 0 {
		t.Error("nothing was ever revoked: the test tests nothing")
	}
}

func constraintBytes(t *testing.T, text string) []byte {
	t.Helper()
	var message schedulerv1.OfferConstraints_RoleConstraints
	if err := prototext.Unmarshal([]byte(text), &message); err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// roleOf is the top-level role in which a framework holds something.
func (r *running) roleOf(id string) string {
	for h, v := range r.Held {
		if h.Framework == id && !v.IsEmpty() {
			return h.Role[:1]
		}
	}
	return ""
}
