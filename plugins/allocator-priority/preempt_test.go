package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// shift is a world in which every agent has room for one task, and tasks that
// are revoked end at once and are wanted again.
type shift struct {
	*world
	wants map[string]int // how many more tasks, by framework
	runs  map[string]int
	tasks map[uint64]holder
	// revoked are the frameworks whose tasks were ended, in order.
	revoked []string
	serial  uint64
	greedy  string // a framework that never suppresses offers
}

func newShift(t failer, c *config, agents int) *shift {
	s := &shift{world: newWorld(t, c, nil), wants: map[string]int{}, runs: map[string]int{}, tasks: map[uint64]holder{}}
	for i := range agents {
		s.agent(fmt.Sprint("agent", i), "cpus:1;mem:64")
	}
	return s
}

func (s *shift) arrive(id, role string, wants int) {
	s.framework(id, role)
	s.want(id, role, wants)
}

// want says how many more tasks a framework wants; it suppresses offers when it
// has enough.
func (s *shift) want(id, role string, more int) {
	if s.wants[id] = more; more == 0 && id != s.greedy {
		s.tell(&allocator.Suppressed{Framework: id, Roles: []string{role}})
	} else if more > 0 {
		s.tell(&allocator.Revived{Framework: id, Roles: []string{role}})
	}
}

// run lets a quarter of an hour pass.
func (s *shift) run() {
	began := s.now
	for {
		at, ok := s.engine.Next()
		if !ok || at > began+15*time.Minute {
			return
		}
		s.now = max(s.now+time.Millisecond, at)
		decisions, _ := s.engine.Run(s.now)
		for _, d := range decisions {
			decision, err := s.encoder.Decision(d)
			if err != nil {
				s.t.Fatal(err)
			}
			s.seen = decision.DecisionNumber()
			switch d := decision.(type) {
			case *allocator.Offer:
				s.take(d)
			case *allocator.Revoke:
				s.end(d, s.now-began)
			}
		}
	}
}

func (s *shift) take(o *allocator.Offer) {
	h := holder{o.Agent, o.Framework, o.Role}
	s.held[h] = s.held[h].Add(o.Resources)
	if s.wants[o.Framework] == 0 {
		s.decline(o, time.Second)
		return
	}
	s.runs[o.Framework]++
	s.serial++
	s.tasks[s.serial] = h
	s.tell(&allocator.TaskStarted{Number: s.serial, Agent: o.Agent, Framework: o.Framework, Role: o.Role, Resources: o.Resources, Started: time.Unix(0, 0).Add(s.now)})
	s.want(o.Framework, o.Role, s.wants[o.Framework]-1)
}

func (s *shift) end(r *allocator.Revoke, after time.Duration) {
	h, ok := s.tasks[r.Task]
	if !ok {
		s.t.Fatalf("task %d does not run", r.Task)
	}
	delete(s.tasks, r.Task)
	s.runs[h.framework]--
	s.revoked = append(s.revoked, h.framework)
	if after < time.Minute {
		s.t.Fatalf("a task of %s was ended after %v, before anybody was starved for a minute", h.framework, after)
	}
	if r.Grace != 10*time.Second {
		s.t.Fatalf("a task of %s has a grace period of %v, want 10s", h.framework, r.Grace)
	}
	s.tell(&allocator.TaskEnded{Number: r.Task})
	s.release(h, s.held[h], 0, false)
	s.want(h.framework, h.role, s.wants[h.framework]+1)
}

