package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func is(p int64) *int64 { return &p }

// player is a framework that wants so many agents, and declines the rest.
type player struct {
	id, role string
	wants    int
}

// Who gets which of eight equal agents, in order.
func TestOrder(t *testing.T) {
	for _, test := range []struct {
		name    string
		config  config
		weights map[string]uint64
		players []player
		want    string
	}{
		{
			name:    "a role's priority is its block's; it has all that it wants before others have anything",
			config:  config{Roles: []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Priority: is(5)}}},
			players: []player{{"b", "batch", 8}, {"p", "prod", 3}, {"x", "other", 8}},
			want:    "p p p b b b b b",
		},
		{
			name:    "or its weight, to the thousandth",
			weights: map[string]uint64{"low": 500, "high": 1001},
			players: []player{{"l", "low", 8}, {"m", "middle", 2}, {"h", "high", 3}},
			want:    "h h h m m l l l",
		},
		{
			name:    "block and weight have one scale; the block counts",
			config:  config{Roles: []roleConfig{{Name: "heavy", Priority: is(-3)}, {Name: "two", Priority: is(2)}}},
			weights: map[string]uint64{"heavy": 9000, "three": 3000},
			players: []player{{"h", "heavy", 8}, {"x", "two", 2}, {"t", "three", 2}, {"o", "other", 2}},
			want:    "t t x x o o h h",
		},
		{
			name:    "equals are served fairly, by weight",
			config:  config{Roles: []roleConfig{{Name: "a", Priority: is(7)}, {Name: "b", Priority: is(7)}}},
			weights: map[string]uint64{"b": 3000},
			players: []player{{"a", "a", 8}, {"b", "b", 8}},
			want:    "a b b b a b b b",
		},
		{
			name:    "frameworks in a role by priority, which is 1 without a block",
			config:  config{Frameworks: []frameworkConfig{{Name: "first", Priority: 2}, {Name: "last", Priority: 0}}},
			players: []player{{"last", "*", 8}, {"first", "*", 3}, {"x", "*", 2}, {"y", "*", 2}},
			want:    "first first first y x y x last",
		},
		{
			name: "roles come before frameworks",
			config: config{
				Roles:      []roleConfig{{Name: "prod", Priority: is(2)}},
				Frameworks: []frameworkConfig{{Name: "vip", Priority: 1000}},
			},
			players: []player{{"vip", "batch", 8}, {"p", "prod", 5}},
			want:    "p p p p p vip vip vip",
		},
		{
			name: "in a tree each is compared with what stands beside it",
			config: config{Roles: []roleConfig{
				{Name: "eng", Priority: is(2)}, {Name: "eng/web", Priority: is(5)}, {Name: "eng/lab", Priority: is(0)}, {Name: "ops/best", Priority: is(99)},
			}},
			players: []player{{"best", "ops/best", 8}, {"lab", "eng/lab", 1}, {"own", "eng", 2}, {"web", "eng/web", 3}},
			want:    "web web web own own lab best best",
		},
		{
			name:    "below its floor a role comes first",
			config:  config{Roles: []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Floor: 0.25}}},
			players: []player{{"b", "batch", 8}, {"p", "prod", 4}},
			want:    "b b p p p p b b",
		},
		{
			name:    "a floor without a taker is nobody's",
			config:  config{Roles: []roleConfig{{Name: "prod", Priority: is(10)}, {Name: "batch", Floor: 0.5}}},
			players: []player{{"b", "batch", 1}, {"p", "prod", 8}},
			want:    "b p p p p p p p",
		},
		{
			name: "of roles below their floors the higher comes first, and a high role may have one",
			config: config{Roles: []roleConfig{
				{Name: "prod", Priority: is(10), Floor: 0.125}, {Name: "mid", Priority: is(5), Floor: 0.25}, {Name: "low", Priority: is(1), Floor: 0.25},
			}},
			players: []player{{"l", "low", 8}, {"m", "mid", 8}, {"p", "prod", 2}},
			want:    "p m m l l p m m",
		},
		{
			name:    "a weight is a priority, and takes nothing off a floor",
			config:  config{Roles: []roleConfig{{Name: "low", Floor: 0.25}}},
			weights: map[string]uint64{"low": 2000, "high": 3000},
			players: []player{{"l", "low", 8}, {"h", "high", 8}},
			want:    "l l h h h h h h",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if ds := test.config.Validate(); len(ds) > 0 {
				t.Fatalf("the configuration is not valid: %v", ds)
			}
			w := newWorld(t, &test.config, test.weights)
			wants := map[string]int{}
			for _, p := range test.players {
				w.framework(p.id, p.role)
				wants[p.id] = p.wants
			}
			for i := range 8 {
				w.agent(fmt.Sprint("agent", i), "cpus:1;mem:64")
			}
			var got []string
			for range 50 {
				for _, o := range w.settle(nil) {
					if wants[o.Framework]--; wants[o.Framework] < 0 {
						w.decline(o, time.Hour)
						continue
					}
					got = append(got, o.Framework)
				}
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	}
}

