package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/core/adapter"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/sdk/framework"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// SetAdapters says which framework adapters the configuration has now.
func (a *Agent) SetAdapters(names []string) { a.post(a.life, state.SetAdapters{Adapters: names}) }

// newAdapters makes the set of the agent's adapters. Nothing is started.
func (s *Service) newAdapters(hostname string) *adapter.Set {
	return adapter.New(adapter.Options{
		Host: s.host, Logger: s.o.Logger.Named("adapters"), Side: framework.Agent,
		Hostname: hostname, Version: s.o.Version, PluginHost: "agent", AgentID: s.agentID, Authorizer: s.o.Authorizer,
		Register: s.registerForAdapter,
		Shelf:    func() (*adapter.Shelf, error) { return s.agent.shelf, nil },
		Up:       s.adapterUp,
		Down:     func(name string) { s.agent.AdapterDown(s.agent.life, name) },
	})
}

// adapterUp tells the agent where an adapter listens, and what it adds to the
// environment of executors.
func (s *Service) adapterUp(name string, serving *frameworkv1.ServeResponse) {
	var endpoints []*linkv1.Endpoint
	for _, e := range serving.GetEndpoints() {
		endpoints = append(endpoints, &linkv1.Endpoint{Name: e.GetName(), Address: e.GetAddress()})
	}
	var environment []state.Variable
	var tokens []string
	for _, v := range serving.GetExecutorEnvironment() {
		if v.GetExecutorToken() {
			tokens = append(tokens, v.GetName())
			continue
		}
		environment = append(environment, state.Variable{Name: v.GetName(), Value: v.GetValue()})
	}
	s.agent.AdapterUp(s.agent.life, name, environment, endpoints, tokens...)
}

// registerForAdapter registers what the agent offers to one process of an
// adapter.
func (s *Service) registerForAdapter(r grpc.ServiceRegistrar, from *adapter.Source) {
	executorv1.RegisterExecutorServer(r, s.agent.ExecutorServer(from.Name))
	operatorv1.RegisterAgentOperatorServer(r, &operatorService{Agent: s.agent, service: s})
}

// agentIDTimeout is how long an agent may take to say who it is. One that does
// not run yet does not know.
const agentIDTimeout = time.Second

// agentID is empty while the agent has none, or is not known.
func (s *Service) agentID() string {
	ctx, cancel := context.WithTimeout(context.Background(), agentIDTimeout)
	defer cancel()
	v, err := s.agent.State(ctx)
	if err != nil {
		return ""
	}
	return v.AgentID
}

// shelfBucket is where the database has what adapters store: adapter, a zero
// byte, key. It is the shell's, and never reaches the machine.
const shelfBucket = "adapters"

// openShelf reads what adapters have stored.
func openShelf(store *store) (*adapter.Shelf, error) {
	var records []adapter.Record
	_, err := guarded(func() (struct{}, error) {
		return struct{}{}, store.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(shelfBucket))
			if b == nil {
				return nil
			}
			return b.ForEach(func(k, v []byte) error {
				name, key, _ := strings.Cut(string(k), "\x00")
				records = append(records, adapter.Record{Adapter: name, Key: key, Data: append([]byte{}, v...)})
				return nil
			})
		})
	})
	if err != nil {
		return nil, damaged(store.db.Path(), err)
	}
	shelf, err := adapter.NewShelf(records, func(_ context.Context, r adapter.Record) error { return store.putShelf(r) })
	if err != nil {
		return nil, damaged(store.db.Path(), err)
	}
	return shelf, nil
}

// putShelf makes durable what an adapter stores.
func (s *store) putShelf(r adapter.Record) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(shelfBucket))
		if err != nil {
			return err
		}
		key := []byte(r.Adapter + "\x00" + r.Key)
		if len(r.Data) == 0 {
			return b.Delete(key)
		}
		return b.Put(key, r.Data)
	})
	if err != nil {
		return fmt.Errorf("agent database %s cannot be written: %w", s.db.Path(), err)
	}
	return nil
}
