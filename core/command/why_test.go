package command

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/explain"
	"github.com/mezzo-os/mezzo/core/master/state"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var rewriteWhy = flag.Bool("rewrite-why", false, "write the expected texts of mezzo why anew")

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// wondering are facts of a cluster of three agents and two frameworks, in which
// nothing stands against offers.
func wondering() explain.Facts {
	f := explain.Facts{
		Now: noon,
		Framework: &state.FrameworkView{
			ID: "m-0001", State: state.FrameworkActive, Roles: []string{"eng/web"}, Tasks: 1,
			Info: &mezzov1.FrameworkInfo{Name: proto.String("spark"), FailoverTimeout: proto.Float64(600)},
			Used: resource.MustParse("cpus:1;mem:512").Quantities(),
		},
		Names: map[string]string{"m-0001": "spark", "m-0002": "batch"},
		Roles: []*state.RoleView{
			{Name: "eng/web", Weight: 1000, Frameworks: []string{"m-0001"}, Consumed: resource.MustParse("cpus:1;mem:512").Quantities()},
			{Name: "ops", Weight: 1000, Frameworks: []string{"m-0002"}},
		},
		Known: state.Explanation{AllocatorReady: true},
		Allocator: &allocatorv1.ExplainResponse{Known: true, Roles: []*allocatorv1.RoleExplanation{{
			Role: "eng/web", Summary: "3 of 3 agents can be offered; the framework is number 2 of 2 in the order of service",
			FrameworkShare: 83_333, RoleShare: 83_333, Position: 2, Positions: 2,
			Reasons: []*allocatorv1.ReasonCount{{Reason: "an offer is on its way, or others come first", Agents: 3}},
			Agents: []*allocatorv1.AgentExplanation{
				{AgentId: "m-S0", Reason: "an offer is on its way, or others come first"},
				{AgentId: "m-S1", Reason: "the agent is left alone for a moment after a refused decision", RemainingMs: 700},
			},
		}}},
	}
	for i, host := range []string{"alpha", "beta", "gamma"} {
		f.Agents = append(f.Agents, &state.AgentView{
			ID: "m-S" + string(rune('0'+i)), Hostname: host, State: state.AgentActive, Total: resource.MustParse("cpus:4;mem:4096"),
		})
	}
	f.Agents[0].Used = resource.MustParse("cpus:1;mem:512")
	return f
}

func offered(f *explain.Facts, agent int, framework, role, res string, age time.Duration) {
	a := f.Agents[agent]
	a.Offered = a.Offered.Add(resource.MustParse(res))
	f.Offers = append(f.Offers, &state.OfferView{
		ID: "m-O" + string(rune('0'+len(f.Offers))), FrameworkID: framework, AgentID: a.ID, Hostname: a.Hostname, Role: role,
		Resources: resource.MustParse(res), Created: noon.Add(-age),
	})
}

func declined(f *explain.Facts, agent int, res string, left time.Duration, soft bool) {
	f.Known.Filters = append(f.Known.Filters, state.FilterView{
		AgentID: f.Agents[agent].ID, Role: "eng/web", Resources: resource.MustParse(res), Remaining: left, Soft: soft,
	})
}

