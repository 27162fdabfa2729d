package test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
)

var (
	haAgents = flag.Int("ha-agents", 2, "how many agents the highly available cluster has")
	haFaults = flag.Int("ha-faults", 0, "how many faults are chosen by chance; 0: one of each of a few kinds")
	haSeed   = flag.Uint64("ha-seed", 0, "which faults; 0: others each time")
)

const (
	haMasters = 3
	haSession = "4s"
	haTasks   = 4
)

// haCluster is three masters, three ZooKeeper servers, some agents.
type haCluster struct {
	t        *testing.T
	ensemble *zktest.Ensemble
	dir      string
	masters  []*server
	agents   int
	address  string             // zk://…
	wires    [haMasters][]*wire // from each master to each ZooKeeper server

	mu     sync.Mutex
	epochs map[uint64]string // who said that it leads in it
	log    []string
}

// TestHighAvailability kills, stops and continues the leader, cuts it off, and
// takes all of ZooKeeper away and back, while tasks run: none is lost or started twice, no
// epoch is two masters', and after each fault the cluster works again.
func TestHighAvailability(t *testing.T) {
	t.Parallel()
	x := startHA(t, *haAgents)
	long, stop := x.startTasks()
	x.works()
	if *haFaults == 0 {
		x.fault("the leader is killed", x.killLeader)
		x.fault("the leader stops and goes on", x.stopLeader)
		x.fault("the leader is cut off from ZooKeeper", x.cutLeader)
		x.fault("ZooKeeper is gone and back", x.loseZooKeeper)
	} else {
		x.torture()
	}
	x.endTasks(long, stop)
	x.checkRegistry()
}

func startHA(t *testing.T, agents int) *haCluster {
	x := &haCluster{t: t, ensemble: zktest.Start(t, zktest.Options{Members: 3}), dir: tempDir(t), epochs: map[uint64]string{}, agents: agents}
	x.address = "zk://" + strings.Join(x.ensemble.Servers(), ",") + "/mezzo"
	for i := range haMasters {
		for _, member := range x.ensemble.Servers() {
			x.wires[i] = append(x.wires[i], newWire(t, member))
		}
		x.masters = append(x.masters, nil)
		x.startMaster(i)
	}
	for i := range agents {
		serve(t, nil, "agent", "--data-dir", filepath.Join(x.dir, fmt.Sprint("a", i)), "--master", x.address, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0",
			"--resources", smallAgent, "--end-tasks")
	}
	// A leader is asked at any moment: whoever leads in an epoch is the only one.
	asking, cancel := context.WithCancel(context.Background())
	var asked sync.WaitGroup
	asked.Go(func() { x.observe(asking) })
	t.Cleanup(func() { cancel(); asked.Wait() })
	return x
}

// startMaster starts a master, anew when it ran before.
func (x *haCluster) startMaster(i int) {
	var servers []string
	for _, w := range x.wires[i] {
		servers = append(servers, w.listener.Addr().String())
	}
	quoted := `"` + strings.Join(servers, `", "`) + `"`
	file := writeFile(x.t, filepath.Join(x.dir, fmt.Sprintf("m%d.hcl", i)), fmt.Sprintf(`data_dir = %q
master {
  rpc  = "127.0.0.1:0"
  http = "127.0.0.1:0"
}
election "zookeeper" {
  servers         = [%s]
  session_timeout = %q
  auth            = "mezzo:secret"
}
registry "zookeeper" {}
framework "mesos" {
  config {
    listen = "127.0.0.1:0"
    zk     = "zk://%s/mesos"
  }
}
`, filepath.Join(x.dir, fmt.Sprint("m", i)), quoted, haSession, strings.Join(servers, ",")))
	s := serve(x.t, nil, "master", "--config", file)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.masters[i] = s
}

// haStatus is what a master says of itself.
type haStatus struct {
	Leadership string `json:"leadership"`
	MasterID   string `json:"master_id"`
	Epoch      uint64 `json:"epoch"`
	Agents     struct {
		Active int `json:"active"`
	} `json:"agents"`
	Tasks struct {
		Running int `json:"running"`
	} `json:"tasks"`
}

