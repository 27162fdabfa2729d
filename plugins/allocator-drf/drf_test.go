package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

func TestConfigure(t *testing.T) {
	for _, test := range []struct {
		name, config string
		want         []string
	}{
		{"nothing", `{}`, nil},
		{"some", `{"fair_sharing_excluded": ["gpus", "disk"]}`, nil},
		{"empty name", `{"fair_sharing_excluded": ["gpus", " "]}`, []string{"fair_sharing_excluded.1: empty resource name"}},
		{"preempt", `{"preempt": {"after": 120000000000, "grace_period": 30000000000}}`, nil},
		{"preempt always", `{"preempt": {"after": 0, "grace_period": -1}}`, []string{"preempt.after: after must be more than 0", "preempt.grace_period: grace_period must not be negative"}},
		{"twice", `{"fair_sharing_excluded": ["gpus", "gpus"]}`, []string{"fair_sharing_excluded.1: resource named twice"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			local, err := plugin.StartLocal(definition().Plugin(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer local.Close()
			answer, err := pluginv1.NewPluginClient(local.Conn).Configure(t.Context(), &pluginv1.ConfigureRequest{Config: []byte(test.config), ContractVersion: 1})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range answer.GetDiagnostics() {
				got = append(got, strings.Join(d.GetPath(), ".")+": "+d.GetSummary())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("diagnostics (-want +got):\n%s", diff)
			}
		})
	}
}

// A share is of what counts: an excluded resource makes nobody rich.
func TestExcludedResourcesDoNotCount(t *testing.T) {
	cluster := &allocator.Cluster{Names: []string{"cpus", "gpus"}, Total: []int64{10_000, 1_000}}
	rich := &allocator.Candidate{Weight: 1, Held: []int64{1_000, 1_000}}
	for _, test := range []struct {
		config config
		want   float64
	}{
		{config{}, 1},
		{config{FairSharingExcluded: []string{"gpus"}}, 0.1},
	} {
		policy, _ := definition().NewPolicy(&test.config)
		if got := policy.Rank(rich, cluster).Share; got != test.want {
			t.Errorf("excluding %v: share %v, want %v", test.config.FairSharingExcluded, got, test.want)
		}
	}
}