// TestWhy has a text for each thing that can stand against offers. With
// -rewrite-why the texts are written anew.
func TestWhy(t *testing.T) {
	for name, change := range map[string]func(*explain.Facts){
		"nothing": func(*explain.Facts) {},
		"completed": func(f *explain.Facts) {
			f.Framework.State, f.Framework.Unregistered = state.FrameworkCompleted, noon.Add(-3*time.Hour)
			f.Framework.Used, f.Framework.Tasks = nil, 0
		},
		"disconnected": func(f *explain.Facts) {
			f.Framework.State, f.Framework.Disconnected = state.FrameworkDisconnected, noon.Add(-125*time.Second)
			f.Allocator.Roles[0].Summary = "no scheduler of the framework is connected"
		},
		"suppressed": func(f *explain.Facts) {
			f.Framework.Suppressed = []string{"eng/web"}
			f.Allocator.Roles[0].Suppressed = true
		},
		"allocator_down": func(f *explain.Facts) {
			f.Known.AllocatorReady, f.Allocator, f.AllocatorError = false, nil, "the allocator is not running"
		},
		"allocator_silent": func(f *explain.Facts) {
			f.Allocator, f.AllocatorError = nil, "this allocator does not explain its decisions"
		},
		"no_agents": func(f *explain.Facts) { f.Agents = nil },
		"agents_inactive": func(f *explain.Facts) {
			f.Agents[0].State, f.Agents[0].Reason = state.AgentDisconnected, "its link is closed"
			f.Agents[1].State, f.Agents[1].Reason = state.AgentWithheld, "isolator cgroups is unhealthy: no controllers"
			f.Agents[2].State = state.AgentUnreachable
		},
		"agents_awaited": func(f *explain.Facts) {
			f.Agents[2].State, f.Agents[2].Awaited = state.AgentDisconnected, true
		},
		"unanswered": func(f *explain.Facts) {
			f.Framework.Offers, f.OfferTimeout = 2, 5*time.Minute
			offered(f, 0, "m-0001", "eng/web", "cpus:3;mem:3584", 40*time.Second)
			offered(f, 1, "m-0001", "eng/web", "cpus:4;mem:4096", 3*time.Minute)
		},
		"limit": func(f *explain.Facts) {
			f.Roles = append(f.Roles, &state.RoleView{
				Name: "eng", Limit: resource.Quantities{{Name: "cpus", Amount: 3000}, {Name: "gpus", Amount: 0}},
				Consumed: resource.MustParse("cpus:3;mem:1024").Quantities(),
			})
			f.Known.Holders = []state.Holder{
				{Limited: "eng", FrameworkID: "m-0001", Role: "eng/web", Held: resource.MustParse("cpus:1").Quantities()},
				{Limited: "eng", FrameworkID: "m-0002", Role: "eng/batch", Held: resource.MustParse("cpus:2").Quantities()},
			}
		},
		"headroom": func(f *explain.Facts) {
			f.Roles[1].Guarantee = resource.MustParse("cpus:12").Quantities()
			f.Roles[1].Consumed = resource.MustParse("cpus:1").Quantities()
			f.Allocator.Roles[0].Summary = "on 3 of 3 agents the role's quota limit is reached, or the rest is kept for other roles' guarantees"
		},
		"filtered": func(f *explain.Facts) {
			declined(f, 0, "cpus:4;mem:4096", time.Hour, false)
			declined(f, 1, "cpus:4;mem:4096", 4*time.Minute, false)
			declined(f, 2, "cpus:1;mem:4096", time.Hour, false) // more is free by now
		},
		"just_declined": func(f *explain.Facts) {
			for i := range f.Agents {
				declined(f, i, "cpus:4;mem:4096", 400*time.Millisecond, true)
			}
		},
		"offered_elsewhere": func(f *explain.Facts) {
			offered(f, 0, "m-0002", "ops", "cpus:3;mem:3584", 3*time.Minute)
			offered(f, 1, "m-0002", "ops", "cpus:4;mem:4096", time.Second)
			offered(f, 2, "m-0002", "ops", "cpus:4;mem:4096", time.Second)
		},
		"full": func(f *explain.Facts) {
			for _, a := range f.Agents {
				a.Used = a.Total
			}
		},
		"nearly_full": func(f *explain.Facts) {
			f.Agents[0].Used = resource.MustParse("cpus:4;mem:4080")
			f.Agents[1].Used = resource.MustParse("cpus:4;mem:4096")
			f.Agents[2].Used = resource.MustParse("cpus:3.5;mem:4000")
			declined(f, 2, "cpus:1;mem:100", time.Minute, false)
		},
		"several_per_agent": func(f *explain.Facts) {
			f.PerAgent = true
			f.Agents[0].Used = f.Agents[0].Total
			declined(f, 2, "cpus:4;mem:4096", 90*time.Second, false)
		},
		"cut_by_limit": func(f *explain.Facts) {
			f.Roles[0].Limit = resource.Quantities{{Name: "cpus", Amount: 3000}, {Name: "mem", Amount: 64_000_000}}
			for i := range f.Agents {
				declined(f, i, "cpus:2;mem:4096", 4*time.Second, false)
			}
		},
		"held_back_and_full": func(f *explain.Facts) {
			f.Roles[1].Guarantee = resource.MustParse("cpus:12").Quantities()
			for _, a := range f.Agents {
				a.Used = resource.MustParse("cpus:3.995;mem:4080")
			}
		},
		"too_small_for_it": func(f *explain.Facts) {
			f.Allocator.Roles[0].MinAllocatable = sets("cpus", 4000, "gpus", 2000)
		},
		"too_small_and_silent": func(f *explain.Facts) {
			f.Allocator, f.AllocatorError = nil, "this allocator does not explain its decisions"
			f.Framework.Info.OfferFilters = map[string]*mezzov1.OfferFilters{"eng/web": {
				MinAllocatableResources: &mezzov1.OfferFilters_MinAllocatableResources{Quantities: []*mezzov1.OfferFilters_ResourceQuantities{
					{Quantities: map[string]*mezzov1.Value_Scalar{"cpus": {Value: proto.Float64(5)}}},
				}},
			}}
		},
		"requested": func(f *explain.Facts) {
			f.Allocator.Roles[0].Requested = append(sets("cpus", 2000), sets("cpus", 6000, "mem", 8_000_000)...)
		},
		"starved": func(f *explain.Facts) {
			f.Allocator.Roles[0].StarvedMs, f.Allocator.Roles[0].RevokeMs = 80_000, 40_000
		},
		"starved_in_vain": func(f *explain.Facts) { f.Allocator.Roles[0].StarvedMs = 500_000 },
		"revoking": func(f *explain.Facts) {
			f.Allocator.Roles[0].StarvedMs, f.Allocator.Roles[0].Revoking = 130_000, 2
			for _, a := range f.Agents {
				a.Used = a.Total
			}
		},
		"two_roles": func(f *explain.Facts) {
			f.Framework.Roles, f.Framework.Suppressed = []string{"eng/web", "ops"}, []string{"ops"}
			for i := range f.Agents {
				declined(f, i, "cpus:4;mem:4096", time.Hour, false)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			facts := wondering()
			change(&facts)
			answer := explain.Explain(facts)
			answer.Framework = &operatorv1.Framework{
				Id: facts.Framework.ID, Name: "spark", State: string(facts.Framework.State), Tasks: uint64(facts.Framework.Tasks),
				Offers: uint64(facts.Framework.Offers),
			}
			if len(facts.Framework.Used) > 0 {
				answer.Framework.Allocated = mustQuota(t, "cpus:1;mem:512")
			}
			var out bytes.Buffer
			if err := writeWhy(&out, answer); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "why", name+".txt")
			if *rewriteWhy {
				if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

// sets is one set of amounts in thousandths, by name.
func sets(amounts ...any) []*allocatorv1.NamedQuantities {
	out := &allocatorv1.NamedQuantities{}
	for i := 0; i < len(amounts); i += 2 {
		out.Names = append(out.Names, amounts[i].(string))
		out.Thousandths = append(out.Thousandths, int64(amounts[i+1].(int)))
	}
	return []*allocatorv1.NamedQuantities{out}
}
