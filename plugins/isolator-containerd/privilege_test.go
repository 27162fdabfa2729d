package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// TestAppArmor: which profile a container has follows from the isolators before,
// the task, the operator and the host, in this order.
func TestAppArmor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		absent            bool // the host has none
		load              error
		given, task, node string
		want, refused     string
		code              codes.Code
	}{
		"the default":                 {want: defaultProfile},
		"the operator's":              {node: "strict", want: "strict"},
		"the task's":                  {node: "strict", task: "apparmor=own", want: "own"},
		"with a colon":                {task: "apparmor:own", want: "own"},
		"none, by the operator":       {node: unconfined},
		"none, by the task":           {node: "strict", task: "apparmor=unconfined"},
		"an isolator's before":        {given: "before", task: "apparmor=own", node: "strict", want: "before"},
		"no AppArmor":                 {absent: true, node: "strict"},
		"no AppArmor, and asked":      {absent: true, task: "apparmor=own", refused: "asks for AppArmor profile own, and this agent's host has no AppArmor", code: codes.InvalidArgument},
		"no AppArmor, and not wanted": {absent: true, task: "apparmor=unconfined"},
		"a default that does not load": {load: errors.New("no parser"), refused: "the default AppArmor profile cannot be loaded: no parser; set apparmor_profile",
			code: codes.FailedPrecondition},
	} {
		p := newPlugin()
		p.config.AppArmor = c.node
		p.armour = armour{present: !c.absent, load: func(profile string) error {
			if profile != defaultProfile {
				t.Errorf("%s: profile %s is loaded", name, profile)
			}
			return c.load
		}}
		task := &isolatorv1.Task{Options: &isolatorv1.Options{}}
		if c.task != "" {
			task.Options.Security = []string{c.task}
		}
		b := &builder{plug: p, task: task, given: &specs.Spec{Process: &specs.Process{ApparmorProfile: c.given}}, spec: &specs.Spec{Process: &specs.Process{ApparmorProfile: c.given}}}
		err := b.confine()
		if status.Code(err) != c.code || c.refused != "" && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v, want %v %s", name, err, c.code, c.refused)
		}
		if got := b.spec.Process.ApparmorProfile; got != c.want {
			t.Errorf("%s: profile %q, want %q", name, got, c.want)
		}
		if got, want := p.unarmoured(task) != "", c.code == codes.InvalidArgument; got != want {
			t.Errorf("%s: refused when it is claimed: %v, want %v", name, got, want)
		}
	}
}

// TestNoAppArmor: that the operator's profile has no effect on this host is said
// when the plugin starts.
func TestNoAppArmor(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	p := newPlugin()
	p.Shim, p.init, p.armour = n.p.Shim, n.p.init, armour{}
	local, err := plugin.StartLocal(isolator.Plugin(p.definition(), p), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		p.Close()
		local.Close()
		p.shutdown(n.ctx())
	}()
	r, err := pluginv1.NewPluginClient(local.Conn).Configure(n.ctx(), &pluginv1.ConfigureRequest{
		Config:          settings(t, map[string]any{"address": n.daemon.Address, "namespace": n.daemon.Namespace, "root": n.daemon.Namespace, "apparmor_profile": "strict"}),
		ContractVersion: 1, DataDir: t.TempDir(),
	})
	if err != nil || len(r.GetDiagnostics()) != 1 {
		t.Fatal(r, err)
	}
	if d := r.GetDiagnostics()[0]; d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING || d.GetSummary() != "no AppArmor" || d.GetPath()[0] != "apparmor_profile" {
		t.Errorf("%v", d)
	}
}
