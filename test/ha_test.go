package test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/netlab"
	"github.com/mezzo-os/mezzo/internal/zktest"
)

var (
	haAgents = flag.Int("ha-agents", 2, "how many agents the highly available cluster has")
	haFaults = flag.Int("ha-faults", 0, "how many faults are chosen by chance; 0: one of each of a few kinds")
	haSeed   = flag.Uint64("ha-seed", 0, "which faults; 0: others each time")
)

const (
	haMasters = 3
	haMembers = 3
	haSession = "4s"
	haAuth    = "mezzo:secret"
	haTasks   = 4

	// An agent that is silent for longer is unreachable.
	haPing     = 2 * time.Second
	haTimeouts = 5
)

// haCluster is three masters, three ZooKeeper servers, some agents, each in a
// network namespace of its own.
type haCluster struct {
	t        *testing.T
	ensemble *zktest.Ensemble
	dir      string
	masters  []*server
	agents   []*server
	address  string // zk://…

	// Their nodes.
	masterNodes, memberNodes, agentNodes []*netlab.Node

	mu     sync.Mutex
	epochs map[uint64]string // who said that it leads in it
	log    []string
	times  map[string][]time.Duration // until a task has run, by what was done
}

// TestHighAvailability kills, stops and continues the leader, cuts it off, and
// takes all of ZooKeeper away and back, while tasks run: none is lost or started twice, no
// epoch is two masters', and after each fault the cluster works again.
func TestHighAvailability(t *testing.T) {
	t.Parallel()
	if !netlab.Alone(t, binEnv+"="+bin) {
		return
	}
	x := startHA(t, *haAgents)
	long, stop := x.startTasks()
	x.works()
	if *haFaults == 0 {
		x.fault("the leader is killed", "", x.killLeader)
		x.fault("the leader stops and goes on", "", x.stopLeader)
		x.fault("the leader is cut off from ZooKeeper", "", func() func() { return x.cutLeader(netlab.Both) })
		x.disturb("an agent is not heard", "", time.Second, func() func() { return cut(x.agentNodes[:1], netlab.Out) })
		x.fault("ZooKeeper is gone and back", "", x.loseZooKeeper)
	} else {
		x.torture()
	}
	x.endTasks(long, stop)
	x.checkRegistry()
}

func startHA(t *testing.T, agents int) *haCluster {
	x := &haCluster{t: t, dir: tempDir(t), epochs: map[uint64]string{}, times: map[string][]time.Duration{}}
	lab := netlab.New(t)
	nodes := func(n, net int) (out []*netlab.Node) {
		for i := range n {
			out = append(out, lab.Node(fmt.Sprintf("10.99.%d.%d", net, i+1)))
		}
		return out
	}
	x.masterNodes, x.memberNodes, x.agentNodes = nodes(haMasters, 1), nodes(haMembers, 2), nodes(agents, 3)
	x.ensemble = zktest.Start(t, zktest.Options{
		Members: haMembers, Sync: true, Hosts: addresses(x.memberNodes),
		Place: func(member int, cmd *exec.Cmd) { x.memberNodes[member].Place(cmd) },
	})
	x.address = "zk://" + strings.Join(x.ensemble.Servers(), ",") + "/mezzo"
	x.masters, x.agents = make([]*server, haMasters), make([]*server, agents)
	for i := range x.masters {
		x.startMaster(i)
	}
	for i := range x.agents {
		x.startAgent(i)
	}
	// A leader is asked at any moment: whoever leads in an epoch is the only one.
	asking, cancel := context.WithCancel(context.Background())
	var asked sync.WaitGroup
	asked.Go(func() { x.observe(asking) })
	asked.Go(func() { x.observeWrites(asking) })
	t.Cleanup(func() { cancel(); asked.Wait() })
	return x
}

func addresses(nodes []*netlab.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Address)
	}
	return out
}

// startMaster starts a master, anew when it ran before.
func (x *haCluster) startMaster(i int) {
	servers, host := x.ensemble.Servers(), x.masterNodes[i].Address
	file := writeFile(x.t, filepath.Join(x.dir, fmt.Sprintf("m%d.hcl", i)), fmt.Sprintf(`data_dir = %q
insecure = true
master {
  rpc                 = "%[2]s:0"
  http                = "%[2]s:0"
  agent_ping_interval = %[3]q
  agent_ping_timeouts = %[4]d
}
election "zookeeper" {
  servers         = ["%[5]s"]
  session_timeout = %[6]q
  auth            = %[7]q
}
registry "zookeeper" {}
framework "mesos" {
  config {
    listen   = "%[2]s:0"
    insecure = true
    zk       = "zk://%[8]s/mesos"
  }
}
`, filepath.Join(x.dir, fmt.Sprint("m", i)), host, haPing, haTimeouts, strings.Join(servers, `", "`), haSession, haAuth, strings.Join(servers, ",")))
	s := serve(x.t, x.masterNodes[i].Place, "master", "--config", file)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.masters[i] = s
}

