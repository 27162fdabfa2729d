package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// patience bounds every wait of these tests; nothing waits that long when all
// is well.
const patience = 30 * time.Second

// rig is a host with a plugin directory, and what it is told.
type rig struct {
	t       *testing.T
	host    *Host
	dataDir string
	bin     string // the test plugin
	log     *syncBuffer

	ups      chan *Generation
	downs    chan error
	statuses chan Status
}

func newRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	// Not t.TempDir for the data: its names are too long for sockets, and that
	// has a test of its own.
	dataDir, err := os.MkdirTemp("", "ph")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, dataDir: dataDir, log: &syncBuffer{},
		ups: make(chan *Generation, 100), downs: make(chan error, 100), statuses: make(chan Status, 1000),
	}
	r.bin = r.install("mezzo-allocator-test")
	options := Options{
		DataDir: dataDir,
		Logger: hclog.New(&hclog.LoggerOptions{
			Output: io.MultiWriter(r.log, testWriter{t}), Level: hclog.Debug, DisableTime: true, IndependentLevels: true,
		}),
		StartTimeout: patience, ConfigureTimeout: patience, ShutdownGrace: patience,
		PingTimeout: patience, BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond,
	}
	for _, f := range change {
		f(&options)
	}
	if r.host, err = New(options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// close checks that nothing is left: no socket, no process.
func (r *rig) close() {
	pids := []int{}
	for _, s := range r.host.Status() {
		pids = append(pids, s.PID)
	}
	if err := r.host.Close(context.Background()); err != nil {
		r.t.Errorf("close: %v", err)
	}
	for _, pid := range pids {
		if pid != 0 && unix.Kill(pid, 0) == nil {
			r.t.Errorf("process %d is left", pid)
		}
	}
	r.wantNoSockets(r.dataDir)
	os.RemoveAll(r.dataDir)
}

func (r *rig) wantNoSockets(dataDir string) {
	r.t.Helper()
	entries, _ := os.ReadDir(filepath.Join(dataDir, "run"))
	for _, e := range entries {
		if e.Name() != "lock" {
			r.t.Errorf("socket directory %s is left", e.Name())
		}
	}
}

// install puts the test binary into the plugin directory under a name.
func (r *rig) install(name string) string {
	r.t.Helper()
	dir := filepath.Join(r.dataDir, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if os.Link(self, path) == nil {
		return path
	}
	data, err := os.ReadFile(self)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(path, data, 0o755)
	return path
}

func (r *rig) write(path string, data []byte, mode os.FileMode) {
	r.t.Helper()
	if err := os.WriteFile(path, data, mode); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		r.t.Fatal(err)
	}
}

// spec is of the test plugin in a mode, configured by JSON.
func (r *rig) spec(mode, config string) Spec {
	return Spec{
		Kind: plugin.Allocator, Name: "test", Path: r.bin, Env: map[string]string{modeEnv: mode, "GORACE": "atexit_sleep_ms=0"}, // race builds linger a second
		Configure: constant(config),
		OnUp:      func(_ context.Context, g *Generation) { r.ups <- g },
		OnDown:    func(_ *Generation, err error) { r.downs <- err },
		OnStatus: func(s Status) {
			select {
			case r.statuses <- s:
			default: // a crash loop says more than anybody reads
			}
		},
	}
}

func (r *rig) start(spec Spec) *Instance {
	r.t.Helper()
	i, err := r.host.Start(r.context(), spec)
	if err != nil {
		r.t.Fatalf("start: %v", err)
	}
	return i
}

// startError is the error of a start that must fail.
func (r *rig) startError(spec Spec) *Error {
	r.t.Helper()
	_, err := r.host.Start(r.context(), spec)
	var e *Error
	if !errors.As(err, &e) {
		r.t.Fatalf("start: error %v (%T), want a *Error", err, err)
	}
	if left := r.host.Instances(); len(left) > 0 {
		r.t.Errorf("a failed start left an instance")
	}
	r.wantNoSockets(r.dataDir)
	return e
}

func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) up() *Generation {
	r.t.Helper()
	return receive(r.t, r.ups, "OnUp")
}

func (r *rig) down() error {
	r.t.Helper()
	return receive(r.t, r.downs, "OnDown")
}

// status waits for a status that is wanted.
func (r *rig) status(what string, wanted func(Status) bool) Status {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case s := <-r.statuses:
			if wanted(s) {
				return s
			}
		case <-deadline:
			r.t.Fatalf("no status: %s", what)
		}
	}
}

func (r *rig) do(g *Generation, command string) string {
	r.t.Helper()
	out, err := do(r.context(), g.Conn, command)
	if err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
	return out
}

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// wantText checks that a text holds all parts, in order.
func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Errorf("text lacks %q in its place:\n%s", part, text)
			return
		}
		rest = after
	}
}

// awaitDeath waits for a process that is not a child of this one.
func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatalf("pidfd of %d: %v", pid, err)
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if n > 0 {
			return
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatalf("poll: %v", err)
		}
	}
	t.Fatalf("process %d lives on", pid)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
