package master_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/master/mastertest"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// oneOfSeveral are the options of a master with others beside it.
func oneOfSeveral(t testing.TB, servers []string) master.Options {
	o := options(t)
	o.Config.Election = config.Election{Kind: "zookeeper", Servers: servers, Path: "/mezzo", SessionTimeout: 10 * time.Second}
	o.Config.Registry = config.Registry{Kind: "zookeeper", Servers: servers, Path: "/mezzo", SessionTimeout: 10 * time.Second}
	return o
}

// standing waits until a master is what it should be.
func (r *running) standing(t *testing.T, want string) *operatorv1.Status {
	t.Helper()
	operator := r.operator(t)
	for late := time.Now().Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		s, err := operator.GetStatus(t.Context(), &operatorv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Leadership == want {
			return s
		}
		if time.Now().After(late) {
			t.Fatalf("the master is %s, want %s; its trouble is %q", s.Leadership, want, s.Trouble)
		}
	}
}

// depose removes the leader's node, as an operator may.
func depose(t testing.TB, s *zookeeper.Session, rpc string) {
	t.Helper()
	const dir = "/mezzo/election"
	_, err := zookeeper.Do(context.Background(), s, func(c *zk.Conn) (struct{}, error) {
		names, _, err := c.Children(dir)
		for _, name := range names {
			if text, _, err := c.Get(dir + "/" + name); err == nil && strings.Contains(string(text), rpc) {
				return struct{}{}, c.Delete(dir+"/"+name, -1)
			}
		}
		return struct{}{}, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Two masters lead in turns, in the same processes: the other one stands by and
// tells who leads, epochs rise, and a framework that knows one address follows.
func TestMastersLeadInTurns(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{})
	session, err := zookeeper.Connect(zookeeper.Options{Servers: ensemble.Servers(), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	masters := []*running{start(t, oneOfSeveral(t, ensemble.Servers()))}
	epoch := masters[0].standing(t, "leading").Epoch
	masters = append(masters, start(t, oneOfSeveral(t, ensemble.Servers())))

	e := subscribe(t, masters[1].Addresses()["rpc"], &mezzov1.FrameworkInfo{
		User: proto.String("nobody"), Name: proto.String("follower"), Roles: []string{"r"}, FailoverTimeout: proto.Float64(600),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
	})
	if again := await(t, "the subscription", e.subscribed); again {
		t.Error("the first subscription is one again")
	}
	id := e.FrameworkID()
	for round := range 3 {
		leader, standby := masters[round%2], masters[(round+1)%2]
		checkStandby(t, standby, leader)
		depose(t, session, leader.Addresses()["rpc"])
		s := standby.standing(t, "leading")
		if s.Epoch <= epoch {
			t.Errorf("the new leader's epoch is %d, the old one's %d", s.Epoch, epoch)
		}
		epoch = s.Epoch
		leader.standing(t, "standby")
		await(t, "the subscription's end", e.disconnected)
		if again := await(t, "the subscription", e.subscribed); !again || e.FrameworkID() != id {
			t.Errorf("the framework became %s (again: %v), it was %s", e.FrameworkID(), again, id)
		}
	}
}

// checkStandby is what a master that does not lead answers.
func checkStandby(t *testing.T, standby, leader *running) {
	t.Helper()
	s := standby.standing(t, "standby")
	for ; endpoint(s.Leader, "rpc") != leader.Addresses()["rpc"]; time.Sleep(10 * time.Millisecond) {
		s = standby.standing(t, "standby") // it hears of it a little later
	}
	_, err := standby.operator(t).ListAgents(t.Context(), &operatorv1.ListAgentsRequest{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the leader is at "+leader.Addresses()["rpc"]) {
		t.Errorf("a standby answered with %v", err)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	get := func(path string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+standby.Addresses()["http"]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, answer.Header.Get("Location") + string(body)
	}
	if code, body := get("/v1/tasks?framework_id=f"); code != http.StatusTemporaryRedirect || !strings.HasPrefix(body, "http://"+leader.Addresses()["http"]+"/v1/tasks?framework_id=f") {
		t.Errorf("a standby's /v1/tasks: %d %s", code, body)
	}
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 200, "/v1/status": 200, "/v1/plugins": 200, "/readyz": 503} {
		code, body := get(path)
		if code != want {
			t.Errorf("a standby's %s: %d %s", path, code, body)
		}
		if says := "leader: no: this master does not lead; the leader is at " + leader.Addresses()["rpc"]; path == "/readyz" && !strings.Contains(body, says) {
			t.Errorf("a standby's /readyz is %q, want %q in it", body, says)
		}
	}
}

func endpoint(list []*operatorv1.Endpoint, name string) string {
	for _, e := range list {
		if e.Name == name {
			return e.Address
		}
	}
	return ""
}

// BenchmarkFailover deposes a leader of many agents, and measures how long it
// takes until a leader has them all again. The agents, ZooKeeper's three servers
// and the master share the machine, and nobody waits for a session to end. The
// agents wait as by default: for a second at first, chosen by chance.
func BenchmarkFailover(b *testing.B) {
	for _, agents := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprint("agents=", agents), func(b *testing.B) {
			ensemble := zktest.Start(b, zktest.Options{Members: 3, Sync: true})
			session, err := zookeeper.Connect(zookeeper.Options{Servers: ensemble.Servers(), Timeout: 10 * time.Second})
			if err != nil {
				b.Fatal(err)
			}
			defer session.Close()
			o := oneOfSeveral(b, ensemble.Servers())
			o.Config.Election.SessionTimeout, o.Config.Registry.SessionTimeout = time.Minute, time.Minute
			m := start(b, o)
			swarm, err := mastertest.NewSwarm(mastertest.SwarmOptions{Address: m.Addresses()["rpc"], Agents: agents, Reconnect: true, Backoff: time.Second})
			if err != nil {
				b.Fatal(err)
			}
			defer swarm.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			began := time.Now()
			if err := swarm.AwaitRegistered(ctx); err != nil {
				b.Fatal(err)
			}
			admitted := time.Since(began)
			for b.Loop() {
				swarm.Forget()
				depose(b, session, m.Addresses()["rpc"])
				if err := swarm.AwaitRegistered(ctx); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(admitted.Seconds(), "admit-s")
		})
	}
}