// startAgent starts an agent, anew when it ran before.
func (x *haCluster) startAgent(i int) {
	file := writeFile(x.t, filepath.Join(x.dir, fmt.Sprintf("a%d.hcl", i)), fmt.Sprintf(`data_dir = %q
insecure = true
agent {
  masters   = [%q]
  rpc       = "%[3]s:0"
  http      = "%[3]s:0"
  resources = %[4]q
}
`, filepath.Join(x.dir, fmt.Sprint("a", i)), x.address, x.agentNodes[i].Address, smallAgent))
	x.agents[i] = serve(x.t, x.agentNodes[i].Place, "agent", "--config", file, "--end-tasks")
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
func (x *haCluster) status(i int) (out haStatus, ok bool) { return x.statusIn(context.Background(), i) }

func (x *haCluster) statusIn(ctx context.Context, i int) (out haStatus, ok bool) {
	x.mu.Lock()
	s := x.masters[i]
	x.mu.Unlock()
	if s == nil {
		return out, false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
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
		x.statuses()
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// statuses asks all masters at a time: one that is cut off answers late.
func (x *haCluster) statuses() (out [haMasters]haStatus) {
	var asked sync.WaitGroup
	for i := range haMasters {
		asked.Go(func() { out[i], _ = x.status(i) })
	}
	asked.Wait()
	return out
}

// observeWrites is that no write of the registry is of an earlier epoch than one
// before it: each carries its own.
func (x *haCluster) observeWrites(ctx context.Context) {
	session, err := zookeeper.Connect(zookeeper.Options{Servers: x.ensemble.Servers(), Timeout: 10 * time.Second, Auth: haAuth})
	if err != nil {
		x.t.Error(err)
		return
	}
	defer session.Close()
	var before, at uint64
	for ctx.Err() == nil {
		stat := &zk.Stat{}
		text, err := zookeeper.Do(ctx, session, func(c *zk.Conn) (text []byte, err error) {
			text, stat, err = c.Get("/mezzo/registry/commit")
			return text, err
		})
		digits, _, _ := strings.Cut(string(text), "-")
		// "none" before the first.
		if epoch, wrong := strconv.ParseUint(digits, 10, 64); err == nil && wrong == nil && uint64(stat.Mzxid) > at {
			if epoch < before {
				x.t.Errorf("a write of epoch %d came after one of epoch %d", epoch, before)
			}
			before, at = epoch, uint64(stat.Mzxid)
		}
		select {
		case <-time.After(100 * time.Millisecond):
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
func (x *haCluster) leader(above uint64) int {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	found := make(chan int, haMasters)
	var asking sync.WaitGroup
	for i := range haMasters {
		// Each by itself: one that is cut off answers late.
		asking.Go(func() {
			for ctx.Err() == nil {
				if s, ok := x.statusIn(ctx, i); ok && s.Leadership == "leading" && s.Epoch > above && s.Agents.Active == len(x.agents) {
					found <- i
					cancel()
				}
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	asking.Wait()
	select {
	case i := <-found:
		return i
	default:
		x.t.Fatalf("there is no leader after epoch %d with %d agents", above, len(x.agents))
		return -1
	}
}

// startTasks runs tasks that note their start, and end when a file is there.
func (x *haCluster) startTasks() (run *background, stop string) {
	stop = filepath.Join(x.dir, "stop")
	notes := filepath.Join(x.dir, "notes")
	c := clusterAt(x.t, x.address)
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
	for _, kind := range slices.Sorted(maps.Keys(x.times)) {
		all := slices.Sorted(slices.Values(x.times[kind]))
		x.t.Logf("%-40s %2d times, a task has run after %5.1f s in the median, %5.1f s at most", kind, len(all), all[len(all)/2].Seconds(), all[len(all)-1].Seconds())
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

// checkRegistry is that a dump may be taken while a master leads, and nothing
// restored.
func (x *haCluster) checkRegistry() {
	x.t.Helper()
	x.leader(0)
	config := filepath.Join(x.dir, "m0.hcl")
	dump := mezzo(x.t, nil, "registry", "dump", "--config", config)
	if lines := strings.Count(dump.stdout, "\n"); dump.code != 0 || !strings.Contains(dump.stdout, `"kind":"mezzo registry"`) || lines < 1+len(x.agents) {
		x.t.Errorf("registry dump: %+v, want a line for each of %d agents", dump, len(x.agents))
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