// Who loses tasks when somebody arrives, and what each then runs.
func TestPreempt(t *testing.T) {
	minute := &allocator.Preempt{After: time.Minute, GracePeriod: 10 * time.Second}
	for _, test := range []struct {
		name          string
		config        config
		first, second player
		revoked       string
		runs          map[string]int
	}{
		{
			name:    "the higher takes what it wants",
			config:  config{Preempt: minute, Roles: []roleConfig{{Name: "prod", Priority: is(10)}}},
			first:   player{"b", "batch", 8},
			second:  player{"p", "prod", 2},
			revoked: "b b",
			runs:    map[string]int{"b": 6, "p": 2},
		},
		{
			name:   "the lower waits",
			config: config{Preempt: minute, Roles: []roleConfig{{Name: "prod", Priority: is(10)}}},
			first:  player{"p", "prod", 8},
			second: player{"b", "batch", 3},
			runs:   map[string]int{"p": 8},
		},
		{
			name:   "nothing without the block",
			config: config{Roles: []roleConfig{{Name: "prod", Priority: is(10)}}},
			first:  player{"b", "batch", 8},
			second: player{"p", "prod", 3},
			runs:   map[string]int{"b": 8},
		},
		{
			name:    "a floor is taken from the higher, and no more",
			config:  config{Preempt: minute, Roles: []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Floor: 0.26}}},
			first:   player{"p", "prod", 8},
			second:  player{"b", "batch", 8},
			revoked: "p p",
			runs:    map[string]int{"p": 6, "b": 2},
		},
		{
			name:    "of what it has beyond its floor a role loses all",
			config:  config{Preempt: minute, Roles: []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Floor: 0.25}}},
			first:   player{"b", "batch", 8},
			second:  player{"p", "prod", 8},
			revoked: "b b b b b b",
			runs:    map[string]int{"b": 2, "p": 6},
		},
		{
			name:    "frameworks of one role, too",
			config:  config{Preempt: minute, Frameworks: []frameworkConfig{{Name: "h", Priority: 2}}},
			first:   player{"l", "*", 8},
			second:  player{"h", "*", 2},
			revoked: "l l",
			runs:    map[string]int{"l": 6, "h": 2},
		},
		{
			name:    "equals share",
			config:  config{Preempt: minute},
			first:   player{"x", "a", 8},
			second:  player{"y", "b", 8},
			revoked: "x x x x",
			runs:    map[string]int{"x": 4, "y": 4},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newShift(t, &test.config, 8)
			for _, p := range []player{test.first, test.second} {
				s.arrive(p.id, p.role, p.wants)
				s.run()
			}
			if diff := cmp.Diff(test.revoked, strings.Join(s.revoked, " ")); diff != "" {
				t.Errorf("revoked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.runs, s.runs); diff != "" {
				t.Errorf("runs (-want +got):\n%s", diff)
			}
		})
	}
}

// Who could take everything is given little more than it uses, even if it never
// says that it has enough.
func TestPreemptFeelsItsWay(t *testing.T) {
	c := &config{Preempt: &allocator.Preempt{After: time.Minute, GracePeriod: 10 * time.Second}, Roles: []roleConfig{{Name: "prod", Priority: is(10)}}}
	for _, wants := range []int{1, 3, 100} {
		s := newShift(t, c, 200)
		s.arrive("b", "batch", 1000)
		s.run()
		s.greedy = "p"
		s.arrive("p", "prod", wants)
		s.run()
		if want := map[string]int{"p": wants, "b": 200 - wants}; !maps.Equal(s.runs, want) {
			t.Errorf("runs %v, want %v", s.runs, want)
		}
		// It is asked again now and then whether it wants more.
		if n, most := len(s.revoked), wants+wants/4+5; n > most {
			t.Errorf("%d tasks were ended for %d, want at most %d", n, wants, most)
		}
	}
}

// The lowest loses first, even if its tasks are the oldest.
func TestPreemptTakesFromTheLowest(t *testing.T) {
	c := &config{
		Preempt: &allocator.Preempt{After: time.Minute, GracePeriod: 10 * time.Second},
		Roles:   []roleConfig{{Name: "low", Priority: is(-1)}, {Name: "high", Priority: is(2)}},
	}
	s := newShift(t, c, 4)
	for _, p := range []player{{"l", "low", 2}, {"m", "middle", 2}, {"h", "high", 2}} {
		s.arrive(p.id, p.role, p.wants)
		s.run()
	}
	if diff := cmp.Diff([]string{"l", "l"}, s.revoked); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
}

// In whatever order they come: in the end each has what those before it leave.
func TestPreemptEndsInTheOrderOfPriorities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roles := rapid.IntRange(2, 6).Draw(t, "roles")
		agents := rapid.IntRange(1, 12).Draw(t, "agents")
		c := &config{Preempt: &allocator.Preempt{After: time.Minute, GracePeriod: 10 * time.Second}}
		for i := range roles {
			c.Roles = append(c.Roles, roleConfig{Name: fmt.Sprint("role", i), Priority: is(int64(i))})
		}
		s := newShift(t, c, agents)
		want, left := map[string]int{}, agents
		wants := make([]int, roles)
		for i := roles - 1; i >= 0; i-- {
			wants[i] = rapid.IntRange(0, 8).Draw(t, "tasks")
			if n := min(wants[i], left); n > 0 {
				want[fmt.Sprint("f", i)] = n
				left -= n
			}
		}
		order := make([]int, roles)
		for i := range order {
			order[i] = i
		}
		arrivals := rapid.Permutation(order).Draw(t, "arrivals")
		for _, i := range arrivals {
			s.arrive(fmt.Sprint("f", i), fmt.Sprint("role", i), wants[i])
			s.run()
		}
		maps.DeleteFunc(s.runs, func(_ string, n int) bool { return n == 0 })
		if diff := cmp.Diff(want, s.runs); diff != "" {
			t.Fatalf("%d agents, wants %v, arrivals %v: runs (-want +got):\n%s", agents, wants, arrivals, diff)
		}
	})
}
