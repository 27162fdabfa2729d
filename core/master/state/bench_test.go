package state_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/resource"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// bare is a machine whose registry writes work at once.
type bare struct {
	m   *state.Machine
	now time.Time
}

func (b *bare) step(in state.Input) []state.Output {
	b.now = b.now.Add(time.Microsecond)
	outs := b.m.Step(b.now, in)
	for _, o := range outs {
		if w, ok := o.(state.RegistryWrite); ok {
			rest := append([]state.Output(nil), outs...)
			return append(rest, b.step(state.RegistryWritten{ID: w.ID})...)
		}
	}
	return outs
}

func newBare(tb testing.TB, rec state.Recovered) *bare {
	m, err := state.New(state.Config{MasterID: "m", PublishInterval: 10 * time.Millisecond, MaxDecisionsPerSecond: 1 << 30}, rec, epoch)
	if err != nil {
		tb.Fatal(err)
	}
	return &bare{m, epoch}
}

func message(l state.Link, m *linkv1.AgentMessage) state.LinkMessage {
	return state.LinkMessage{Link: l, Message: m}
}

// BenchmarkTask is a task from offer to acknowledged end: what the machine
// itself costs of the 20,000 a second that a master is to do.
func BenchmarkTask(b *testing.B) {
	w := newBare(b, state.Recovered{})
	const agents = 1000
	total := resource.MustParse("cpus:64;mem:65536;ports:[31000-32000]")
	for i := range agents {
		w.step(state.LinkOpened{Link: state.Link(i + 1)})
		w.step(message(state.Link(i+1), &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register("", fmt.Sprintf("h%d", i), total, nil)}}))
	}
	w.step(state.Subscribe{Stream: "s", Call: &schedulerv1.Call_Subscribe{FrameworkInfo: framework("f", "", []string{"*"}, 1000)}})
	w.step(state.AllocatorOpened{Session: 1})
	for range agents {
		w.step(state.Tick{})
	}
	w.step(state.AllocatorReady{Session: 1})
	res := resource.MustParse("cpus:1;mem:128")
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		link := state.Link(i%agents + 1)
		agent := fmt.Sprintf("m-S%d", i%agents)
		id := fmt.Sprintf("t%d", i)
		w.step(state.AllocatorDecisions{Session: 1, Decisions: []allocator.Decision{
			&allocator.Offer{Number: uint64(i + 1), Agent: agent, Framework: "m-0000", Role: "*", Resources: res},
		}})
		w.step(call("m-0000", "s", &schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{
			OfferIds: offerIDs(fmt.Sprintf("m-O%d", i)), Operations: []*mezzov1.Offer_Operation{launch(taskInfo(id, agent, res))},
		}}))
		for j, s := range []mezzov1.TaskState{mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_FINISHED} {
			w.step(message(link, &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Update{Update: &linkv1.StatusUpdate{
				FrameworkId: "m-0000", Status: status(id, agent, s, uuid(j)),
			}}}))
			w.step(call("m-0000", "s", &schedulerv1.Call{Type: schedulerv1.Call_ACKNOWLEDGE.Enum(), Acknowledge: &schedulerv1.Call_Acknowledge{
				AgentId: agentID(agent), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, Uuid: uuid(j),
			}}))
		}
	}
	b.StopTimer()
	if err := w.m.Audit(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkReregister is 10,000 agents with ten tasks each that come back to a
// new leader.
func BenchmarkReregister(b *testing.B) {
	const agents, tasks = 10_000, 10
	first := newBare(b, state.Recovered{})
	var rec state.Recovered
	keep := func(outs []state.Output) {
		for _, o := range outs {
			if w, ok := o.(state.RegistryWrite); ok {
				rec.Entries = append(rec.Entries, w.Entries...)
			}
		}
	}
	total := resource.MustParse("cpus:64;mem:65536;ports:[31000-32000]")
	for i := range agents {
		first.step(state.LinkOpened{Link: state.Link(i + 1)})
		keep(first.step(message(state.Link(i+1), &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register("", fmt.Sprintf("h%d", i), total, nil)}})))
	}
	keep(first.step(state.Subscribe{Stream: "s", Call: &schedulerv1.Call_Subscribe{FrameworkInfo: framework("f", "", []string{"*"}, 1000)}}))
	registers := make([]*linkv1.Register, agents)
	for i := range registers {
		var list []reported
		for j := range tasks {
			list = append(list, reported{
				framework: "m-0000", id: fmt.Sprintf("t%d-%d", i, j), resources: resource.MustParse("cpus:1;mem:128"), role: "*",
				state: mezzov1.TaskState_TASK_RUNNING,
			})
		}
		registers[i] = register(fmt.Sprintf("m-S%d", i), fmt.Sprintf("h%d", i), total, list)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		w := newBare(b, rec)
		w.step(state.AllocatorOpened{Session: 1})
		for i, r := range registers {
			w.step(state.LinkOpened{Link: state.Link(i + 1)})
			w.step(message(state.Link(i+1), &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: r}}))
		}
	}
}

