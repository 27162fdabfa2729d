package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// server is one mezzo process that has said that it serves.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	fields map[string]string
	stderr *syncBuffer
	ended  chan struct{}
}

// serve starts `mezzo ARGS…`, waits for its ready line, and stops it when the
// test ends. change, when not nil, may change the command before.
func serve(t *testing.T, change func(*exec.Cmd), args ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(filepath.Join(bin, "mezzo"), args...), stderr: &syncBuffer{}, ended: make(chan struct{})}
	s.cmd.Stderr = s.stderr
	if change != nil {
		change(s.cmd)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan map[string]string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if words := strings.Fields(lines.Text()); len(words) > 0 && words[0] == "ready" {
				fields := map[string]string{}
				for _, w := range words[1:] {
					k, v, _ := strings.Cut(w, "=")
					fields[k] = v
				}
				ready <- fields
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() { s.stop(syscall.SIGTERM) })
	select {
	case s.fields = <-ready:
	case <-s.ended:
		t.Fatalf("mezzo %v ended\n%s", args, s.stderr)
	case <-time.After(patience):
		t.Fatalf("mezzo %v was not ready\n%s", args, s.stderr)
	}
	return s
}

// stop ends it and waits. It may be called again.
func (s *server) stop(signal syscall.Signal) {
	s.t.Helper()
	select {
	case <-s.ended:
		return
	default:
	}
	_ = s.cmd.Process.Signal(signal)
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		s.t.Errorf("%v did not end on %s\n%s", s.cmd.Args, signal, s.stderr)
	}
	if s.t.Failed() {
		s.t.Logf("what %v logged:\n%s", s.cmd.Args, s.stderr)
	}
}

// mezzoAs runs one command line to its end. change, when not nil, may change
// the command before.
func mezzoAs(t *testing.T, change func(*exec.Cmd), args ...string) result {
	t.Helper()
	return runAs(t, change, filepath.Join(bin, "mezzo"), args...)
}

func runAs(t *testing.T, change func(*exec.Cmd), program string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A process that outlives the command must not keep the test waiting.
	cmd.WaitDelay = 5 * time.Second
	if change != nil {
		change(cmd)
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s %v: %v\nstdout: %s\nstderr: %s", program, args, err, stdout.String(), stderr.String())
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v did not end\nstdout: %s\nstderr: %s", program, args, stdout.String(), stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// keepFree has the kernel give the port of an address to nobody else while whoever
// had it is on its way back: a socket is bound there that does not listen, which
// is in nobody's way who asks for this very port. One that is in use is left
// alone.
func keepFree(t *testing.T, address string) {
	t.Helper()
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().Is4() {
		return // what is no such address: another field of a ready line
	}
	bind := func() (fd int, err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return 0, err
		}
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
		}
		if err != nil {
			unix.Close(fd)
		}
		return fd, err
	}
	for until := time.Now().Add(200 * time.Millisecond); ; time.Sleep(time.Millisecond) { // one that was killed may not have ended yet
		fd, err := bind()
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			return
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(until) {
			return
		}
	}
}

// processesNaming lists the living processes whose program or arguments lie
// below a directory.
func processesNaming(dir string) (found []string) {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		exe, _ := os.Readlink(filepath.Join(entry, "exe"))
		command, _ := os.ReadFile(filepath.Join(entry, "cmdline"))
		if strings.HasPrefix(exe, dir) || bytes.Contains(command, []byte(dir)) {
			found = append(found, fmt.Sprintf("%s %q", filepath.Base(entry), bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// ownPlugins copies the plugins, so that their processes and their changes are
// the test's own.
func ownPlugins(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(dir, "plugins")
	if err := os.Mkdir(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mezzo-allocator-drf", "mezzo-isolator-cgroups", "mezzo-framework-mesos", "mezzo-shim"} {
		text, err := os.ReadFile(filepath.Join(bin, "plugins", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// writeFile writes a file of the test.
func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
