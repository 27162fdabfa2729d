package master

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/election/standalone"
	elect "github.com/mezzo-os/mezzo/core/election/zookeeper"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/registry/bolt"
	keep "github.com/mezzo-os/mezzo/core/registry/zookeeper"
	"github.com/mezzo-os/mezzo/core/zookeeper"
)

const (
	byZooKeeper = "zookeeper"

	// The pause between a term and the next candidacy: it doubles with each term
	// that was short, and half of it is chance.
	campaignBackoffMin = 100 * time.Millisecond
	campaignBackoffMax = 30 * time.Second
	// longTerm is one that was not short.
	longTerm = time.Minute

	// defaultEpochCheck is Options.EpochCheck when it is 0.
	defaultEpochCheck = 10 * time.Second

	// commitBytes bounds one write of the registry, overhead included.
	commitBytes = registry.MaxBatch / 2
)

// errDeposed is why a term ends when the election says so.
var errDeposed = errors.New("this master is not the leader any more")

func randomID() (string, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", fmt.Errorf("candidate id: %w", err)
	}
	return hex.EncodeToString(random[:]), nil
}

// OpenElection opens the election that the configuration names.
func OpenElection(c *config.Master, logger hclog.Logger) (election.Election, error) {
	if c.Election.Kind != byZooKeeper {
		return standalone.New(), nil
	}
	e := c.Election
	tls, err := e.TLS.Client()
	if err != nil {
		return nil, err
	}
	return elect.New(elect.Options{Path: e.Path, Session: zookeeper.Options{
		Servers: e.Servers, Timeout: e.SessionTimeout, Auth: e.Auth, TLS: tls, Logger: logger.Named("election"),
	}}), nil
}

