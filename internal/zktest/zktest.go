// Package zktest runs ZooKeeper for tests: Debian's, as processes of their own
// on loopback, one member or three, that can be killed, stopped and continued.
//
//	ensemble := zktest.Start(t, zktest.Options{Members: 3})
//	ensemble.Member(ensemble.Leader()).Kill()
//
// Packages with many tests share one: see Shared. Each test then works below a
// path of its own.
package zktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	jar = "/usr/share/java/zookeeper.jar"

	// patience is for machines that are busy with other tests.
	patience = 90 * time.Second
	poll     = 20 * time.Millisecond
	attempts = 4
)

// Options of an ensemble.
type Options struct {
	// Members is how many; 0: one.
	Members int
	// Tick is ZooKeeper's unit of time; 0: 250 ms. A session lasts two ticks at
	// least, and ends up to one too late.
	Tick time.Duration
	// Sync has every write reach the disk, as in production.
	Sync bool
	// Hosts are the members' addresses; none: all are on loopback.
	Hosts []string
	// Place, when not nil, may change the command of a member before it starts.
	Place func(member int, cmd *exec.Cmd)
}

// Ensemble is a number of ZooKeeper servers.
type Ensemble struct {
	options Options
	dir     string
	members []*Member
}

// Member is one server, which runs, is stopped, or is dead.
type Member struct {
	ensemble *Ensemble
	id       int // from 1
	address  string
	dir      string

	mu     sync.Mutex
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

// Start starts an ensemble and waits until it serves. It ends with the test.
func Start(t testing.TB, o Options) *Ensemble {
	t.Helper()
	if o.Members == 0 {
		o.Members = 1
	}
	if o.Tick == 0 {
		o.Tick = 250 * time.Millisecond
	}
	var last error
	for range attempts {
		e, err := start(o)
		if err == nil {
			t.Cleanup(e.Close)
			return e
		}
		last = err // a port that was free may have been taken
	}
	t.Fatalf("ZooKeeper does not start: %v", last)
	return nil
}

func start(o Options) (*Ensemble, error) {
	if _, err := os.Stat(jar); err != nil {
		return nil, fmt.Errorf("%w; install Debian's package zookeeper, as .ci/deps does", err)
	}
	dir, err := os.MkdirTemp("", "zktest")
	if err != nil {
		return nil, err
	}
	e := &Ensemble{options: o, dir: dir}
	ports, err := freePorts(3 * o.Members)
	if err != nil {
		e.Close()
		return nil, err
	}
	for i := range o.Members {
		m := &Member{ensemble: e, id: i + 1, dir: filepath.Join(dir, strconv.Itoa(i+1)), address: fmt.Sprintf("%s:%d", e.host(i), ports[3*i])}
		e.members = append(e.members, m)
		if err := m.write(ports); err != nil {
			e.Close()
			return nil, err
		}
	}
	for _, m := range e.members {
		if err := m.start(); err != nil {
			e.Close()
			return nil, err
		}
	}
	for _, m := range e.members {
		if err := m.serves(); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// host is a member's address.
func (e *Ensemble) host(member int) string {
	if len(e.options.Hosts) == 0 {
		return "127.0.0.1"
	}
	return e.options.Hosts[member]
}

// freePorts finds ports that are free now, and that the kernel gives nobody who
// does not ask for them: a member that is killed finds its own again.
func freePorts(n int) (ports []int, err error) {
	const lowest = 10_000
	var first int // of those that the kernel gives
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Sscan(string(text), &first); err != nil {
		return nil, fmt.Errorf("the range of ports %q: %w", text, err)
	}
	for tries := 0; len(ports) < n; tries++ {
		port := 0
		if first > 2*lowest && tries < 1000 {
			port = lowest + rand.IntN(first-lowest)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		switch {
		case err == nil:
			defer l.Close() // when all are found: none is found twice
			ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		case port == 0:
			return nil, err
		}
	}
	return ports, nil
}

// write writes the configuration of a member.
func (m *Member) write(ports []int) error {
	o := m.ensemble.options
	if err := os.MkdirAll(filepath.Join(m.dir, "data"), 0o700); err != nil {
		return err
	}
	var cfg strings.Builder
	host, port, _ := net.SplitHostPort(m.address)
	fmt.Fprintf(&cfg, "tickTime=%d\ndataDir=%s\nclientPort=%s\nclientPortAddress=%s\n", o.Tick.Milliseconds(), filepath.Join(m.dir, "data"), port, host)
	cfg.WriteString("admin.enableServer=false\n4lw.commands.whitelist=*\nmaxSessionTimeout=60000\nmaxClientCnxns=0\n")
	if o.Members > 1 {
		cfg.WriteString("initLimit=80\nsyncLimit=40\n")
		for i := range o.Members {
			fmt.Fprintf(&cfg, "server.%d=%s:%d:%d\n", i+1, m.ensemble.host(i), ports[3*i+1], ports[3*i+2])
		}
	}
	const log4j = "log4j.rootLogger=WARN, E\nlog4j.appender.E=org.apache.log4j.ConsoleAppender\nlog4j.appender.E.Target=System.err\n" +
		"log4j.appender.E.layout=org.apache.log4j.PatternLayout\nlog4j.appender.E.layout.ConversionPattern=%d %p %m%n\n"
	return errors.Join(
		os.WriteFile(filepath.Join(m.dir, "zoo.cfg"), []byte(cfg.String()), 0o600),
		os.WriteFile(filepath.Join(m.dir, "log4j.properties"), []byte(log4j), 0o600),
		os.WriteFile(filepath.Join(m.dir, "data", "myid"), []byte(strconv.Itoa(m.id)), 0o600))
}

func (m *Member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	args := []string{"-Xmx192m", "-Xms32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", m.dir + ":" + jar,
		"-Dlog4j.configuration=file:" + filepath.Join(m.dir, "log4j.properties")}
	if !m.ensemble.options.Sync {
		args = append(args, "-Dzookeeper.forceSync=no")
	}
	cmd := exec.Command("java", append(args, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(m.dir, "zoo.cfg"))...)
	if place := m.ensemble.options.Place; place != nil {
		place(m.id-1, cmd)
	}
	output := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	// It dies with the test's process, however that ends. The kernel watches the
	// thread that starts it, so that thread must stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	began, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		began <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-began; err != nil {
		return err
	}
	m.cmd, m.output, m.ended = cmd, output, ended
	return nil
}

// serves waits until the member answers as one of a working ensemble.
func (m *Member) serves() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(poll) {
		if mode := m.mode(); mode != "" {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("member %d has ended: %s", m.id, m.output)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("member %d does not serve after %s", m.id, patience)
		}
	}
}

// mode is "standalone", "leader" or "follower"; empty while it does not serve.
func (m *Member) mode() string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", m.address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return ""
	}
	answer, _ := io.ReadAll(conn)
	for line := range strings.Lines(string(answer)) {
		if mode, ok := strings.CutPrefix(line, "Mode: "); ok {
			return strings.TrimSpace(mode)
		}
	}
	return ""
}

