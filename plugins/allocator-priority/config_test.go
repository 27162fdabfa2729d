package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

func TestConfigure(t *testing.T) {
	for _, test := range []struct {
		name, config string
		want         []string
	}{
		{"nothing", `{}`, nil},
		{"all", `{
			"role": [{"name": "prod", "priority": 10, "floor": 0}, {"name": "a", "floor": 0.5}, {"name": "a/b", "floor": 0.5}],
			"framework": [{"name": "billing", "priority": -5}],
			"fair_sharing_excluded": ["gpus"]
		}`, nil},
		{"twice", `{"role": [{"name": "a"}, {"name": "a"}], "framework": [{"name": "f", "priority": 1}, {"name": "f", "priority": 2}]}`,
			[]string{"error role.1: role named twice", "error framework.1: framework named twice"}},
		{"no names", `{"role": [{"name": ""}], "framework": [{"name": "", "priority": 1}], "fair_sharing_excluded": [""]}`,
			[]string{"error role.0: empty role name", "error framework.0: empty framework name", "error fair_sharing_excluded.0: empty resource name"}},
		{"out of range", `{"role": [{"name": "a", "priority": 1000001, "floor": 1.5}, {"name": "b", "floor": -1}], "framework": [{"name": "f", "priority": -1000001}]}`,
			[]string{"error role.0.priority: priority out of range", "error role.0.floor: no share of a cluster", "error role.1.floor: no share of a cluster", "error framework.0.priority: priority out of range"}},
		{"more than all", `{"role": [{"name": "a", "floor": 0.7}, {"name": "b", "floor": 0.3}, {"name": "c", "floor": 0.1}, {"name": "d", "floor": 0.1}]}`,
			[]string{"warning role.2.floor: more floor than cluster"}},
		{"more than the role above", `{"role": [{"name": "a", "floor": 0.2}, {"name": "a/b", "floor": 0.2}, {"name": "a/c", "floor": 0.1}, {"name": "d/e", "floor": 0.1}]}`,
			[]string{"warning role.2.floor: floor above that of the role above", "warning role.3.floor: floor above that of the role above"}},
		{"not decodable", `{"framework": [{"name": "f"}]}`, []string{"error framework.0.priority: invalid value"}},
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
				severity := strings.ToLower(strings.TrimPrefix(d.GetSeverity().String(), "SEVERITY_"))
				got = append(got, severity+" "+strings.Join(d.GetPath(), ".")+": "+d.GetSummary())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("diagnostics (-want +got):\n%s", diff)
			}
		})
	}
}
