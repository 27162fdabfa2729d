package test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/sdk/client"
	"github.com/mezzo-os/mezzo/sdk/framework"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// An agent that is going to be unavailable is offered with that, and who has
// something there is asked to leave, once, and again when its answer's time is
// over; the answers are kept for operators.
func TestPlannedUnavailability(t *testing.T) {
	t.Parallel()
	c := startSwapCluster(t, "allocator \"drf\" {}\n", 0)
	c.agent = serve(t, nil, "agent", "--data-dir", filepath.Join(tempDir(t), "agent"), "--master", c.rpc,
		"--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", "cpus:4;mem:1024;disk:100", "--end-tasks")
	offers, asked, rescinded := make(chan *mezzov1.Offer, 100), make(chan *mezzov1.InverseOffer, 100), make(chan string, 100)
	started := make(chan struct{}, 1)
	s := c.scheduler("resident", "*", framework.Callbacks{
		Offers: func(_ *framework.Scheduler, list []*mezzov1.Offer) {
			for _, o := range list {
				offers <- o
			}
		},
		InverseOffers: func(_ *framework.Scheduler, list []*mezzov1.InverseOffer) {
			for _, o := range list {
				asked <- o
			}
		},
		InverseRescinded: func(_ *framework.Scheduler, id string) { rescinded <- id },
		Update: func(_ *framework.Scheduler, st *mezzov1.TaskStatus) {
			if st.GetState() == mezzov1.TaskState_TASK_RUNNING {
				started <- struct{}{}
			}
		},
	})
	ctx := t.Context()
	offer := receive(t, "an offer", offers)
	if offer.GetUnavailability() != nil {
		t.Errorf("the offer tells of %v", offer.GetUnavailability())
	}
	if err := s.Launch(ctx, offer, sleepTask("t", offer.GetAgentId(), "*", "sleep", "100000")); err != nil {
		t.Fatal(err)
	}
	receive(t, "the task to run", started)

	operator := operatorOf(t, c.rpc)
	agent := offer.GetAgentId().GetValue()
	start := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	window := &operatorv1.Unavailability{Start: timestamppb.New(start), DurationSeconds: 600}
	set := func(windows ...*operatorv1.MaintenanceWindow) error {
		_, err := operator.SetMaintenanceSchedule(ctx, &operatorv1.SetMaintenanceScheduleRequest{Windows: windows})
		return err
	}
	machines := []*operatorv1.Machine{{Hostname: strings.ToUpper(offer.GetHostname())}}
	if err := set(&operatorv1.MaintenanceWindow{Unavailability: window}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a machine: %v", err)
	}
	if err := set(&operatorv1.MaintenanceWindow{Machines: machines, Unavailability: &operatorv1.Unavailability{}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without a start: %v", err)
	}
	if err := set(&operatorv1.MaintenanceWindow{Machines: machines, Unavailability: window}); err != nil {
		t.Fatal(err)
	}
	for offer = receive(t, "an offer with the window", offers); offer.GetUnavailability() == nil; offer = receive(t, "an offer with the window", offers) {
	}
	checkWindow(t, "the offer", offer.GetUnavailability(), start)
	if err := s.Decline(ctx, refuse(3600), offer.GetId()); err != nil {
		t.Fatal(err)
	}
	inverse := receive(t, "an inverse offer", asked)
	checkWindow(t, "the inverse offer", inverse.GetUnavailability(), start)
	if inverse.GetAgentId().GetValue() != agent {
		t.Errorf("it is asked to leave %v", inverse.GetAgentId())
	}

	// It is asked again when its answer's time is over, and not before another
	// one is over that is longer than the test.
	for _, answer := range []struct {
		leaves bool
		refuse float64
		want   string
	}{{false, 0.2, "declined"}, {true, 3600, "accepted"}} {
		if err := s.AnswerInverse(ctx, answer.leaves, refuse(answer.refuse), inverse.GetId()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the answer in the agent's view", func() bool {
			list, err := operator.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
			if err != nil || len(list.Agents) != 1 || len(list.Agents[0].InverseOffers) != 1 {
				t.Fatalf("agents %v, %v", list, err)
			}
			a := list.Agents[0]
			return a.InverseOffers[0].Status == answer.want && a.InverseOffers[0].FrameworkId == s.FrameworkID() && a.Unavailability.Start.AsTime().Equal(start)
		})
		if answer.leaves {
			break
		}
		inverse = receive(t, "to be asked again", asked)
	}
	// No window, no wish. The offer's filter is not about that.
	if err := set(); err != nil {
		t.Fatal(err)
	}
	list, err := operator.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil || list.Agents[0].Unavailability != nil || len(list.Agents[0].InverseOffers) != 0 {
		t.Errorf("agents %v, %v", list, err)
	}
	if n := len(asked) + len(rescinded); n != 0 {
		t.Errorf("%d more wishes, or wishes taken back", n)
	}
	if task := c.list("tasks"); len(task) != 1 || task[0]["state"] != "TASK_RUNNING" {
		t.Errorf("tasks %v, want one that runs", task)
	}
}

func checkWindow(t *testing.T, what string, u *mezzov1.Unavailability, start time.Time) {
	t.Helper()
	if u.GetStart().GetNanoseconds() != start.UnixNano() || u.GetDuration().GetNanoseconds() != int64(10*time.Minute) {
		t.Errorf("%s tells of %v, want ten minutes from %v", what, u, start)
	}
}

// receive takes the next of what comes.
func receive[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func operatorOf(t *testing.T, address string) operatorv1.OperatorClient {
	t.Helper()
	conn, err := client.Dial(address, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return operatorv1.NewOperatorClient(conn)
}

// Agents in another region than the master's are for the region-aware alone.
func TestRegions(t *testing.T) {
	t.Parallel()
	config := filepath.Join(tempDir(t), "dev.hcl")
	writeFile(t, config, `
master {
  domain {
    region = "eu"
    zone   = "eu-1"
  }
}
agent {
  domain {
    region = "us"
    zone   = "us-1"
  }
}
`)
	c := startDev(t, "--config", config)
	c.start("run", "--name", "local", "--", "true")
	eventually(t, "why it waits", func() bool {
		r := c.mezzo("why", "local")
		return r.code == 0 && strings.Contains(r.stdout, "the agent is in another region, and the framework lacks REGION_AWARE")
	})
	offered := make(chan *mezzov1.Offer, 10)
	swap := &swapCluster{t: t, rpc: c.fields["rpc"]}
	s := swap.scheduler("worldwide", "*", framework.Callbacks{
		Offers: func(s *framework.Scheduler, list []*mezzov1.Offer) {
			_ = s.Decline(context.Background(), refuse(3600), list[0].GetId())
			offered <- list[0]
		},
	}, mezzov1.FrameworkInfo_Capability_REGION_AWARE)
	domain := receive(t, "an offer to the region-aware", offered).GetDomain().GetFaultDomain()
	if domain.GetRegion().GetName() != "us" || domain.GetZone().GetName() != "us-1" {
		t.Errorf("the offer to %s tells of %v", s.FrameworkID(), domain)
	}
}
