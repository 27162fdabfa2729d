package metric

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mezzo-os/mezzo/core/authorization"
	"github.com/mezzo-os/mezzo/core/rpc"
)

func TestDenials(t *testing.T) {
	policy, err := authorization.Compile(false, []authorization.Rule{{Name: "r", Principals: []string{"ann"}, Actions: []string{"view_cluster"}}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := NewDenials(policy, hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug}))
	registry := prometheus.NewRegistry()
	d.Register(registry)
	ask := func(name string, action rpc.Action) error {
		return d.Authorize(t.Context(), rpc.Principal{Name: name}, action, rpc.Object{})
	}
	if err := ask("ann", rpc.ViewCluster); err != nil {
		t.Error(err)
	}
	for _, action := range []rpc.Action{rpc.ViewCluster, rpc.ViewCluster, "fly", "flee"} {
		if ask("bob", action) == nil {
			t.Errorf("bob may %s", action)
		}
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	got := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		if n := m.GetCounter().GetValue(); n > 0 {
			got[m.GetLabel()[0].GetValue()] = n
		}
	}
	if diff := cmp.Diff(map[string]float64{"view_cluster": 2, "other": 2}, got); diff != "" {
		t.Errorf("what was denied (-want +got):\n%s", diff)
	}
	if n := len(families[0].GetMetric()); n != len(authorization.Actions)+1 {
		t.Errorf("%d actions are counted", n)
	}
	if n := strings.Count(log.String(), `\"bob\" may not`); n != 4 {
		t.Errorf("%d lines of denials:\n%s", n, &log)
	}
}
