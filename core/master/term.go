package master

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/master/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// term is one leadership: its machine, its loop, and what hangs on them. It is
// thrown away whole.
type term struct {
	master  *Master
	id      string
	epoch   uint64
	elected time.Time
	inbox   *inbox
	loop    *loop
	writes  chan state.RegistryWrite
	shelf   *adapter.Shelf // what adapters store
	over    chan struct{}  // closed when the loop has ended
}

// newTerm takes the epoch, reads the registry and makes the machine.
func (m *Master) newTerm(ctx context.Context) (*term, error) {
	m.unwritten.Store(nil)
	epoch, err := m.registry.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("take the leader's epoch: %w", err)
	}
	entries, err := m.registry.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the registry: %w", err)
	}
	machineEntries, records := splitEntries(entries)
	recovered := state.Recovered{Entries: machineEntries}
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("master id: %w", err)
	}
	t := &term{
		master: m, id: fmt.Sprintf("%x-%d", random, epoch), epoch: epoch, elected: time.Now(),
		inbox: newInbox(), writes: make(chan state.RegistryWrite, 1), over: make(chan struct{}),
	}
	if t.shelf, err = adapter.NewShelf(records, t.store); err != nil {
		return nil, err
	}
	machine, err := state.New(m.stateConfig(m.config.Load(), t, uint64(binary.BigEndian.Uint32(random[:]))), recovered, t.elected)
	if err != nil {
		return nil, err
	}
	t.loop = newLoop(withTraces(machine, m.tracer), t.inbox, m.logger, m.metrics, m.mirror, t.writes)
	t.loop.allocator, t.loop.takeOver = m.allocator.Load, m.takeOver
	return t, nil
}

// stateConfig is what a configuration says to a term's machine.
func (m *Master) stateConfig(c *config.Master, t *term, seed uint64) state.Config {
	out := state.Config{
		MasterID: t.id, Epoch: t.epoch, Version: m.options.Version, MasterInfo: m.masterInfo(t.id), Seed: seed,
		OfferTimeout: c.OfferTimeout, PingInterval: c.AgentPingInterval, PingTimeouts: c.AgentPingTimeouts,
		AgentReregisterTimeout: c.AgentReregisterTimeout, UnreachablePerMinute: c.AgentRemovalsPerMinute,
		MaxCompletedFrameworks: c.MaxCompletedFrameworks, MaxCompletedTasks: c.MaxCompletedTasks,
		MaxUnreachableTasks: c.MaxUnreachableTasks, MaxAwayAgents: c.MaxAwayAgents, AgentForgetAfter: c.AgentForgetAfter,
		BatchInterval: c.BatchInterval, MinRefuse: c.MinRefuse, MaxDecisionsPerSecond: c.MaxDecisionsPerSecond,
		MinAllocatable: c.MinAllocatableQuantities(), FilterGPUResources: c.FilterGPUResources, Region: c.Domain.Region,
		HeartbeatInterval: m.options.HeartbeatInterval,
		Revocation: state.Revocation{
			Enabled: c.Revocation.Enabled, MinGrace: c.Revocation.MinGrace, MaxPerMinute: c.Revocation.MaxPerMinute,
		},
		// Only one that may revoke has to know every task.
		TellTasks: c.Revocation.Enabled,
		// Many changes of one agent or framework become one of its view.
		PublishInterval: publishInterval,
	}
	for _, r := range c.Roles {
		role := state.Role{Name: r.Name, Weight: thousandths(r.Weight), Guarantee: resource.NewQuantities(r.GuaranteeQuantities()...)}
		if r.Limit != "" {
			role.Limit = resource.Quantities(r.LimitQuantities())
		}
		out.Roles = append(out.Roles, role)
	}
	return out
}

// thousandths is a weight as the machine has it. One that is above 0 stays
// above 0, which stands for none.
func thousandths(weight float64) uint64 {
	if weight <= 0 {
		return 0
	}
	return max(1, uint64(math.Round(weight*1000)))
}

// hostname is the name under which others reach the master's machine.
func (m *Master) hostname() string {
	if name := m.options.Config.Hostname; name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		name, _, _ = net.SplitHostPort(m.options.Config.RPC)
	}
	return name
}

// masterInfo is what schedulers are told of the master.
func (m *Master) masterInfo(id string) *mezzov1.MasterInfo {
	_, text, _ := net.SplitHostPort(m.rpc.Address())
	port, _ := strconv.ParseUint(text, 10, 16)
	name, host := m.hostname(), m.ip
	info := &mezzov1.MasterInfo{
		Id: proto.String(id), Ip: proto.Uint32(0), Port: proto.Uint32(uint32(port)), Hostname: proto.String(name),
		Version: proto.String(m.options.Version), Domain: m.options.Config.Domain.Proto(),
		Address: &mezzov1.Address{Hostname: proto.String(name), Ip: proto.String(host), Port: proto.Int32(int32(port))},
	}
	// The v1 schema has an IPv4 address as a number whose first byte is the
	// lowest in memory.
	if ip := net.ParseIP(host).To4(); ip != nil {
		info.Ip = proto.Uint32(binary.LittleEndian.Uint32(ip))
	}
	return info
}
