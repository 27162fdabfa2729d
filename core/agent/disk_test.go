package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/mezzo-os/mezzo/core/agent/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestDiskOfSandboxes(t *testing.T) {
	w := &workDir{root: t.TempDir()}
	who, err := lookupUser("")
	if err != nil {
		t.Fatal(err)
	}
	const sandbox = "agents/A1/frameworks/F1/executors/e1/runs/c1"
	if _, err := w.make(&state.Plan{Sandbox: sandbox}, who); err != nil {
		t.Fatal(err)
	}
	dir := w.path(sandbox)
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	// Neither a second name nor a link to somewhere else takes any room.
	if err := os.Link(filepath.Join(dir, "big"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var limited []string
	list := []state.ContainerView{
		{ID: "c1", Sandbox: sandbox, Resources: resource.MustParse("cpus:1;disk:0.5").ToProto()},
		{ID: "nested", Parent: "c1", Sandbox: sandbox + "/containers/x", Resources: resource.MustParse("disk:0.1").ToProto()},
		{ID: "free", Sandbox: sandbox, Resources: resource.MustParse("cpus:1").ToProto()},
		{ID: "ample", Sandbox: sandbox, Resources: resource.MustParse("disk:64").ToProto()},
		{ID: "gone", Sandbox: "agents/A1/frameworks/F1/executors/e1/runs/gone", Resources: resource.MustParse("disk:0.1").ToProto()},
	}
	d := &diskWatch{
		work: w, list: func(context.Context) ([]state.ContainerView, error) { return list, nil },
		post: func(_ context.Context, in state.Input) {
			l := in.(state.Limited).Limitation
			if l.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LIMITATION_DISK {
				t.Errorf("the reason is %v", l.GetReason())
			}
			limited = append(limited, l.GetContainer())
		},
	}
	d.measure(context.Background())
	if len(limited) > 0 {
		t.Errorf("nobody asked to enforce anything, and %v were limited", limited)
	}
	d.enforce = true
	d.measure(context.Background())
	if len(limited) != 1 || limited[0] != "c1" {
		t.Errorf("limited are %v, want c1 alone", limited)
	}
	s := &mezzov1.ResourceStatistics{}
	d.fill(list[0], s)
	if used := s.GetDiskUsedBytes(); used < 1<<20 || used > 1<<20+64<<10 {
		t.Errorf("the sandbox takes %d bytes, want a little over 1 MiB", used)
	}
	if s.GetDiskLimitBytes() != 512<<10 {
		t.Errorf("the limit is %d", s.GetDiskLimitBytes())
	}
}