// What an excluded resource brings counts for no floor.
func TestFloorOfExcludedResources(t *testing.T) {
	c := &config{Roles: []roleConfig{{Name: "lab", Priority: is(-1), Floor: 0.5}}, FairSharingExcluded: []string{"gpus"}}
	w := newWorld(t, c, nil)
	w.framework("l", "lab")
	w.framework("o", "other")
	w.agent("g", "cpus:1;gpus:8")
	w.settle(nil)
	for i := range 3 {
		w.agent(fmt.Sprint("c", i), "cpus:1")
	}
	if offers := w.settle(nil); len(offers) != 3 || offers[0].Framework != "l" || offers[1].Framework != "o" {
		t.Errorf("offers %v: want the lab served until it has half of the CPUs", offers)
	}
}

// scene is a random configuration and the roles of frameworks in it.
type scene struct {
	config  config
	weights map[string]uint64
	roleOf  map[string]string
}

func drawScene(t *rapid.T) scene {
	s := scene{weights: map[string]uint64{}, roleOf: map[string]string{}}
	roles := []string{"a", "b", "c", "a/x", "a/y", "b/x"}
	for _, role := range roles {
		if rapid.Bool().Draw(t, "has a weight") {
			s.weights[role] = rapid.SampledFrom([]uint64{500, 1000, 2000, 3000}).Draw(t, "weight")
		}
		if rapid.Bool().Draw(t, "has a block") {
			r := roleConfig{Name: role, Floor: rapid.SampledFrom([]float64{0, 0, 0.125, 0.25, 0.5}).Draw(t, "floor")}
			if rapid.Bool().Draw(t, "has a priority") {
				r.Priority = is(rapid.Int64Range(-1, 3).Draw(t, "priority"))
			}
			s.config.Roles = append(s.config.Roles, r)
		}
	}
	for i := range rapid.IntRange(2, 8).Draw(t, "frameworks") {
		id := fmt.Sprint("f", i)
		s.roleOf[id] = rapid.SampledFrom(roles).Draw(t, "role")
		if rapid.Bool().Draw(t, "framework has a block") {
			s.config.Frameworks = append(s.config.Frameworks, frameworkConfig{Name: id, Priority: rapid.Int64Range(0, 2).Draw(t, "priority")})
		}
	}
	return s
}

// standing is what the manual says of who comes first: a step of the way from
// the root to a framework. It is written without regard to the policy.
type standing struct {
	name       string // of the step, among those beside it
	belowFloor bool
	priority   float64
}

func (s scene) way(w *world, framework string) []standing {
	var out []standing
	role := s.roleOf[framework]
	for i := range len(role) + 1 {
		if i < len(role) && role[i] != '/' {
			continue
		}
		path := role[:i]
		step := standing{name: "role " + path, priority: 1}
		if weight, ok := s.weights[path]; ok {
			step.priority = float64(weight) / 1000
		}
		for _, r := range s.config.Roles {
			if r.Name != path {
				continue
			}
			if r.Priority != nil {
				step.priority = float64(*r.Priority)
			}
			step.belowFloor = share(w, path) < r.Floor
		}
		out = append(out, step)
	}
	own := standing{name: "framework " + framework, priority: 1}
	for _, f := range s.config.Frameworks {
		if f.Name == framework {
			own.priority = float64(f.Priority)
		}
	}
	return append(out, standing{name: "group", priority: 1}, own)
}

// share is a role's dominant share, and that of the roles in it.
func share(w *world, role string) float64 {
	var held resource.Resources
	for h, r := range w.held {
		if h.role == role || strings.HasPrefix(h.role, role+"/") {
			held = held.Add(r)
		}
	}
	most := 0.0
	for _, q := range w.total.Quantities() {
		most = max(most, float64(held.Quantities().Get(q.Name))/float64(q.Amount))
	}
	return most
}

// higher reports whether a comes strictly before b.
func higher(a, b []standing) bool {
	for i := range min(len(a), len(b)) {
		if a[i].name == b[i].name {
			continue
		}
		if a[i].belowFloor != b[i].belowFloor {
			return a[i].belowFloor
		}
		return a[i].priority > b[i].priority
	}
	return false
}

