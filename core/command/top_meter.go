package command

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// meteredAgents is how many agents are asked for what is used, at most.
	meteredAgents = 64
	// sampleTimeout bounds one round of questions.
	sampleTimeout = 5 * time.Second
)

// sample is what was answered in one round.
type sample struct {
	status   *operatorv1.Status // nil: the master did not answer
	measured []measured
}

// measured is what one agent says that its containers have used.
type measured struct {
	agent  string
	at     time.Time
	usages []*operatorv1.ContainerUsage
}

// sample asks the master how the cluster is, and agents what is used: those that
// have tasks, those with most allocated first.
func (c *cli) sample(ctx context.Context, conn *grpc.ClientConn, agents []*operatorv1.Agent) sample {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	agents = slices.DeleteFunc(agents, func(a *operatorv1.Agent) bool {
		return a.Tasks == 0 || a.RpcAddress == "" || a.State == "unreachable" || a.State == "disconnected"
	})
	slices.SortStableFunc(agents, func(a, b *operatorv1.Agent) int {
		return cmp.Compare(amountOf(b.Allocated, "cpus"), amountOf(a.Allocated, "cpus"))
	})
	agents = agents[:min(len(agents), meteredAgents)]
	answers := make([]*measured, len(agents))
	var group sync.WaitGroup
	slots := make(chan struct{}, agentQueries)
	for i, a := range agents {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = c.usageOf(ctx, a)
		})
	}
	status, err := operatorv1.NewOperatorClient(conn).GetStatus(ctx, &operatorv1.GetStatusRequest{})
	group.Wait()
	if err != nil {
		return sample{}
	}
	out := sample{status: status}
	for _, m := range answers {
		if m != nil {
			out.measured = append(out.measured, *m)
		}
	}
	return out
}

// usageOf asks one agent; nil: it does not answer.
func (c *cli) usageOf(ctx context.Context, a *operatorv1.Agent) *measured {
	conn, err := c.dialAddress(a.RpcAddress)
	if err != nil {
		return nil
	}
	defer conn.Close()
	answer, err := operatorv1.NewAgentOperatorClient(conn).Usage(ctx, &operatorv1.ContainerUsageRequest{})
	if err != nil {
		return nil
	}
	return &measured{agent: a.Id, at: time.Now(), usages: answer.GetUsages()}
}

// use is what is used: processors, nil until it was measured twice, and MiB.
type use struct {
	cpus *float64
	mem  float64
}

// plus adds two; nil is nothing.
func (u *use) plus(v *use) *use {
	if u == nil {
		u = &use{}
	}
	sum := &use{cpus: u.cpus, mem: u.mem + v.mem}
	if v.cpus != nil {
		total := *v.cpus
		if u.cpus != nil {
			total += *u.cpus
		}
		sum.cpus = &total
	}
	return sum
}

// meter makes what containers have used by then into what they use now.
type meter struct {
	last       map[string]reading // by agent and container
	agents     map[string]*use
	frameworks map[string]*use
	tasks      map[objectKey]*use
}

// reading is a container's processor time.
type reading struct {
	at      time.Time
	seconds float64
}

// take takes a round over. What was not measured in it is not known any more.
func (m *meter) take(s sample) {
	last := m.last
	*m = meter{last: map[string]reading{}, agents: map[string]*use{}, frameworks: map[string]*use{}, tasks: map[objectKey]*use{}}
	for _, x := range s.measured {
		m.agents[x.agent] = &use{}
		for _, u := range x.usages {
			key := x.agent + "/" + u.Container
			now := &use{mem: float64(u.MemoryBytes) / (1 << 20)}
			if before, known := last[key]; known && x.at.After(before.at) && u.CpuSeconds >= before.seconds {
				rate := (u.CpuSeconds - before.seconds) / x.at.Sub(before.at).Seconds()
				now.cpus = &rate
			}
			m.last[key] = reading{x.at, u.CpuSeconds}
			if u.TaskId != "" {
				task := objectKey{kindTask, u.FrameworkId, u.TaskId}
				m.tasks[task] = m.tasks[task].plus(now)
			}
			if u.Parent == "" { // what is in it is counted with it
				m.agents[x.agent] = m.agents[x.agent].plus(now)
				m.frameworks[u.FrameworkId] = m.frameworks[u.FrameworkId].plus(now)
			}
		}
	}
}

// agent is what an agent's containers use. One without tasks uses nothing.
func (m *meter) agent(a *operatorv1.Agent) *use {
	if u := m.agents[a.Id]; u != nil || a.Tasks > 0 {
		return u
	}
	none := 0.0
	return &use{cpus: &none}
}