// status asks a master; false: it does not answer.
func (x *haCluster) status(i int) (out haStatus, ok bool) {
	x.mu.Lock()
	s := x.masters[i]
	x.mu.Unlock()
	if s == nil {
		return out, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.fields["http"]+"/v1/status", nil)
	if err != nil {
		return out, false
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return out, false
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || json.Unmarshal(text, &out) != nil {
		return out, false
	}
	if out.Leadership == "leading" {
		x.mu.Lock()
		defer x.mu.Unlock()
		if before, known := x.epochs[out.Epoch]; known && before != out.MasterID {
			x.t.Errorf("in epoch %d both %s and %s lead", out.Epoch, before, out.MasterID)
		}
		x.epochs[out.Epoch] = out.MasterID
	}
	return out, true
}

func (x *haCluster) observe(ctx context.Context) {
	for ctx.Err() == nil {
		for i := range haMasters {
			x.status(i)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// newest is the highest epoch that anybody has led in.
func (x *haCluster) newest() (epoch uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for e := range x.epochs {
		epoch = max(epoch, e)
	}
	return epoch
}

// leader waits for a master that leads in an epoch above, with all agents.
func (x *haCluster) leader(above uint64) (leader int) {
	x.t.Helper()
	eventuallyWithin(x.t, 3*patience, fmt.Sprintf("a leader after epoch %d with %d agents", above, x.agents), func() bool {
		for i := range haMasters {
			if s, ok := x.status(i); ok && s.Leadership == "leading" && s.Epoch > above && s.Agents.Active == x.agents {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// startTasks runs tasks that note their start, and end when a file is there.
func (x *haCluster) startTasks() (run *background, stop string) {
	stop = filepath.Join(x.dir, "stop")
	notes := filepath.Join(x.dir, "notes")
	c := &cluster{t: x.t, fields: map[string]string{"rpc": x.address}}
	run = c.start("run", "--name", "long", "--instances", fmt.Sprint(haTasks), "--cpus", "0.1", "--mem", "32", "--",
		"sh", "-c", fmt.Sprintf("echo begin >> %s; while [ ! -e %s ]; do sleep 0.2; done; echo end >> %s", notes, stop, notes))
	eventually(x.t, "the tasks to run", func() bool { return x.notes("begin") == haTasks })
	return run, stop
}

func (x *haCluster) notes(word string) int {
	text, _ := os.ReadFile(filepath.Join(x.dir, "notes"))
	return strings.Count(string(text), word)
}

// endTasks is that all ended well, and each ran once.
func (x *haCluster) endTasks(run *background, stop string) {
	x.t.Helper()
	writeFile(x.t, stop, "")
	select {
	case <-run.ended:
	case <-time.After(3 * patience):
		x.t.Fatalf("the tasks did not end\n%s", run.stderr)
	}
	if code := run.cmd.ProcessState.ExitCode(); code != 0 {
		x.t.Errorf("the tasks ended with %d\n%s", code, run.stderr)
	}
	if begun, ended := x.notes("begin"), x.notes("end"); begun != haTasks || ended != haTasks {
		x.t.Errorf("%d tasks began and %d ended, want %d of each", begun, ended, haTasks)
	}
	for _, line := range x.log {
		x.t.Log(line)
	}
}

// works runs a task, by the way that people have.
func (x *haCluster) works() {
	x.t.Helper()
	var last result
	defer func() {
		if last.stdout != "works\n" {
			x.t.Logf("the last attempt: %+v", last)
		}
	}()
	// On a machine that is busy enough another leader may be elected at any moment.
	eventuallyWithin(x.t, 3*patience, "a task to run", func() bool {
		last = mezzo(x.t, []string{"MEZZO_ADDRESS=" + x.address}, "run", "--cpus", "0.1", "--mem", "32", "--", "echo", "works")
		return last.code == 0 && last.stdout == "works\n"
	})
}

// fault does something, and waits until another epoch has a leader with all
// agents and the cluster works.
func (x *haCluster) fault(name string, do func() (after func())) {
	x.t.Helper()
	x.leader(0)
	epoch := x.newest()
	began := time.Now()
	after := do()
	x.leader(epoch)
	led := time.Since(began)
	x.works()
	x.log = append(x.log, fmt.Sprintf("%-32s all agents are back with a leader after %5.1f s, a task has run after %5.1f s", name, led.Seconds(), time.Since(began).Seconds()))
	after()
	if begun := x.notes("begin"); begun != haTasks || x.notes("end") != 0 {
		x.t.Fatalf("after %q %d tasks have begun and %d ended, want %d and none", name, begun, x.notes("end"), haTasks)
	}
	x.checkNode()
}

// checkRegistry is that a dump may be taken while a master leads, and nothing
// restored.
func (x *haCluster) checkRegistry() {
	x.t.Helper()
	x.leader(0)
	config := filepath.Join(x.dir, "m0.hcl")
	dump := mezzo(x.t, nil, "registry", "dump", "--config", config)
	if lines := strings.Count(dump.stdout, "\n"); dump.code != 0 || !strings.Contains(dump.stdout, `"kind":"mezzo registry"`) || lines < 1+x.agents {
		x.t.Errorf("registry dump: %+v, want a line for each of %d agents", dump, x.agents)
	}
	file := writeFile(x.t, filepath.Join(x.dir, "dump"), dump.stdout)
	if r := mezzo(x.t, nil, "registry", "restore", "--config", config, file); r.code != 1 || !strings.Contains(r.stderr, "a master leads") {
		x.t.Errorf("registry restore while a master leads: %+v", r)
	}
}

// TestRegistryMoves takes a registry from one master's file to another's.
func TestRegistryMoves(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	start := func(name string) *server {
		return serve(t, nil, "master", "--data-dir", filepath.Join(dir, name), "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
	}
	first := start("first")
	at := func(s *server) []string { return []string{"MEZZO_ADDRESS=" + s.fields["rpc"]} }
	if r := mezzo(t, at(first), "quota", "set", "ads", "--limit", "cpus:7"); r.code != 0 {
		t.Fatalf("quota set: %+v", r)
	}
	if r := mezzo(t, nil, "registry", "dump", "--data-dir", filepath.Join(dir, "first")); r.code != 1 || !strings.Contains(r.stderr, "another master uses") {
		t.Errorf("a dump of a file in use: %+v", r)
	}
	first.stop(syscall.SIGTERM)
	dump := mezzo(t, nil, "registry", "dump", "--data-dir", filepath.Join(dir, "first"))
	if dump.code != 0 || !strings.Contains(dump.stdout, "roles/ads") {
		t.Fatalf("registry dump: %+v", dump)
	}
	file := writeFile(t, filepath.Join(dir, "dump.jsonl"), dump.stdout)
	if r := mezzo(t, nil, "registry", "dump", "--data-dir", filepath.Join(dir, "none")); r.code != 1 || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("a dump of nothing: %+v", r)
	}
	if r := mezzo(t, nil, "registry", "restore", "--data-dir", filepath.Join(dir, "second"), file); r.code != 0 || !strings.Contains(r.stdout, "is restored") {
		t.Fatalf("registry restore: %+v", r)
	}
	second := start("second")
	if r := mezzo(t, at(second), "quota", "get"); r.code != 0 || !strings.Contains(r.stdout, "ads") || !strings.Contains(r.stdout, "cpus:7") {
		t.Errorf("quota after the restore: %+v", r)
	}
}

func (x *haCluster) killLeader() (after func()) {
	i := x.leader(0)
	x.masters[i].stop(syscall.SIGKILL)
	return func() { x.startMaster(i) }
}

// stopLeader has the leader stand still until another one leads. When it goes on
// it must find out.
func (x *haCluster) stopLeader() (after func()) {
	i := x.leader(0)
	process, before := x.masters[i].cmd.Process, x.newest()
	_ = process.Signal(syscall.SIGSTOP)
	return func() {
		x.checkNode() // its adapter does not stand still, and must not go on telling
		_ = process.Signal(syscall.SIGCONT)
		eventuallyWithin(x.t, 2*patience, "the master that stood still to stand by", func() bool {
			s, ok := x.status(i)
			return ok && (s.Leadership == "standby" || s.Epoch > before)
		})
	}
}

// cutLeader has nothing pass between the leader and ZooKeeper, though their
// connections stay. Agents and frameworks still reach it.
func (x *haCluster) cutLeader() (after func()) {
	i := x.leader(0)
	before := x.newest()
	for _, w := range x.wires[i] {
		w.cut(true)
	}
	return func() {
		eventuallyWithin(x.t, 2*patience, "the master that is cut off to stand by", func() bool {
			s, ok := x.status(i)
			return ok && s.Leadership != "leading"
		})
		for _, w := range x.wires[i] {
			w.cut(false)
		}
		eventuallyWithin(x.t, 2*patience, "the master to be back as a candidate", func() bool {
			s, ok := x.status(i)
			return ok && (s.Leadership == "standby" || s.Epoch > before)
		})
	}
}

// wire is a way to a ZooKeeper server that can be cut.
type wire struct {
	listener net.Listener
	mu       sync.Mutex
	flows    chan struct{} // closed while it is whole
	closed   chan struct{}
	running  sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, flows: make(chan struct{}), closed: make(chan struct{})}
	close(w.flows)
	w.running.Go(func() {
		for {
			outside, err := l.Accept()
			if err != nil {
				return
			}
			inside, err := net.Dial("tcp", to)
			if err != nil {
				outside.Close()
				continue
			}
			both := sync.OnceFunc(func() { outside.Close(); inside.Close() })
			done := make(chan struct{}, 2)
			for _, pair := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
				w.running.Go(func() { w.pass(pair[0], pair[1]); both(); done <- struct{}{} })
			}
			w.running.Go(func() {
				select {
				case <-done:
				case <-w.closed:
					both()
				}
			})
		}
	})
	t.Cleanup(func() { close(w.closed); l.Close(); w.running.Wait() })
	return w
}

// pass carries bytes while the wire is whole. Those of a cut one are late, as
// they would be on a network.
func (w *wire) pass(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		flows := w.flows
		w.mu.Unlock()
		select {
		case <-flows:
		case <-w.closed:
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) cut(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cut {
		w.flows = make(chan struct{})
	} else {
		close(w.flows)
	}
}

// loseZooKeeper takes all of it away until nobody leads any more.
func (x *haCluster) loseZooKeeper() (after func()) {
	x.ensemble.Kill()
	eventuallyWithin(x.t, 2*patience, "that nobody leads without ZooKeeper", func() bool {
		for i := range haMasters {
			if s, ok := x.status(i); ok && s.Leadership == "leading" {
				return false
			}
		}
		return true
	})
	x.ensemble.Restart(x.t)
	return func() {}
}

// checkNode is that Mesos's clients find the leader, and nobody else first.
func (x *haCluster) checkNode() {
	x.t.Helper()
	session, err := zookeeper.Connect(zookeeper.Options{Servers: x.ensemble.Servers(), Timeout: 10 * time.Second})
	if err != nil {
		x.t.Fatal(err)
	}
	defer session.Close()
	eventuallyWithin(x.t, 2*patience, "the leader's node for Mesos's clients", func() bool {
		text, err := zookeeper.Do(context.Background(), session, func(c *zk.Conn) ([]byte, error) {
			names, _, err := c.Children("/mesos")
			if err != nil || len(names) != 1 || !strings.HasPrefix(names[0], "json.info_") {
				return nil, err
			}
			text, _, err := c.Get("/mesos/" + names[0])
			return text, err
		})
		if err != nil {
			return false
		}
		var info struct {
			ID      string `json:"id"`
			Pid     string `json:"pid"`
			Address struct {
				IP   string `json:"ip"`
				Port int    `json:"port"`
			} `json:"address"`
		}
		if json.Unmarshal(text, &info) != nil {
			return false
		}
		for i := range haMasters {
			if s, ok := x.status(i); ok && s.Leadership == "leading" && s.MasterID == info.ID {
				x.mu.Lock()
				mesos := x.masters[i].fields["mesos"]
				x.mu.Unlock()
				return fmt.Sprintf("%s:%d", info.Address.IP, info.Address.Port) == mesos && info.Pid == "master@"+mesos
			}
		}
		return false
	})
}

// torture chooses faults.
func (x *haCluster) torture() {
	seed := *haSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	x.t.Logf("-ha-seed=%d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	for n := range *haFaults {
		time.Sleep(time.Duration(chance.Int64N(int64(2 * time.Second)))) // a moment that nothing has chosen
		switch chance.IntN(5) {
		case 0:
			x.fault(fmt.Sprintf("%d: the leader is killed", n), x.killLeader)
		case 1:
			x.fault(fmt.Sprintf("%d: the leader stops and goes on", n), x.stopLeader)
		case 2:
			x.fault(fmt.Sprintf("%d: ZooKeeper is gone and back", n), x.loseZooKeeper)
		case 3:
			x.fault(fmt.Sprintf("%d: the leader is cut off from ZooKeeper", n), x.cutLeader)
		case 4:
			x.loseMember(n, chance.IntN(2) == 0)
		}
	}
}

// loseMember kills or stops ZooKeeper's leader for a while. The master may go on
// leading, or another may: the cluster works.
func (x *haCluster) loseMember(n int, kill bool) {
	x.t.Helper()
	i := x.ensemble.Leader()
	if i < 0 {
		return
	}
	began := time.Now()
	member := x.ensemble.Member(i)
	name := "ZooKeeper's leader stops and goes on"
	if kill {
		name = "ZooKeeper's leader is killed"
		member.Kill()
	} else {
		member.Stop()
	}
	x.leader(0)
	x.works()
	x.log = append(x.log, fmt.Sprintf("%-32s a task has run after %5.1f s", fmt.Sprintf("%d: %s", n, name), time.Since(began).Seconds()))
	member.Continue()
	if kill {
		member.Restart(x.t)
	}
}