// A framework is never offered what one would take that comes before it.
func TestStrictness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawScene(t)
		w := newWorld(t, &s.config, s.weights)
		suppressed := map[string]bool{}
		for _, id := range slices.Sorted(maps.Keys(s.roleOf)) {
			w.framework(id, s.roleOf[id])
		}
		look := func(o *allocator.Offer) {
			for other, role := range s.roleOf {
				if other == o.Framework || suppressed[other] || w.filters[holder{o.Agent, other, role}] > w.now {
					continue
				}
				if higher(s.way(w, other), s.way(w, o.Framework)) {
					t.Fatalf("%s in %s got %v on %s, which %s in %s would take\n%+v\n%+v", o.Framework, o.Role, o.Resources, o.Agent, other, role,
						s.way(w, o.Framework), s.way(w, other))
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) {
				w.settle(look)
				for _, o := range w.settle(look) {
					t.Fatalf("%v came a batch late", o)
				}
			},
			"agents": func(t *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(t, "agents") {
					w.agent(fmt.Sprint("agent", len(w.agents)), rapid.SampledFrom([]string{"cpus:1;mem:64", "cpus:4;mem:64", "cpus:1;mem:1024"}).Draw(t, "size"))
				}
			},
			"release": func(t *rapid.T) {
				holders := slices.SortedFunc(maps.Keys(w.held), func(a, b holder) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
				if len(holders) == 0 {
					t.Skip("nobody holds anything")
				}
				for range rapid.IntRange(1, 3).Draw(t, "how many") {
					h := rapid.SampledFrom(holders).Draw(t, "whose")
					if !w.held[h].IsEmpty() {
						refuse := rapid.SampledFrom([]time.Duration{0, 8 * time.Millisecond, time.Hour}).Draw(t, "refuse")
						w.release(h, w.held[h], refuse, refuse > 0)
					}
				}
			},
			"suppress": func(t *rapid.T) {
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(s.roleOf))).Draw(t, "who")
				suppressed[id] = true
				w.tell(&allocator.Suppressed{Framework: id, Roles: []string{s.roleOf[id]}})
			},
			"revive": func(t *rapid.T) {
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(s.roleOf))).Draw(t, "who")
				suppressed[id] = false
				maps.DeleteFunc(w.filters, func(h holder, _ time.Duration) bool { return h.framework == id })
				w.tell(&allocator.Revived{Framework: id, Roles: []string{s.roleOf[id]}})
			},
		})
	})
}

// When all roles want all there is, each has its floor, rounded up to a whole
// agent, and the highest has all the rest.
func TestFloors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "agents")
		roles := rapid.IntRange(2, 5).Draw(t, "roles")
		var c config
		want, left := map[string]int{}, n
		for i := range roles {
			twentieths := rapid.IntRange(0, 6).Draw(t, "floor in twentieths")
			need := (n*twentieths + 19) / 20
			if need > left {
				twentieths, need = 0, 0
			}
			left -= need
			role := fmt.Sprint("role", i)
			want[role] = need
			c.Roles = append(c.Roles, roleConfig{Name: role, Priority: is(int64(i)), Floor: float64(twentieths) / 20})
		}
		top := fmt.Sprint("role", roles-1)
		want[top] += left
		weights := map[string]uint64{"role0": 3000, top: 7}
		w := newWorld(t, &c, weights)
		for i := range roles {
			w.framework(fmt.Sprint("f", i), fmt.Sprint("role", i))
		}
		// The agents are there before the first cycle.
		for i := range n {
			w.agent(fmt.Sprint("agent", i), "cpus:2;mem:100")
		}
		got := map[string]int{}
		for role := range want {
			got[role] = 0
		}
		for _, o := range w.settle(nil) {
			got[o.Role]++
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%d agents, %+v (-want +got):\n%s", n, c.Roles, diff)
		}
	})
}

// Ranks do not overlap: no weight or priority outranks a floor.
func TestExtremes(t *testing.T) {
	p := newPriority(&config{Roles: []roleConfig{
		{Name: "lowest", Priority: is(-maxPriority), Floor: 0.1}, {Name: "highest", Priority: is(maxPriority)},
	}})
	cluster := &allocator.Cluster{Names: []string{"cpus"}, Total: []int64{1000}}
	rank := func(role string, weight float64) int64 {
		return p.Rank(&allocator.Candidate{Role: role, Weight: weight}, cluster).Class
	}
	lowest, highest, heavy := rank("lowest", 1), rank("highest", 1), rank("heavy", 1e300)
	if lowest >= highest || highest != heavy {
		t.Errorf("classes: below its floor %d, the highest priority %d, the largest weight %d", lowest, highest, heavy)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		c := &allocator.Candidate{Role: "x", Weight: random.Float64() * 100, Held: []int64{random.Int64N(1000)}}
		if a, b := p.Rank(c, cluster), p.Rank(c, cluster); a != b {
			t.Fatalf("the rank of %+v is %v and %v", c, a, b)
		}
	}
}