// BenchmarkOffers is a cycle of offers, of 10,000 agents to 200 frameworks, and
// their return: what the machine itself costs of a cycle. With "few", every
// twelfth agent only, which has seven tasks, and nothing of the machine is in
// the processor's caches, as when the master has done other things meanwhile.
func BenchmarkOffers(b *testing.B) {
	b.Run("all", func(b *testing.B) { benchmarkOffers(b, 1, 0, nil) })
	b.Run("few", func(b *testing.B) { benchmarkOffers(b, 12, 7, make([]byte, 64<<20)) })
}

func benchmarkOffers(b *testing.B, every, tasks int, other []byte) {
	w := newBare(b, state.Recovered{})
	const agents, frameworks = 10_000, 200
	total := resource.MustParse("cpus:24;mem:4096;disk:4096;ports:[31000-32000]")
	for i := range frameworks {
		w.step(state.Subscribe{Stream: state.Stream(fmt.Sprint("s", i)), Call: &schedulerv1.Call_Subscribe{FrameworkInfo: framework(fmt.Sprint("f", i), "", []string{"*"}, 1000)}})
	}
	for i := range agents {
		var held []reported
		for t := range tasks {
			held = append(held, reported{
				framework: fmt.Sprintf("m-%04d", (i*tasks+t)%frameworks), id: fmt.Sprintf("t%d-%d", i, t), role: "*", state: mezzov1.TaskState_TASK_RUNNING,
				resources: resource.MustParse(fmt.Sprintf("cpus:3;mem:512;disk:512;ports:[%d-%d]", 31000+125*t, 31000+125*t+124)),
			})
		}
		w.step(state.LinkOpened{Link: state.Link(i + 1)})
		w.step(message(state.Link(i+1), &linkv1.AgentMessage{Message: &linkv1.AgentMessage_Register{Register: register("", fmt.Sprintf("h%d", i), total, held)}}))
	}
	w.step(state.AllocatorOpened{Session: 1})
	for range agents {
		w.step(state.Tick{})
	}
	w.step(state.AllocatorReady{Session: 1})
	free := total
	if tasks > 0 {
		free = resource.MustParse(fmt.Sprintf("cpus:%d;mem:%d;disk:%d;ports:[%d-32000]", 24-3*tasks, 4096-512*tasks, 4096-512*tasks, 31000+125*tasks))
	}
	var offering, declining []time.Duration
	serial := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		var decisions []allocator.Decision
		byFramework := make([][]*mezzov1.OfferID, frameworks)
		// They come framework by framework.
		for f := range frameworks {
			for i := f * every; i < agents; i += frameworks * every {
				byFramework[f] = append(byFramework[f], offerIDs(fmt.Sprintf("m-O%d", serial))...)
				serial++
				decisions = append(decisions, &allocator.Offer{
					Number: serial, Agent: fmt.Sprintf("m-S%d", i), Framework: fmt.Sprintf("m-%04d", f), Role: "*", Resources: free,
				})
			}
		}
		for i := 0; i < len(other); i += 64 {
			other[i]++
		}
		b.StartTimer()
		began := time.Now()
		told := 0
		for some := range slices.Chunk(decisions, 256) { // as plugins send them
			for _, o := range w.step(state.AllocatorDecisions{Session: 1, Decisions: some}) {
				if _, is := o.(state.SendOffers); is {
					told++
				}
			}
		}
		offering = append(offering, time.Since(began))
		if told < frameworks {
			b.Fatalf("%d events, want one for each framework", told)
		}
		b.StopTimer()
		calls := make([]state.Input, 0, frameworks)
		for f, ids := range byFramework {
			calls = append(calls, call(fmt.Sprintf("m-%04d", f), fmt.Sprint("s", f), &schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
				OfferIds: ids, Filters: &mezzov1.Filters{RefuseSeconds: proto.Float64(0)},
			}}))
		}
		b.StartTimer()
		began = time.Now()
		for _, c := range calls {
			w.step(c)
		}
		declining = append(declining, time.Since(began))
	}
	n := (agents + every - 1) / every
	// The machine may have other things to do: the median tells more than the mean.
	b.ReportMetric(float64(middle(offering))/float64(n), "ns/offer")
	b.ReportMetric(float64(middle(declining))/float64(n), "ns/decline")
	b.ReportMetric(0, "ns/op")
	if err := w.m.Audit(); err != nil {
		b.Fatal(err)
	}
}

func middle(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
