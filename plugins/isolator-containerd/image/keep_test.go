package image_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
)

// TestCollect: what nobody has used for long goes, and what was unused longest
// when the disk is full; never what is held or pinned.
func TestCollect(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil)
	for i, n := range []string{"a", "b", "c", "pin", "held"} {
		app := containerdtest.Busybox()
		app.Files = map[string]string{"/n": fmt.Sprint(i)}
		r.Push(t, n, "1", app)
	}
	config := open(r.Host)
	config.KeepFor, config.DiskHigh, config.Pinned = time.Hour, 80, []string{r.Host + "/pin:1"}
	b := newBench(t, config)
	full := func(n string) string { return r.Host + "/" + n + ":1" }
	for _, n := range []string{"c", "pin", "a", "b"} {
		b.provide(n, full(n))
		if err := b.Release(b.ctx(), n); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Minute)
	}
	b.usable(b.provide("holder", full("held")), "holder")
	b.disk = 0.9
	b.pass(30 * time.Minute)
	b.provide("c", full("c")) // used again
	if err := b.Release(b.ctx(), "c"); err != nil {
		t.Fatal(err)
	}
	b.disk = 0.8
	if got := b.collect(); len(got) != 0 {
		t.Errorf("removed %v, want nothing", got)
	}
	b.pass(29 * time.Minute)
	if got := b.collect(); !slices.Equal(got, []string{full("a")}) {
		t.Errorf("removed %v, want what nobody has used for an hour", got)
	}
	b.disk = 0.81
	if got := b.collect(); !slices.Equal(got, []string{full("b"), full("c")}) {
		t.Errorf("removed %v, want what was unused longest first", got)
	}
	b.pass(1000 * time.Hour)
	if got := b.collect(); len(got) != 0 {
		t.Errorf("removed %v, which is held or pinned", got)
	}
	if err := b.Remove(b.ctx(), full("held")); !errors.Is(err, image.ErrInUse) {
		t.Errorf("remove what is held: %v", err)
	}
	if err := b.Remove(b.ctx(), "no/such"); !errdefs.IsNotFound(err) {
		t.Errorf("remove what is not there: %v", err)
	}
	// Somebody who goes past us takes the name; the content stays for the holder.
	if err := b.client.ImageService().Delete(b.ctx(), full("held")); err != nil {
		t.Fatal(err)
	}
	snapshots := 0
	if err := b.client.SnapshotService("overlayfs").Walk(b.ctx(), func(context.Context, snapshotInfo) error { snapshots++; return nil }); err != nil || snapshots < 3 {
		t.Errorf("%d snapshots, want those of the held image: %v", snapshots, err)
	}
	if err := b.Remove(b.ctx(), full("pin")); err != nil {
		t.Errorf("remove what is pinned: %v", err)
	}
	if got := b.names(); len(got) != 0 {
		t.Errorf("images: %v", got)
	}
}

// TestImport: archives of both forms, compressed or not, with their names or a
// given one; broken ones leave nothing.
func TestImport(t *testing.T) {
	containerdtest.Require(t)
	b := newBench(t, image.Config{KeepFor: time.Hour})
	one, two := containerdtest.Busybox("mezzo.test/one:1", "busybox:2"), containerdtest.Busybox()
	two.Files = map[string]string{"/two": "2"}
	three := two
	three.Files = map[string]string{"/three": "3"}
	oci, docker, nameless := read(t, one.WriteOCI(t)), read(t, one.WriteDocker(t)), read(t, two.WriteOCI(t))
	load := func(content []byte, name string) ([]image.Info, error) {
		return b.Import(b.ctx(), strings.NewReader(string(content)), name)
	}
	for form, content := range map[string][]byte{"oci": oci, "docker": docker, "gzip": gzipped(t, oci)} {
		list, err := load(content, "")
		if err != nil || len(list) != 2 || list[0].Name != "docker.io/library/busybox:2" || list[1].Name != "mezzo.test/one:1" || !list[0].Pinned || list[0].Bytes < 1<<20 {
			t.Errorf("%s: %+v %v", form, list, err)
		}
	}
	if list, err := load(nameless, "own:1"); err != nil || len(list) != 1 || list[0].Name != "docker.io/library/own:1" {
		t.Errorf("a name of the operator's: %+v %v", list, err)
	}
	b.usable(b.provide("c1", "own:1"), "c1")
	before := b.names()
	for why, x := range map[string]struct {
		content []byte
		name    string
		word    string
	}{
		"without a name":   {nameless, "", "name"},
		"a malformed name": {nameless, "Not A Name", "Not A Name"},
		"a digest":         {nameless, "x@sha256:" + strings.Repeat("0", 64), "digest"},
		"cut off":          {oci[:len(oci)/2], "", "archive"},
		"no archive":       {[]byte(strings.Repeat("nonsense ", 1000)), "", "archive"},
		"nothing":          {nil, "", "archive"},
		"a layer missing":  {without(t, read(t, three.WriteOCI(t)), three.Build(t).Layers[1].Digest.Encoded()), "new:1", "lacks"},
		"another platform": {read(t, foreign().WriteOCI(t)), "", "platform"},
	} {
		if list, err := load(x.content, x.name); err == nil || !strings.Contains(err.Error(), x.word) || image.Transient(err) {
			t.Errorf("%s: %v %v; want an error with %q", why, list, err, x.word)
		}
	}
	broken := errors.New("the sender went away")
	if _, err := b.Import(b.ctx(), io.MultiReader(strings.NewReader(string(oci[:1<<20])), failing{broken}), ""); !errors.Is(err, broken) {
		t.Errorf("a sender that goes away: %v", err)
	}
	if after := b.names(); !slices.Equal(before, after) {
		t.Errorf("images %v, before %v", after, before)
	}
	b.pass(1000 * time.Hour)
	if got := b.collect(); len(got) != 0 {
		t.Errorf("removed %v, which were imported", got)
	}
}