// Servers are the members' addresses.
func (e *Ensemble) Servers() (out []string) {
	for _, m := range e.members {
		out = append(out, m.address)
	}
	return out
}

// Member is one of them, from 0.
func (e *Ensemble) Member(i int) *Member { return e.members[i] }

// Leader is the number of the member that leads, or -1.
func (e *Ensemble) Leader() int {
	for i, m := range e.members {
		if mode := m.mode(); mode == "leader" || mode == "standalone" {
			return i
		}
	}
	return -1
}

// Kill ends every member, as a power cut would.
func (e *Ensemble) Kill() {
	for _, m := range e.members {
		m.Kill()
	}
}

// Restart starts every member that is dead, and waits until all serve.
func (e *Ensemble) Restart(t testing.TB) {
	t.Helper()
	for _, m := range e.members {
		m.begin(t)
	}
	for _, m := range e.members {
		if err := m.serves(); err != nil {
			t.Fatal(err)
		}
	}
}

// Close ends every member and removes its data.
func (e *Ensemble) Close() {
	e.Kill()
	os.RemoveAll(e.dir)
}

// Kill ends the member with SIGKILL, and waits for it.
func (m *Member) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	<-m.ended
	m.cmd = nil
}

// Stop freezes the member: its connections stay, and it says nothing.
func (m *Member) Stop() { m.signal(syscall.SIGSTOP) }

// Continue lets it go on.
func (m *Member) Continue() { m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s)
	}
}

// Restart starts a member that is dead, and waits until it serves.
func (m *Member) Restart(t testing.TB) {
	t.Helper()
	m.begin(t)
	if err := m.serves(); err != nil {
		t.Fatal(err)
	}
}

func (m *Member) begin(t testing.TB) {
	t.Helper()
	m.mu.Lock()
	dead := m.cmd == nil
	m.mu.Unlock()
	if !dead {
		return
	}
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
}

// Shared is an ensemble of one member for the tests of a package, started for
// the first that asks. Close it in TestMain, after the tests.
type Shared struct {
	once     sync.Once
	ensemble *Ensemble
	err      error
	paths    atomic.Uint64
}

// Servers starts the ensemble when it is not there yet.
func (s *Shared) Servers(t testing.TB) []string {
	t.Helper()
	s.once.Do(func() {
		for range attempts {
			if s.ensemble, s.err = start(Options{Members: 1, Tick: 250 * time.Millisecond}); s.err == nil {
				return
			}
		}
	})
	if s.err != nil {
		t.Fatalf("ZooKeeper does not start: %v", s.err)
	}
	return s.ensemble.Servers()
}

// Close ends it.
func (s *Shared) Close() {
	if s.ensemble != nil {
		s.ensemble.Close()
	}
}

// Main runs the tests of a package whose ensemble is shared, and is what its
// TestMain does: it ends the ensemble and looks for goroutines that were left.
func Main(m *testing.M, shared *Shared) {
	code := m.Run()
	shared.Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Path is a node of the test's own in a shared ensemble.
func (s *Shared) Path(t testing.TB) string {
	return fmt.Sprintf("/%d-", s.paths.Add(1)) + strings.NewReplacer("/", "-", " ", "-", ",", "", "'", "").Replace(t.Name())
}
