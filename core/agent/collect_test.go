package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/core/agent/state"
)

// yard is a work directory with sandboxes of several ages, and its collector.
type yard struct {
	t    *testing.T
	g    *collector
	live map[string]bool
	now  time.Time
	used float64
}

func newYard(t *testing.T) *yard {
	y := &yard{t: t, live: map[string]bool{}, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	y.g = &collector{
		work: &workDir{root: filepath.Join(t.TempDir(), "work")}, delay: 100 * time.Hour, headroom: 0.1,
		live:   func(context.Context) (map[string]bool, error) { return y.live, nil },
		used:   func(string) (float64, error) { return y.used, nil },
		mounts: func() ([]string, error) { return nil, nil },
		now:    func() time.Time { return y.now }, logger: hclog.NewNullLogger(), metrics: newMetrics(&Agent{}),
	}
	return y
}

// sandbox makes one that ended so long ago.
func (y *yard) sandbox(framework, executor, run string, ago time.Duration) string {
	y.t.Helper()
	base := "agents/A1/frameworks/" + framework + "/executors/" + executor + "/runs/"
	who, err := lookupUser("")
	if err != nil {
		y.t.Fatal(err)
	}
	if _, err := y.g.work.make(&state.Plan{Sandbox: base + run, Latest: base + "latest"}, who); err != nil {
		y.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(y.g.work.path(base+run), "stdout"), []byte("x"), 0o600); err != nil {
		y.t.Fatal(err)
	}
	if err := y.g.work.ended(base+run, y.now.Add(-ago)); err != nil {
		y.t.Fatal(err)
	}
	return base + run
}

func (y *yard) sweep(want ...string) {
	y.t.Helper()
	if err := y.g.sweep(context.Background()); err != nil {
		y.t.Error(err)
	}
	var left []string
	_ = filepath.Walk(y.g.work.root, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Name() == "stdout" {
			left = append(left, filepath.Base(filepath.Dir(p)))
		}
		return nil
	})
	slices.Sort(left)
	if !slices.Equal(left, want) {
		y.t.Errorf("left are %v, want %v", left, want)
	}
}

func TestSandboxesAreCollected(t *testing.T) {
	y := newYard(t)
	y.sweep() // nothing was ever made
	old := y.sandbox("F1", "e1", "c1", 91*time.Hour)
	y.sandbox("F1", "e1", "c2", 89*time.Hour)
	y.sandbox("F1", "e2", "c3", 30*time.Hour)
	running := y.sandbox("F2", "e3", "c4", 500*time.Hour)
	y.live[running] = true
	y.sweep("c2", "c3", "c4") // 100 h × (1 − 0.1)
	if _, err := os.Lstat(y.g.work.path(filepath.Dir(old) + "/latest")); err != nil {
		t.Errorf("the link to the newest run was removed with an older one: %v", err)
	}
	y.used = 0.5
	y.sweep("c3", "c4") // 100 h × (1 − 0.1 − 0.5)
	y.now = y.now.Add(10*time.Hour + time.Second)
	y.sweep("c4")
	y.sandbox("F1", "e2", "c5", time.Second)
	y.sweep("c4", "c5")
	y.used = 0.95 // hardly any disk is left: all that has ended goes
	y.sweep("c4")
	if _, err := os.Stat(y.g.work.path("agents/A1/frameworks/F1")); !os.IsNotExist(err) {
		t.Errorf("the directories of a framework without sandboxes are left: %v", err)
	}
	if _, err := os.Stat(y.g.work.path(running)); err != nil {
		t.Errorf("a running container lost its sandbox: %v", err)
	}
}

// TestMountedSandboxIsKept: what is mounted in a sandbox is somebody's data.
func TestMountedSandboxIsKept(t *testing.T) {
	y := newYard(t)
	run := y.sandbox("F1", "e1", "c1", 500*time.Hour)
	y.g.mounts = func() ([]string, error) { return []string{"/", y.g.work.path(run) + "/data"}, nil }
	if err := y.g.sweep(context.Background()); err == nil || !strings.Contains(err.Error(), "still mounted") {
		t.Errorf("the answer is %v", err)
	}
	if _, err := os.Stat(y.g.work.path(run)); err != nil {
		t.Error(err)
	}
}

func TestMountPoints(t *testing.T) {
	list, err := mountPoints()
	if err != nil || !slices.Contains(list, "/proc") {
		t.Errorf("%v, %v", list, err)
	}
	if got := unescapeMount(`/a\040b\134c`); got != `/a b\c` {
		t.Errorf("%q", got)
	}
}
