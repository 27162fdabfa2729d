package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
)

// TestConformance: the suite that every isolator must pass, with tasks that have
// no image and see the host's files. What needs the plugin's process killed is
// checked in TestRestart here and by `mezzo plugin verify` in /test.
func TestConformance(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	// A process that is being tested has one plugin at a time, and each is given
	// a directory of its own; tasks are named anew in each.
	report, err := plugintest.Verify(t.Context(), func(ctx context.Context) (*plugintest.Plugin, error) {
		p := newPlugin()
		p.Shim, p.init = filepath.Join(programs, holder.ShimName), filepath.Join(programs, initName)
		config := string(settings(t, map[string]any{
			"address": daemon.Address, "namespace": daemon.Namespace, "root": daemon.Namespace, "default": true,
		}))
		opened, err := plugintest.Local(isolator.Plugin(p.definition(), p), config)(ctx)
		if err != nil {
			return nil, err
		}
		end := opened.Close
		opened.Close = func() {
			end()
			p.shutdown(context.Background())
			p.Reaped()
		}
		return opened, nil
	}, plugintest.Options{Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Outcome == plugintest.Failed {
			t.Errorf("%s: %s\n%s", c.Name, c.Rule, strings.Join(c.Evidence, "\n"))
		}
	}
	if n := report.Count(plugintest.Skipped); n != 3 {
		t.Errorf("%d checks are skipped, want host-death, recover and cold-cleanup", n)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + daemon.Namespace + "/*/"); len(groups) > 0 {
		t.Errorf("cgroups stay: %v", groups)
	}
	if entries, _ := os.ReadDir(filepath.Join("/run/containerd/io.containerd.runtime.v2.task", daemon.Namespace)); len(entries) > 0 {
		t.Errorf("bundles stay: %v", entries)
	}
}
