package engine_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// More examples of Ghodsi et al., whose allocations follow from equal weighted
// dominant shares: tasks of each user when nobody fits another.
func TestDRFAllocations(t *testing.T) {
	for _, test := range []struct {
		name    string
		agent   string
		weights map[string]uint64
		players []player
		counts  map[string]int
	}{
		{
			// 5.1, where asset fairness gives 6 and 12 tasks, and user 1 less than half.
			name:    "30 CPUs, 30 GB; <1, 3> and <1, 1>",
			agent:   "cpus:30;mem:30",
			players: []player{{"1", "*", "cpus:1;mem:3"}, {"2", "*", "cpus:1;mem:1"}},
			counts:  map[string]int{"1": 5, "2": 15},
		},
		{
			// 5.3, where CEEI gives other shares: here both get two thirds, 41.7
			// and 333.3 tasks; 41 and 328 are level, and 16 CPUs are left for the first.
			name:    "1,000 CPUs, 1,000 GB; <16, 1> and <1, 2>",
			agent:   "cpus:1000;mem:1000",
			players: []player{{"1", "*", "cpus:16;mem:1"}, {"2", "*", "cpus:1;mem:2"}},
			counts:  map[string]int{"1": 42, "2": 328},
		},
		{
			name:    "weights 1 and 2: x/45 = y/60 and x + 3y = 90",
			agent:   "cpus:90;mem:180",
			weights: map[string]uint64{"a": 1000, "b": 2000},
			players: []player{{"1", "a", "cpus:1;mem:4"}, {"2", "b", "cpus:3;mem:1"}},
			counts:  map[string]int{"1": 18, "2": 24},
		},
		{
			name:    "weights 3 and 1 in a role, and 1 beside it",
			agent:   "cpus:80",
			weights: map[string]uint64{"a": 1000, "a/x": 3000, "a/y": 1000, "b": 1000},
			players: []player{{"1", "a/x", "cpus:1"}, {"2", "a/y", "cpus:1"}, {"3", "b", "cpus:1"}},
			counts:  map[string]int{"1": 30, "2": 10, "3": 40},
		},
		{
			// Shares of 2/3 are equal when the CPUs are out; then the third goes on.
			name:    "three resources, progressive filling to the end",
			agent:   "cpus:60;mem:60;disk:30",
			players: []player{{"1", "*", "cpus:1"}, {"2", "*", "cpus:1;disk:1"}, {"3", "*", "mem:1"}},
			counts:  map[string]int{"1": 40, "2": 20, "3": 60},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := pool(t)
			for role, weight := range test.weights {
				w.tell(&allocator.RoleUpdated{Name: role, Weight: weight})
			}
			for _, p := range test.players {
				w.framework(p.id, p.role)
			}
			w.agent("agent", test.agent)
			if diff := cmp.Diff(test.counts, counts(fill(w, test.players))); diff != "" {
				t.Errorf("tasks (-want +got):\n%s", diff)
			}
		})
	}
}

// pool is a world in which the smallest scalar is worth an offer.
func pool(t testing.TB) *world {
	begin := defaults()
	begin.MinAllocatable = []resource.Quantities{{{Name: "cpus", Amount: 1}}, {{Name: "mem", Amount: 1}}, {{Name: "disk", Amount: 1}}}
	return newWorld(t, begin, &engine.DominantShare{})
}

var poolNames = []string{"cpus", "mem", "disk"}

func scalars(amounts []int64) (text string) {
	for i, n := range amounts {
		if n > 0 {
			text += fmt.Sprintf(";%s:%d", poolNames[i], n)
		}
	}
	return text[1:]
}

// exhausted is whether tasks have taken all there is, to the last.
func exhausted(total []int64, demands [][]int64, tasks []int) bool {
	for k, left := range total {
		for i, n := range tasks {
			left -= demands[i][k] * int64(n)
		}
		if left > 0 {
			return false
		}
	}
	return true
}

