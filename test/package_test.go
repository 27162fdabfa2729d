package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDebianPackage builds the package, unpacks it, and runs a cluster from what
// is in it, with the configuration that is in it.
func TestDebianPackage(t *testing.T) {
	t.Parallel()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	for _, tool := range []string{"dpkg-deb", "systemd-analyze"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacking(t, "no %s: %v", tool, err)
		}
	}
	dir := tempDir(t)
	run("../packaging/build-deb", "1.2.3~test", bin, dir)
	found, err := filepath.Glob(filepath.Join(dir, "mezzo_1.2.3~test_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the packages are %v, %v", found, err)
	}
	if version := run("dpkg-deb", "-f", found[0], "Version"); version != "1.2.3~test\n" {
		t.Errorf("its version is %q", version)
	}
	root, control := filepath.Join(dir, "root"), filepath.Join(dir, "control")
	run("dpkg-deb", "-x", found[0], root)
	run("dpkg-deb", "-e", found[0], control)
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run("sh", "-n", filepath.Join(control, script))
	}

	for _, path := range []string{"man/man1/mezzo.1.gz", "man/man1/mezzo-agent-drain.1.gz", "bash-completion/completions/mezzo", "zsh/vendor-completions/_mezzo", "fish/vendor_completions.d/mezzo.fish"} {
		if info, err := os.Stat(filepath.Join(root, "usr/share", path)); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty: %v", path, err)
		}
	}

	// The host refuses plugins that others may write.
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 || path == root {
			return err
		}
		info, err := d.Info()
		if err == nil && (info.Mode().Perm()&0o022 != 0 || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Getuid())) {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	// Where the machine's own paths are named, those of the tree take their place.
	place := strings.NewReplacer(`["127.0.0.1:5061"]`, `["127.0.0.1:1"]`, "/usr/lib/mezzo", root+"/usr/lib/mezzo", "/usr/bin/mezzo", root+"/usr/bin/mezzo", "/var/lib", dir+"/var/lib",
		"127.0.0.1:5060", "127.0.0.1:0", "127.0.0.1:5061", "127.0.0.1:0", "127.0.0.1:5062", "127.0.0.1:0", "127.0.0.1:5063", "127.0.0.1:0",
		`framework "mesos" {}`, "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}", "User=mezzo", "User=daemon", "Group=mezzo", "Group=daemon")
	rewrite := func(path string) string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(changed, []byte(place.Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
		return changed
	}
	for _, unit := range []string{"mezzo-master.service", "mezzo-agent.service"} {
		if said := run("systemd-analyze", "--man=no", "verify", rewrite(filepath.Join(root, "lib/systemd/system", unit))); strings.Contains(said, unit) {
			t.Errorf("systemd says of %s: %s", unit, said)
		}
	}
	master, agent := rewrite(filepath.Join(root, "etc/mezzo/master.hcl")), rewrite(filepath.Join(root, "etc/mezzo/agent.hcl"))
	packaged := func(cmd *exec.Cmd) { cmd.Path = filepath.Join(root, "usr/bin/mezzo") }
	m := serve(t, packaged, "master", "--config", master)
	serve(t, packaged, "agent", "--config", agent, "--master", m.fields["rpc"], "--end-tasks")
	if r := mezzo(t, []string{"MEZZO_ADDRESS=" + m.fields["rpc"]}, "run", "--", "echo", "packaged"); r.stdout != "packaged\n" || r.code != 0 {
		t.Errorf("a task: %+v", r)
	}
}
