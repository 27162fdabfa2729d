package engine_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
)

// seen notes whom the engine asks about.
type seen map[string]float64

func (s seen) Rank(c *engine.Candidate, _ *engine.Cluster) engine.Rank {
	what := "role"
	switch {
	case c.Group:
		what = "group"
	case c.Framework != "":
		what = "framework " + c.Framework + " called " + c.Name
	}
	s[what+" in "+c.Role] = c.Weight
	return engine.Rank{}
}

// A policy can tell a role, the group of its own frameworks, and a framework
// apart, and knows the whole path of each.
func TestPolicyIsAskedAboutRolesGroupsAndFrameworks(t *testing.T) {
	policy := seen{}
	w := newWorld(t, defaults(), policy)
	w.framework("f", "eng/web")
	w.agent("a", "cpus:1")
	if offers := w.settle(); len(offers) != 1 {
		t.Fatalf("%d offers, want 1", len(offers))
	}
	want := seen{"role in eng": 1, "role in eng/web": 1, "group in eng/web": 1, "framework f called f in eng/web": 1}
	if diff := cmp.Diff(want, policy); diff != "" {
		t.Errorf("asked about (-want +got):\n%s", diff)
	}
}
