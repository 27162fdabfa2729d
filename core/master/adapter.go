package master

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/sdk/framework"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// shelfPrefix is where the registry has what adapters store, followed by the
// adapter's name, a slash and its key. These entries are the shell's, and never
// reach the machine.
const shelfPrefix = "adapters/"

// newAdapters makes the set of the master's adapters. Nothing is started.
func (m *Master) newAdapters() *adapter.Set {
	return adapter.New(adapter.Options{
		Host: m.host, Logger: m.logger.Named("adapters"), Side: framework.Master,
		Hostname: m.hostname(), Version: m.options.Version, PluginHost: "master", Authorizer: m.authorizer, Reserved: []string{"rpc", "http"},
		Register: func(s grpc.ServiceRegistrar, from *adapter.Source) {
			schedulerv1.RegisterSchedulerServer(s, &schedulerService{master: m, from: from})
			operatorv1.RegisterOperatorServer(s, &operatorService{master: m})
			frameworkv1.RegisterLeadershipServer(s, &leadershipService{master: m})
		},
		Shelf: func() (*adapter.Shelf, error) {
			t, err := m.leading()
			if err != nil {
				return nil, err
			}
			return t.shelf, nil
		},
		Up:       func(name string, _ *frameworkv1.ServeResponse) { m.adapterServes(name, true) },
		Down:     func(name string) { m.adapterServes(name, false) },
		OnStatus: func(p *operatorv1.Plugin) { m.mirror.put(change{plugin: p}) },
	})
}

// adapterServes tells the machine, and all who look for the leader.
func (m *Master) adapterServes(name string, serves bool) {
	m.termMu.Lock()
	defer m.termMu.Unlock()
	if serves {
		m.serving[name] = true
	} else {
		delete(m.serving, name)
	}
	if t := m.term.Load(); t != nil {
		t.tellAdapter(name, serves)
	}
	m.announce()
}

// tellAdapter tells a term's machine. It is refused only when the term is over.
func (t *term) tellAdapter(name string, serves bool) {
	if serves {
		_ = t.inbox.post(state.AdapterUp{Adapter: name})
	} else {
		_ = t.inbox.post(state.AdapterDown{Adapter: name})
	}
}

// candidate is the master as the election is told of it.
func (m *Master) candidate() election.Candidate {
	endpoints := m.Addresses()
	for name, address := range endpoints {
		endpoints[name] = m.reachable(address)
	}
	return election.Candidate{ID: m.id, Endpoints: endpoints}
}

// announce publishes where the master and its adapters are.
func (m *Master) announce() { m.election.Update(m.candidate()) }

// splitEntries takes apart what of the registry is the machine's, and what the
// adapters'.
func splitEntries(entries []registry.Entry) (machine []state.Entry, shelf []adapter.Record) {
	for _, e := range entries {
		if rest, stored := strings.CutPrefix(e.Key, shelfPrefix); stored {
			name, key, _ := strings.Cut(rest, "/")
			shelf = append(shelf, adapter.Record{Adapter: name, Key: key, Data: e.Value})
			continue
		}
		machine = append(machine, state.Entry{Key: e.Key, Value: e.Value})
	}
	return machine, shelf
}

// store makes durable what an adapter stores. Only the leader can.
func (t *term) store(ctx context.Context, r adapter.Record) error {
	_, err := t.master.registry.Commit(ctx, t.epoch, registry.Batch{{
		Key: shelfPrefix + r.Adapter + "/" + r.Key, Value: r.Data, Delete: len(r.Data) == 0, Expect: registry.Any,
	}})
	if errors.Is(err, registry.ErrSuperseded) {
		return unavailable("another master leads now")
	}
	return err
}

// leadershipService tells an adapter whether this master leads, and who does.
type leadershipService struct {
	frameworkv1.UnimplementedLeadershipServer
	master *Master
}

// Watch sends the state whenever it changes.
func (s *leadershipService) Watch(_ *frameworkv1.WatchLeadershipRequest, stream grpc.ServerStreamingServer[frameworkv1.LeadershipState]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	leaders := s.master.election.Watch(ctx)
	var leader *election.Candidate
	// What the election knows comes at once: no adapter hears of a leader that
	// nobody is, or of none while there is one.
	select {
	case leader = <-leaders:
	case <-ctx.Done():
		return ctx.Err()
	}
	var told *frameworkv1.LeadershipState
	for {
		now, news := s.master.leadership(leader)
		if !proto.Equal(now, told) {
			if err := stream.Send(now); err != nil {
				return err
			}
			told = now
		}
		select {
		case next, open := <-leaders:
			if !open {
				return errStopped
			}
			leader = next
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leadership is what an adapter is told now, and a channel that closes when that
// may have changed.
func (m *Master) leadership(leader *election.Candidate) (*frameworkv1.LeadershipState, <-chan struct{}) {
	m.termMu.Lock()
	t, elected, news := m.term.Load(), m.elected, m.termNews
	m.termMu.Unlock()
	out := &frameworkv1.LeadershipState{State: frameworkv1.LeadershipState_STATE_STANDBY}
	if leader != nil {
		out.LeaderId = leader.ID
		for _, name := range slices.Sorted(maps.Keys(leader.Endpoints)) {
			out.Endpoints = append(out.Endpoints, &frameworkv1.Endpoint{Name: name, Address: leader.Endpoints[name]})
		}
	}
	switch {
	case t != nil:
		out.State, out.Epoch, out.LeaderId = frameworkv1.LeadershipState_STATE_LEADING, t.epoch, t.id
	case elected:
		out.State = frameworkv1.LeadershipState_STATE_RECOVERING
	}
	return out, news
}

// endpointMessages are addresses by name, in order.
func endpointMessages(addresses map[string]string) []*operatorv1.Endpoint {
	var out []*operatorv1.Endpoint
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		out = append(out, &operatorv1.Endpoint{Name: name, Address: addresses[name]})
	}
	return out
}