// OpenRegistry opens the registry that the configuration names. damaged, unless
// it is nil, is called for each server of ZooKeeper that is found to lack writes.
func OpenRegistry(c *config.Master, logger hclog.Logger, damaged func()) (registry.Registry, error) {
	if c.Registry.Kind != byZooKeeper {
		r, err := bolt.Open(cmp.Or(c.Registry.File, filepath.Join(c.DataDir, bolt.File)))
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	r := c.Registry
	tls, err := r.TLS.Client()
	if err != nil {
		return nil, err
	}
	logger = logger.Named("registry")
	several, err := keep.Open(keep.Options{Path: r.Path, Session: zookeeper.Options{
		Servers: r.Servers, Timeout: r.SessionTimeout, Auth: r.Auth, TLS: tls, Logger: logger,
	}, Damaged: func(server string) {
		logger.Error("a server of ZooKeeper lacks committed writes; another one is asked", "server", server)
		if damaged != nil {
			damaged()
		}
	}})
	if err != nil {
		return nil, err
	}
	return several, nil
}

// alone is whether there can be no other master.
func (m *Master) alone() bool { return m.options.Config.Election.Kind != byZooKeeper }

// campaign leads again and again, until ctx ends. A master that is alone and
// cannot lead fails; one of several leaves it to another, and stands again.
func (m *Master) campaign(ctx context.Context) error {
	pause := campaignBackoffMin
	for {
		began := time.Now()
		err := m.lead(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if m.alone() {
			return cmp.Or(err, errDeposed)
		}
		if time.Since(began) > longTerm {
			pause = campaignBackoffMin
		}
		wait := pause/2 + mathrand.N(pause/2+1)
		m.logger.Warn("this master does not lead any more; it stands by", "reason", cmp.Or(err, errDeposed), "pause", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, campaignBackoffMax)
	}
}

// lead waits to be elected, then leads until ctx ends or leadership is lost.
func (m *Master) lead(ctx context.Context) error {
	won, err := m.election.Campaign(ctx, m.candidate())
	if err != nil {
		return err
	}
	defer won.Resign()
	elected := time.Now()
	m.announce() // an adapter may have come since
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	running.Go(func() {
		select {
		case <-won.Done():
			cancel(errDeposed)
		case <-ctx.Done():
		}
	})
	m.setTerm(nil, true)
	defer m.setTerm(nil, false)
	t, err := m.newTerm(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.failed.Store(&failure{err})
		return err
	}
	m.failed.Store(nil)
	m.logger.Info("leading", "master_id", t.id, "epoch", t.epoch, "recovered_in", time.Since(elected).Round(time.Millisecond))
	running.Go(func() { t.write(ctx, cancel) })
	running.Go(func() { t.watchEpoch(ctx, cancel, cmp.Or(m.options.EpochCheck, defaultEpochCheck)) })
	running.Go(func() {
		defer close(t.over)
		t.loop.run(ctx)
	})
	m.metrics.terms.Inc()
	m.setTerm(t, true)
	<-ctx.Done()
	m.setTerm(nil, false)
	running.Wait()
	m.mirror.put(change{reset: true})
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// failure is why a master that was elected could not lead.
type failure struct{ err error }

// damaged is whether it was because the registry has lost writes.
func (f *failure) damaged() bool { return f != nil && errors.Is(f.err, registry.ErrDamaged) }

// followLeader keeps what this master tells others of the leader.
func (m *Master) followLeader(ctx context.Context) {
	for leader := range m.election.Watch(ctx) {
		m.leader.Store(leader)
	}
}

// notLeading says so, and who leads.
func (m *Master) notLeading() string {
	if leader := m.leader.Load(); leader != nil && leader.ID != m.id {
		return "this master does not lead; the leader is at " + leader.Endpoints["rpc"]
	}
	return "this master does not lead"
}

// leadersRPC is the rpc address of a leader that is not this master; empty:
// there is none, or it is unknown.
func (m *Master) leadersRPC() string { return m.leaders("rpc") }

// leadersHTTP is where another master answers HTTP requests that this one cannot;
// empty: this one leads, or nobody is known to.
func (m *Master) leadersHTTP() string { return m.leaders("http") }

func (m *Master) leaders(endpoint string) string {
	leader := m.leader.Load()
	if m.term.Load() != nil || leader == nil || leader.ID == m.id {
		return ""
	}
	return leader.Endpoints[endpoint]
}

// reachable is an address as others can dial it: a listener on all interfaces is
// reached by the machine's name.
func (m *Master) reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort(m.hostname(), port)
	}
	return address
}

// write carries out registry writes, one at a time, until the loop has ended.
// Being superseded ends the term: nothing that this master decides counts any
// more.
func (t *term) write(ctx context.Context, cancel context.CancelCauseFunc) {
	for w := range t.writes {
		began := time.Now()
		err := t.commit(ctx, w.Entries)
		t.master.metrics.write.Observe(time.Since(began).Seconds())
		if errors.Is(err, registry.ErrSuperseded) {
			cancel(err)
			continue
		}
		answer := state.RegistryWritten{ID: w.ID}
		t.master.unwritten.Store(nil)
		if err != nil {
			answer.Err = err.Error()
			t.master.unwritten.Store(&answer.Err)
		}
		_ = t.inbox.post(answer) // refused only when the term is over
	}
}

// watchEpoch ends the term when somebody has taken a later epoch. A leader that
// writes finds that out; one that has nothing to write would lead on beside
// agents that refuse it. It comes about when a candidate that was elected before
// was slow, and took its epoch last.
func (t *term) watchEpoch(ctx context.Context, cancel context.CancelCauseFunc, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asking, asked := context.WithTimeout(ctx, every)
		newest, err := t.master.registry.Epoch(asking)
		asked()
		if err == nil && newest > t.epoch {
			cancel(fmt.Errorf("%w: its epoch is %d, this master's %d", registry.ErrSuperseded, newest, t.epoch))
			return
		}
	}
}

// commit writes entries in order, in batches that the registry takes. Of a key
// that stands twice only the last counts. Whoever reads after a part of it finds
// each entry as it was or as it is to be, which is all that they promise; after
// an error the whole is written again.
func (t *term) commit(ctx context.Context, entries []state.Entry) error {
	last := make(map[string]int, len(entries))
	for i, e := range entries {
		last[e.Key] = i
	}
	var batch registry.Batch
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		_, err := t.master.registry.Commit(ctx, t.epoch, batch)
		batch, size = nil, 0
		return err
	}
	for i, e := range entries {
		if last[e.Key] != i {
			continue
		}
		bytes := len(e.Key) + len(e.Value) + registry.Overhead
		if size+bytes > commitBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		batch = append(batch, registry.Op{Key: e.Key, Value: e.Value, Delete: e.Value == nil, Expect: registry.Any})
		size += bytes
	}
	return flush()
}