// TestTaskArchive: a task's own archive is an image for it alone, under no name
// of anybody else's.
func TestTaskArchive(t *testing.T) {
	containerdtest.Require(t)
	b := newBench(t, image.Config{KeepFor: time.Hour})
	genuine := containerdtest.Busybox("busybox:latest")
	if _, err := b.Import(b.ctx(), strings.NewReader(string(read(t, genuine.WriteOCI(t)))), ""); err != nil {
		t.Fatal(err)
	}
	evil := containerdtest.Busybox("docker.io/library/busybox:latest")
	evil.Config.Cmd = []string{"evil"}
	seen := 0
	i, err := b.Provide(b.ctx(), "c1", image.Want{Reference: "file:///srv/x.tar", Archive: evil.WriteDocker(t)}, func(p image.Progress) {
		seen++
		if !strings.Contains(p.String(), "file:///srv/x.tar") {
			t.Errorf("progress: %s", p)
		}
	})
	if err != nil || i.Config.Cmd[0] != "evil" || seen == 0 {
		t.Fatalf("the task's own: %v %v", i, err)
	}
	b.usable(i, "c1")
	if again, err := b.Image(b.ctx(), "c1"); err != nil || again.Config.Cmd[0] != "evil" {
		t.Errorf("the task's own, again: %v %v", again, err)
	}
	if i := b.provide("c2", "busybox"); i.Config.Cmd[0] == "evil" {
		t.Error("a task's archive took another image's name")
	}
	b.refused(image.Want{Reference: "file:x", Archive: filepath.Join(t.TempDir(), "none")}, "file:x", "no such file")
	b.refused(image.Want{Reference: "file:x", Archive: "relative"}, "absolute")
	nonsense := filepath.Join(t.TempDir(), "nonsense")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.refused(image.Want{Reference: "file:x", Archive: nonsense}, "file:x", "no archive")
	if err := b.Release(b.ctx(), "c1"); err != nil {
		t.Fatal(err)
	}
	b.pass(2 * time.Hour)
	if got := b.collect(); len(got) != 1 || !strings.Contains(got[0], "@sha256:") {
		t.Errorf("removed %v, want the task's archive", got)
	}
}

// TestFill: a volume has what the image has there, with its owners, and nothing
// that gives rights on the host; it is made once.
func TestFill(t *testing.T) {
	containerdtest.Require(t)
	b := newBench(t, image.Config{})
	app := containerdtest.Busybox("app:1")
	app.Files = map[string]string{"/data/seed": "seed", "/data/deep/er": "er", "/data/suid": "x", "/other": "a file"}
	app.Modes = map[string]int64{"/data/suid": 0o6755, "/data/deep/er": 0o600}
	if _, err := b.Import(b.ctx(), strings.NewReader(string(read(t, app.WriteOCI(t)))), ""); err != nil {
		t.Fatal(err)
	}
	i := b.provide("c1", "app:1")
	dir, outer := t.TempDir(), t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	volumes := map[string]string{"/data": "v/0", "/home/worker": "v/1", "/bin": "v/2", "/missing": "v/3", "/other": "v/4"}
	for range 2 {
		if err := b.Fill(b.ctx(), "c1", i, root, volumes); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"v/0": "drwxr-xr-x 0", "v/0/seed": "-rw-r--r-- 0", "v/0/deep/er": "-rw------- 0", "v/0/suid": "-rwxr-xr-x 0", "v/1": "drwxr-xr-x 1234", "v/2/sh": "Lrwxrwxrwx 0"} {
		info, err := root.Lstat(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprint(info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if text := string(read(t, filepath.Join(dir, "v/0/deep/er"))); text != "er" {
		t.Errorf("content %q", text)
	}
	for _, name := range []string{"v/3", "v/4"} {
		if _, err := root.Lstat(name); !os.IsNotExist(err) {
			t.Errorf("%s was made, of what the image does not have: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "v/0/seed"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Fill(b.ctx(), "c1", i, root, volumes); err != nil || string(read(t, filepath.Join(dir, "v/0/seed"))) != "changed" {
		t.Errorf("what is there was filled again: %v", err)
	}
	if err := os.Symlink(outer, filepath.Join(dir, "trap")); err != nil {
		t.Fatal(err)
	}
	if err := b.Fill(b.ctx(), "c1", i, root, map[string]string{"/data": "trap/0"}); err == nil {
		t.Error("a link led out of the sandbox")
	}
	if left, _ := os.ReadDir(outer); len(left) > 0 {
		t.Errorf("written outside: %v", left)
	}
	if err := b.client.SnapshotService("overlayfs").Walk(b.ctx(), func(_ context.Context, s snapshotInfo) error {
		if strings.Contains(s.Name, "volumes") {
			t.Errorf("snapshot %s is left", s.Name)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