// divide gives each user tasks of its demand until one of them fits no more,
// which is where all stop when tasks can be divided: every user demands some of
// every resource. With toTheEnd it goes on until nobody fits. It returns how
// many tasks each got.
func divide(t testing.TB, total []int64, demands [][]int64, toTheEnd bool) []int {
	w := pool(t)
	for i := range demands {
		w.framework(fmt.Sprint(i), "*")
	}
	w.agent("agent", scalars(total))
	got, out := make([]int, len(demands)), 0
	for idle := 0; out < len(demands) && !exhausted(total, demands, got); idle++ {
		if idle == 1000 {
			t.Fatalf("total %v, demands %v: nothing was offered for %v; the users have %v tasks, and %d of them were offered too little", total, demands, 1000*w.begin.BatchInterval, got, out)
		}
		for _, o := range w.settle() {
			var i int
			if _, err := fmt.Sscan(o.Framework, &i); err != nil {
				t.Fatal(err)
			}
			if task := w.parse(scalars(demands[i])); o.Resources.Contains(task) {
				w.accept(o, task)
				got[i]++
				idle = 0
				continue
			}
			if out++; !toTheEnd {
				return got
			}
			w.decline(o, 24*time.Hour)
		}
	}
	return got
}

// users are random demands on a random cluster; a task is at most a
// thirtieth of it.
func users(t *rapid.T) (total []int64, demands [][]int64) {
	for _, name := range poolNames {
		total = append(total, rapid.Int64Range(120, 300).Draw(t, name))
	}
	for range rapid.IntRange(2, 5).Draw(t, "users") {
		var d []int64
		for range total {
			d = append(d, rapid.Int64Range(1, 4).Draw(t, "demand"))
		}
		demands = append(demands, d)
	}
	return total, demands
}

// share is the dominant share of n tasks.
func share(total, demand []int64, n float64) (s float64) {
	for r := range total {
		s = max(s, n*float64(demand[r])/float64(total[r]))
	}
	return s
}

// useful is how many tasks of a demand fit in n tasks of another.
func useful(demand, other []int64, n int) float64 {
	fit := math.Inf(1)
	for r := range demand {
		fit = min(fit, float64(other[r])*float64(n)/float64(demand[r]))
	}
	return fit
}

func largestTask(total []int64, demands [][]int64) (s float64) {
	for _, d := range demands {
		s = max(s, share(total, d, 1))
	}
	return s
}

// Nobody has less than its part of the cluster would give it.
func TestSharingIncentive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total, demands := users(rt)
		task := largestTask(total, demands)
		for i, n := range divide(t, total, demands, false) {
			if s := share(total, demands[i], float64(n)); s < 1/float64(len(demands))-task {
				rt.Fatalf("total %v, demands %v: user %d has the dominant share %v, less than 1/%d by more than a task (%v)", total, demands, i, s, len(demands), task)
			}
		}
	})
}

// Nobody would rather have what another has.
func TestEnvyFreeness(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total, demands := users(rt)
		got := divide(t, total, demands, false)
		for i := range demands {
			for j := range demands {
				mine := share(total, demands[i], float64(got[i]))
				theirs := share(total, demands[i], useful(demands[i], demands[j], got[j]))
				if theirs > mine+share(total, demands[j], 1)+1e-9 {
					rt.Fatalf("total %v, demands %v, tasks %v: user %d envies %d by more than one of its tasks", total, demands, got, i, j)
				}
			}
		}
	})
}

// Nobody can have another task without taking from somebody.
func TestParetoEfficiency(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total, demands := users(rt)
		got := divide(t, total, demands, true)
		for i, d := range demands {
			fits := true
			for r := range total {
				used := int64(0)
				for j, n := range got {
					used += demands[j][r] * int64(n)
				}
				fits = fits && used+d[r] <= total[r]
			}
			if fits {
				rt.Fatalf("total %v, demands %v, tasks %v: another of user %d fits", total, demands, got, i)
			}
		}
	})
}

// Nobody gains by asking for what it does not need.
func TestStrategyProofness(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total, demands := users(rt)
		honest := divide(t, total, demands, false)
		need := demands[0]
		lie := make([]int64, len(need))
		for r := range lie {
			lie[r] = rapid.Int64Range(1, 8).Draw(rt, "lie")
		}
		demands[0] = lie
		lying := divide(t, total, demands, false)
		// Both may be off by a task of each.
		task := largestTask(total, append(demands, need))
		gain := share(total, need, useful(need, lie, lying[0])-float64(honest[0]))
		if useful(need, lie, lying[0]) > float64(honest[0]) && gain > 2*task {
			rt.Fatalf("total %v, demands %v: user 0 needs %v, and gains a share of %v by its lie; a task is %v", total, demands, need, gain, task)
		}
	})
}

