package test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// mesosTasks is a framework that speaks the Mesos API alone, launches the tasks
// it is given as JSON, and keeps what it hears of them.
type mesosTasks struct {
	*httpScheduler
	waiting []string
	heard   map[string][]*mezzov1.TaskStatus
	agents  map[string]*mezzov1.AgentID
}

// until makes what events ask for, until a task has a status that suits.
func (m *mesosTasks) until(id, what string, suits func(*mezzov1.TaskStatus) bool) *mezzov1.TaskStatus {
	m.t.Helper()
	for begun := time.Now(); ; {
		for _, s := range m.heard[id] {
			if suits(s) {
				return s
			}
		}
		if time.Since(begun) > 3*patience {
			m.t.Fatalf("task %s is not %s: %v", id, what, m.heard[id])
		}
		switch event := m.next(); event.GetType() {
		case schedulerv1.Event_OFFERS:
			for _, offer := range event.GetOffers().GetOffers() {
				m.answer(offer)
			}
		case schedulerv1.Event_UPDATE:
			m.update(event.GetUpdate().GetStatus())
		case schedulerv1.Event_ERROR:
			m.t.Fatal(event)
		}
	}
}

func (m *mesosTasks) update(s *mezzov1.TaskStatus) {
	id := s.GetTaskId().GetValue()
	m.heard[id], m.agents[id] = append(m.heard[id], s), s.GetAgentId()
	if s.Uuid != nil {
		m.call(&schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
			AgentId: s.GetAgentId(), TaskId: s.GetTaskId(), Uuid: s.GetUuid(),
		}})
	}
}

func (m *mesosTasks) answer(offer *mezzov1.Offer) {
	launch := &mezzov1.Offer_Operation_Launch{}
	for _, text := range m.waiting {
		t := &mezzov1.TaskInfo{}
		if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(text), t); err != nil {
			m.t.Fatalf("%s: %v", text, err)
		}
		t.Name, t.AgentId = proto.String(t.GetTaskId().GetValue()), offer.GetAgentId()
		launch.TaskInfos = append(launch.TaskInfos, t)
	}
	m.waiting = nil
	accept := &schedulerv1.Call_Accept{OfferIds: []*mezzov1.OfferID{offer.GetId()}, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(0)}}
	if len(launch.TaskInfos) > 0 {
		accept.Operations = []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: launch}}
	}
	m.call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: accept})
}

func (m *mesosTasks) ends(id string, state mezzov1.TaskState) *mezzov1.TaskStatus {
	m.t.Helper()
	s := m.until(id, "at its end", func(s *mezzov1.TaskStatus) bool {
		return s.GetState() != mezzov1.TaskState_TASK_STARTING && s.GetState() != mezzov1.TaskState_TASK_RUNNING
	})
	if s.GetState() != state {
		m.t.Fatalf("task %s: %v, want %v", id, s, state)
	}
	return s
}

