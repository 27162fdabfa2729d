package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The contract is not Go's: a cluster runs on an allocator in Node, which knows
// nothing of go-plugin and of Mezzo's SDK.
func TestAllocatorInNode(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(tempDir(t), "allocator-node")
	installNodeExample(t, dir)
	program := filepath.Join(dir, "mezzo-allocator-node")
	if r := mezzo(t, nil, "plugin", "inspect", program); r.code != 0 || !strings.Contains(r.stdout, "fair_sharing_excluded") {
		t.Fatalf("inspect: %+v", r)
	}
	if r := mezzo(t, nil, "plugin", "verify", program, "--patience", "1m"); r.code != 0 || !strings.Contains(r.stdout, " 0 failed, 6 skipped") { // of metrics, too, which it does not serve
		t.Errorf("verify: exit %d, stderr %s\n%s", r.code, r.stderr, r.stdout)
	}
	config := filepath.Join(filepath.Dir(dir), "dev.hcl")
	write := func(excluded string) {
		t.Helper()
		text := fmt.Sprintf("allocator \"node\" {\n  path = %q\n  config {\n    fair_sharing_excluded = [%q]\n  }\n}\n", program, excluded)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(" ")
	if r := mezzo(t, nil, "config", "check", config); r.code == 0 || !strings.Contains(r.stdout+r.stderr, "empty resource name") {
		t.Errorf("config check: %+v, want its own complaint", r)
	}
	write("gpus")
	c := startDev(t, "--config", config)
	hello := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if out, err := exec.CommandContext(ctx, filepath.Join(bin, "scheduler-hello"), "--tasks", "20", "--masters", c.fields["rpc"]).CombinedOutput(); err != nil {
			t.Fatalf("scheduler-hello: %v\n%s", err, out)
		}
	}
	hello()
	pid := func() int {
		p := c.plugin("allocator/node")
		if p["state"] != "healthy" {
			return 0
		}
		number, _ := p["pid"].(float64)
		return int(number)
	}
	first := pid()
	if first == 0 {
		t.Fatalf("the allocator: %v", c.plugin("allocator/node"))
	}
	refusesStrangers(t, first)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var second int
	eventually(t, "the allocator to be back", func() bool {
		second = pid()
		return second != 0 && second != first
	})
	hello()
	master := childPid(t, c, "master")
	if err := syscall.Kill(master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the allocator to end with its host", func() bool { return !alive(second) })
}

// refusesStrangers is that a plugin's sockets serve nobody without the host's
// certificate.
func refusesStrangers(t *testing.T, pid int) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]bool{}
	for _, link := range links {
		target, _ := os.Readlink(link)
		own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
	}
	// That of its own network: a thread of this process may be in another.
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
	if err != nil {
		t.Fatal(err)
	}
	const listening = "00010000" // flags: the socket accepts connections
	tried := 0
	for line := range strings.Lines(string(table)) {
		words := strings.Fields(line)
		if len(words) != 8 || words[3] != listening || !own[words[6]] {
			continue
		}
		tried++
		plain, err := net.Dial("unix", words[7])
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		// With TLS 1.3 the server's refusal comes after the handshake.
		if _, err = conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("a stranger on %s: %v, want that TLS refuses it", words[7], err)
		}
		conn.Close()
	}
	if tried == 0 {
		t.Errorf("process %d has no socket to try\n%s", pid, table)
	}
}

// installNodeExample copies the example with the contracts and installs what it
// depends on.
func installNodeExample(t *testing.T, dir string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			lacking(t, "%v", err)
		}
	}
	copyTree(t, "../sdk/examples/allocator-node", dir)
	copyTree(t, "../sdk/proto", filepath.Join(dir, "proto"))
	for _, args := range [][]string{{"ci", "--ignore-scripts", "--no-audit", "--no-fund"}, {"test"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		cmd := exec.CommandContext(ctx, "npm", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil && args[0] == "ci" {
			lacking(t, "npm ci: %v\n%s", err, out)
		}
		if err != nil {
			t.Fatalf("npm %v: %v\n%s", args, err, out)
		}
	}
}

// lacking skips a test that this machine cannot run; in CI it fails.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// copyTree copies a folder, without what npm has installed, so that only the
// owner may write it.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "node_modules" {
			return fs.SkipDir
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, info.Mode().Perm()&^0o022)
	})
	if err != nil {
		t.Fatal(err)
	}
}
