package state

import (
	"testing"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// TestLaunchesAll: the tasks of a group go where all of them can be launched,
// and where that is nowhere, each where it can.
func TestLaunchesAll(t *testing.T) {
	const none, launch = isolatorv1.ClaimResponse_CLAIM_NONE, isolatorv1.ClaimResponse_CLAIM_LAUNCH
	both := func(cgroups, containerd isolatorv1.ClaimResponse_Claim) []Claim {
		return []Claim{{Isolator: "cgroups", Claim: cgroups}, {Isolator: "containerd", Claim: containerd}}
	}
	for _, c := range []struct {
		name   string
		claims [][]Claim
		want   string
	}{
		{"a root, and tasks with images", [][]Claim{both(launch, launch), both(none, launch), both(none, launch)}, "containerd"},
		{"a root, and tasks without", [][]Claim{both(launch, launch), both(launch, none)}, "cgroups"},
		{"what both would have", [][]Claim{both(launch, launch), both(launch, launch)}, "cgroups"},
		{"what nobody would have whole", [][]Claim{both(launch, launch), both(none, launch), both(launch, none)}, ""},
		{"nothing", nil, ""},
	} {
		if got := launchesAll(c.claims); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