// Of one resource everybody gets what it wants or an equal part of what the
// others leave: max-min fairness.
func TestMaxMin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		total := rapid.IntRange(1, 100).Draw(rt, "total")
		want := make([]int, rapid.IntRange(1, 8).Draw(rt, "users"))
		w := pool(t)
		for i := range want {
			want[i] = rapid.IntRange(0, 40).Draw(rt, "want")
			if want[i] > 0 {
				w.framework(fmt.Sprint(i), "*")
			}
		}
		w.agent("agent", fmt.Sprint("cpus:", total))
		got := make([]int, len(want))
		one := w.parse("cpus:1")
		rounds := 0
		for offers := w.settle(); len(offers) > 0; offers = w.settle() {
			if rounds++; rounds > 10*total+100 {
				rt.Fatalf("total %d, wants %v: %d rounds of offers, and no end", total, want, rounds)
			}
			for _, o := range offers {
				var i int
				if _, err := fmt.Sscan(o.Framework, &i); err != nil {
					rt.Fatal(err)
				}
				if w.accept(o, one); got[i] < want[i] {
					got[i]++
				}
				if got[i] == want[i] {
					w.tell(&allocator.Suppressed{Framework: o.Framework, Roles: []string{"*"}})
				}
			}
		}
		// Water: one level for all, but for those who want less.
		level, left := 0, total
		for left > 0 {
			poured := 0
			for i := range want {
				if want[i] > level {
					poured++
				}
			}
			if poured == 0 || poured > left {
				break
			}
			left, level = left-poured, level+1
		}
		for i := range want {
			least := min(want[i], level)
			if got[i] != least && (got[i] != least+1 || got[i] > want[i]) {
				rt.Fatalf("total %d, wants %v: got %v, want %d each at most, and one more for %d of them", total, want, got, level, left)
			}
		}
	})
}

// reserved is the reference for quota: users of one resource, each in a role of
// its own, take a task in turn. Those whose guarantee is unmet come first; then
// whoever has least. Nobody exceeds its limit, or takes what is kept for
// guarantees.
func reserved(total int64, demand, guarantee, limit []int64) []int64 {
	held, out := make([]int64, len(demand)), make([]bool, len(demand))
	free := total
	for {
		kept := int64(0)
		for i := range held {
			kept += max(0, guarantee[i]-held[i])
		}
		best := -1
		for i := range held {
			if out[i] {
				continue
			}
			lacks, first := held[i] < guarantee[i], best >= 0 && held[best] < guarantee[best]
			if best < 0 || lacks && !first || lacks == first && held[i] < held[best] {
				best = i
			}
		}
		if best < 0 {
			return held
		}
		room := min(free, max(0, free-kept)+max(0, guarantee[best]-held[best]), limit[best]-held[best])
		if demand[best] > room {
			out[best] = true
			continue
		}
		held[best] += demand[best]
		free -= demand[best]
	}
}

// Under guarantees and limits the engine gives what the reference does, within
// a task of each.
func TestReferenceQuota(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(rt, "users")
		total := rapid.Int64Range(40, 120).Draw(rt, "total")
		demand, guarantee, limit := make([]int64, n), make([]int64, n), make([]int64, n)
		w := pool(t)
		players := make([]player, n)
		largest := int64(0)
		for i := range n {
			demand[i] = rapid.Int64Range(1, 4).Draw(rt, "demand")
			largest = max(largest, demand[i])
			guarantee[i] = rapid.Int64Range(0, 40).Draw(rt, "guarantee")
			limit[i] = max(guarantee[i], rapid.Int64Range(0, total).Draw(rt, "limit"))
			role := fmt.Sprint("r", i)
			players[i] = player{fmt.Sprint("f", i), role, fmt.Sprint("cpus:", demand[i])}
			w.tell(&allocator.RoleUpdated{Name: role,
				Guarantee: resource.Quantities{{Name: "cpus", Amount: resource.Scalar(guarantee[i]) * resource.Unit}},
				Limit:     resource.Quantities{{Name: "cpus", Amount: resource.Scalar(limit[i]) * resource.Unit}}})
			w.framework(players[i].id, role)
		}
		w.agent("agent", fmt.Sprint("cpus:", total))
		got := counts(fill(w, players))
		for i, want := range reserved(total, demand, guarantee, limit) {
			if have := int64(got[players[i].id]) * demand[i]; have < want-2*largest || have > want+2*largest {
				rt.Fatalf("total %d, demands %v, guarantees %v, limits %v: role %d has %d CPUs, the reference %d", total, demand, guarantee, limit, i, have, want)
			}
		}
	})
}