// TestMesosImages: a framework that knows Mesos alone has its images, as type
// DOCKER and as type MESOS: from registries that want credentials, on a bridge
// with ports, looked at in the container's own network, and as the user that
// Mesos would have them run as.
func TestMesosImages(t *testing.T) {
	t.Parallel()
	daemon := containerdtest.Start(t)
	o := containerdtest.NewOutside(t)
	ours := containerdtest.ServeRegistry(t, containerdtest.Basic("agent", "pw-of-the-agent"))
	theirs := containerdtest.ServeRegistry(t, containerdtest.Token("framework", "pw-of-the-framework", "token"))
	image := containerdtest.Busybox()
	image.Files = map[string]string{"/etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n", "/etc/group": "app:x:1234:\n"}
	image.Config.User = "app"
	ours.Push(t, "web", "1", image)
	theirs.Push(t, "job", "1", image)

	dir := tempDir(t)
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "secrets", "pull"), fmt.Sprintf(`{"auths":{%q:{"username":"framework","password":"pw-of-the-framework"}}}`, theirs.Host))
	config := strings.Replace(containerdConfig(daemon), "    address", fmt.Sprintf(`    cni_bin_dirs = [%q]
    bridge = %q
    bridge_subnet = "10.94.0.0/24"
    registry %q {
      plain_http = true
      username = "agent"
      password = "pw-of-the-agent"
    }
    registry %q {
      plain_http = true
    }
    address`, o.BinDir, o.Bridge, ours.Host, theirs.Host), 1)
	c := startContainerdAs(t, daemon, smallAgent, config+fmt.Sprintf("\nagent {\n  secrets {\n    dir = %q\n  }\n}\n", filepath.Join(dir, "secrets")), "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n")

	// What is open on the host's loopback address is not so in the container's.
	var visits atomic.Int32
	host := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	t.Cleanup(host.Close)
	hostPort := host.Listener.Addr().(*net.TCPAddr).Port

	m := &mesosTasks{httpScheduler: newHTTPScheduler(t, c.fields["mesos"], 0), heard: map[string][]*mezzov1.TaskStatus{}, agents: map[string]*mezzov1.AgentID{}}
	m.info.User = proto.String("nobody")
	if err := m.subscribe(); err != nil {
		t.Fatal(err)
	}
	const resources = `"resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}, {"name": "mem", "type": "SCALAR", "scalar": {"value": 32}}`
	m.waiting = []string{
		fmt.Sprintf(`{"task_id": {"value": "web"}, %s, {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31000, "end": 31000}]}}],
			"command": {"value": "echo $(hostname) $COLOR $(id -u) $(id -g) $(pwd) $(ulimit -n); grep 192.0.2.7 /etc/hosts; echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"},
			"container": {"type": "DOCKER", "docker": {"image": "%s/web:1", "network": "BRIDGE", "force_pull_image": true,
				"port_mappings": [{"host_port": 31000, "container_port": 8080, "protocol": "tcp"}],
				"parameters": [{"key": "hostname", "value": "web-1"}, {"key": "env", "value": "COLOR=blue"}, {"key": "user", "value": "4321:4322"}, {"key": "label", "value": "a=b"},
					{"key": "workdir", "value": "/bin"}, {"key": "add-host", "value": "db:192.0.2.7"}, {"key": "ulimit", "value": "nofile=512:512"}]}},
			"health_check": {"type": "HTTP", "http": {"port": 8080, "path": "/"}, "delay_seconds": 0, "interval_seconds": 0.2, "grace_period_seconds": 60},
			"check": {"type": "TCP", "tcp": {"port": %d}, "delay_seconds": 0, "interval_seconds": 0.2}}`, resources, ours.Host, hostPort),
		fmt.Sprintf(`{"task_id": {"value": "plain"}, %s], "command": {"value": "id -u; exec httpd -f -p 8080"},
			"container": {"type": "DOCKER", "docker": {"image": "%s/web:1", "network": "BRIDGE"}},
			"health_check": {"type": "TCP", "tcp": {"port": 8080}, "delay_seconds": 0, "interval_seconds": 0.2, "grace_period_seconds": 60},
			"check": {"type": "HTTP", "http": {"port": %d, "path": "/"}, "delay_seconds": 0, "interval_seconds": 0.2}}`, resources, ours.Host, hostPort),
		fmt.Sprintf(`{"task_id": {"value": "job"}, %s], "command": {"value": "id -u; pwd; echo kept > file; cat file"},
			"container": {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "docker": {"name": "%s/job:1", "config": {"type": "REFERENCE", "reference": {"name": "pull"}}}}}}}`, resources, theirs.Host),
		fmt.Sprintf(`{"task_id": {"value": "refused"}, %s], "command": {"value": "true"},
			"container": {"type": "MESOS", "mesos": {"image": {"type": "DOCKER", "cached": false, "docker": {"name": "%s/job:1"}}}}}`, resources, theirs.Host),
		fmt.Sprintf(`{"task_id": {"value": "linked"}, %s], "command": {"value": "true"},
			"container": {"type": "DOCKER", "docker": {"image": "%s/web:1", "parameters": [{"key": "link", "value": "db"}]}}}`, resources, ours.Host),
	}
	if s := m.ends("linked", mezzov1.TaskState_TASK_ERROR); !strings.Contains(s.GetMessage(), `docker parameter "link"`) {
		t.Errorf("a parameter that is not honoured: %v", s)
	}
	if s := m.ends("refused", mezzov1.TaskState_TASK_FAILED); !strings.Contains(s.GetMessage(), "credentials") || strings.Contains(s.GetMessage(), "pw-of") {
		t.Errorf("without credentials: %v", s)
	}
	m.ends("job", mezzov1.TaskState_TASK_FINISHED)
	for _, id := range []string{"web", "plain"} {
		s := m.until(id, "healthy", func(s *mezzov1.TaskStatus) bool { return s.GetHealthy() })
		n := s.GetContainerStatus().GetNetworkInfos()
		if len(n) != 1 || len(n[0].GetIpAddresses()) != 1 || !strings.HasPrefix(n[0].GetIpAddresses()[0].GetIpAddress(), "10.94.0.") {
			t.Errorf("the addresses of %s: %v", id, n)
		}
	}
	m.until("web", "looked at by TCP", func(s *mezzov1.TaskStatus) bool {
		return s.GetCheckStatus().GetTcp() != nil && s.GetCheckStatus().GetTcp().Succeeded != nil
	})
	for id, list := range m.heard {
		if slices.ContainsFunc(list, func(s *mezzov1.TaskStatus) bool {
			return s.GetCheckStatus().GetTcp().GetSucceeded() || s.GetCheckStatus().GetHttp().GetStatusCode() != 0
		}) {
			t.Errorf("a check of %s found what is in the host's network: %v", id, list)
		}
	}
	if n := visits.Load(); n > 0 {
		t.Errorf("the host was asked %d times for what is in containers", n)
	}
	eventually(t, "the page, by the host's port", func() bool {
		out, err := exec.Command("nsenter", "--net="+o.Netns, "busybox", "wget", "-q", "-O", "-", "http://10.94.0.1:31000/").Output()
		return err == nil && string(out) == "hello\n"
	})
	for id, want := range map[string]string{
		"web": "web-1 blue 4321 4322 /bin 512\n192.0.2.7\tdb\n", "plain": "1234\n", "job": "65534\n/mnt/mesos/sandbox\nkept\n",
	} {
		if got := c.mezzo("logs", id).stdout; got != want {
			t.Errorf("%s wrote %q, want %q", id, got, want)
		}
	}
	for _, id := range []string{"web", "plain"} {
		m.call(&schedulerv1.Call{Type: schedulerv1.Call_KILL.Enum(), Kill: &schedulerv1.Call_Kill{TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: m.agents[id]}})
		m.ends(id, mezzov1.TaskState_TASK_KILLED)
	}
	m.teardown()
	c.removed()
	nothingOutside(t, o)
	if r := c.mezzo("image", "prune", "--except", theirs.Host+"/job:1"); r.code != 0 || !strings.Contains(r.stdout, "removed "+ours.Host+"/web:1 from ") {
		t.Errorf("prune: %+v", r)
	}
	if left := c.images(); len(left) != 1 || left[theirs.Host+"/job:1"] == nil {
		t.Errorf("after the prune there are %v", left)
	}
}
