package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// The keys of the registry, each followed by an id or a name.
const (
	agentPrefix     = "agents/"
	frameworkPrefix = "frameworks/"
	rolePrefix      = "roles/"
	// scheduleKey is the maintenance schedule's, which is one entry.
	scheduleKey = "maintenance/schedule"
)

// recordVersion is written into every record. A record of a higher version was
// written by a newer master and is refused, not guessed at.
const recordVersion = 1

// standing is what the registry says of an agent.
type standing string

const (
	standingAdmitted    standing = "admitted"
	standingUnreachable standing = "unreachable"
	standingGone        standing = "gone"
)

type agentRecord struct {
	Version  int      `json:"version"`
	Standing standing `json:"standing"`
	Hostname string   `json:"hostname"`
	// IP is its address when it was last here, so that its machine is known.
	IP    string    `json:"ip,omitempty"`
	Since time.Time `json:"since"`
	// What operators want of it, whatever its standing.
	Deactivated bool         `json:"deactivated,omitempty"`
	Drain       *drainRecord `json:"drain,omitempty"` // never changed, only replaced
}

type drainRecord struct {
	MaxGrace *time.Duration `json:"max_grace,omitempty"` // nanoseconds; nil: the tasks' own
	MarkGone bool           `json:"mark_gone,omitempty"`
	Drained  bool           `json:"drained,omitempty"`
}

type frameworkRecord struct {
	Version    int       `json:"version"`
	Info       []byte    `json:"info"` // a serialised mezzo.v1.FrameworkInfo
	Registered time.Time `json:"registered"`
	Adapter    string    `json:"adapter,omitempty"` // see framework.adapter
	// Waited is how long its scheduler has been away, nanoseconds, as leaders have
	// counted it: their clocks need not agree, so no moment is written.
	Waited time.Duration `json:"waited,omitempty"`
}

// roleRecord is what an operator has set for a role.
type roleRecord struct {
	Version int          `json:"version"`
	Weight  uint64       `json:"weight,omitempty"` // thousandths; 0: not set
	Quota   *quotaRecord `json:"quota,omitempty"`  // nil: not set
}

type quotaRecord struct {
	Guarantee map[string]int64 `json:"guarantee,omitempty"`
	Limit     map[string]int64 `json:"limit,omitempty"` // empty: no limit
}

// registry collects what is to be written and writes it in batches, one at a
// time, in order. After a failure the same batch is tried again, later: what
// depends on it waits.
type registry struct {
	queue    []registryEntry
	flight   []registryEntry // being written, or waiting to be tried again
	id       uint64
	writing  bool
	failures int
	retry    timer
}

type registryEntry struct {
	Entry
	// done runs when the entry is durable; may be nil.
	done func()
}

// What the registry's batch cannot hold would be tried for ever, and all behind
// it would wait: whoever asks for it is refused.
const (
	// maxInfo bounds a FrameworkInfo, whose record is a third larger.
	maxInfo = 256 << 10
	// maxSchedule bounds the maintenance schedule's record.
	maxSchedule = 384 << 10
)

const (
	registryRetryFirst = time.Second
	registryRetryMost  = 30 * time.Second
)

// write puts an entry into the queue. done runs, in a later step, when it is
// durable.
func (m *Machine) write(key string, value []byte, done func()) {
	m.registry.queue = append(m.registry.queue, registryEntry{Entry{Key: key, Value: value}, done})
}

func encodeRecord(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("state: a registry record does not encode: " + err.Error())
	}
	return b
}

// flushRegistry starts the next write if none is under way.
func (m *Machine) flushRegistry() {
	r := &m.registry
	if r.writing || r.retry.set() || len(r.flight) == 0 && len(r.queue) == 0 {
		return
	}
	if len(r.flight) == 0 {
		n, size := 0, 0
		for n < len(r.queue) {
			size += len(r.queue[n].Key) + len(r.queue[n].Value)
			if n > 0 && size > m.cfg.RegistryBatchBytes {
				break
			}
			n++
		}
		r.flight = append(r.flight, r.queue[:n]...)
		r.queue = append(r.queue[:0:0], r.queue[n:]...)
		r.id++
	}
	r.writing = true
	entries := make([]Entry, len(r.flight))
	for i := range r.flight {
		entries[i] = r.flight[i].Entry
	}
	m.emit(RegistryWrite{ID: r.id, Entries: entries})
}

func (m *Machine) registryWritten(in RegistryWritten) {
	r := &m.registry
	if !r.writing || in.ID != r.id {
		m.logf(Warn, "registry answered a write that is not under way", "write", in.ID)
		return
	}
	r.writing = false
	if in.Err != "" {
		wait := min(registryRetryFirst<<min(r.failures, 10), registryRetryMost)
		r.failures++
		m.logf(Error, "registry write failed; nothing that depends on it is done before it works",
			"error", in.Err, "entries", len(r.flight), "attempt", r.failures, "retry_in", wait)
		m.after(&r.retry, wait)
		return
	}
	if r.failures > 0 {
		m.logf(Info, "registry write works again", "attempts", r.failures+1)
	}
	r.failures = 0
	done := r.flight
	r.flight = nil
	for i := range done {
		if done[i].done != nil {
			done[i].done()
		}
	}
}

// writeAgent writes what an agent's standing is from now on.
func (m *Machine) writeAgent(a *agent, s standing, done func()) {
	a.record.Standing, a.record.Since = s, m.now.UTC()
	m.writeRecord(a, done)
}

// writeRecord writes an agent's record as it is wanted now, with all that waits
// to be written before it.
func (m *Machine) writeRecord(a *agent, done func()) {
	a.record.Version, a.record.Hostname, a.record.IP = recordVersion, a.hostname, a.ip
	m.write(agentPrefix+a.id, encodeRecord(a.record), done)
}

func (m *Machine) writeFramework(f *framework, done func()) {
	info, err := proto.MarshalOptions{Deterministic: true}.Marshal(f.info)
	if err != nil {
		panic("state: a framework's info does not encode: " + err.Error())
	}
	m.write(frameworkPrefix+f.id, encodeRecord(frameworkRecord{
		Version: recordVersion, Info: info, Registered: f.registered.UTC(), Adapter: f.adapter, Waited: f.waited,
	}), done)
}

// writeRole writes what is set for a role, or deletes the entry when nothing is.
func (m *Machine) writeRole(name string, o override, done func()) {
	if o.empty() {
		m.write(rolePrefix+name, nil, done)
		return
	}
	rec := roleRecord{Version: recordVersion, Weight: o.weight}
	if o.quota {
		rec.Quota = &quotaRecord{Guarantee: quantityMap(o.guarantee), Limit: quantityMap(o.limit)}
	}
	m.write(rolePrefix+name, encodeRecord(rec), done)
}

func quantityMap(q resource.Quantities) map[string]int64 {
	out := make(map[string]int64, len(q))
	for _, x := range q {
		out[x.Name] = int64(x.Amount)
	}
	return out
}

func quantitiesOf(in map[string]int64) resource.Quantities {
	list := make([]resource.Quantity, 0, len(in))
	for _, name := range sortedKeys(in) {
		list = append(list, resource.Quantity{Name: name, Amount: resource.Scalar(in[name])})
	}
	if len(list) == 0 {
		return nil
	}
	return list // sorted; a limit keeps its zeros
}

// decode reads one entry into the machine that is being made.
func (m *Machine) recoverEntry(e Entry) error {
	read := func(into any, version *int) error {
		if err := json.Unmarshal(e.Value, into); err != nil {
			return fmt.Errorf("registry entry %q cannot be read: %w; restore the registry from a backup", e.Key, err)
		}
		if *version != recordVersion {
			return fmt.Errorf("registry entry %q has version %d, this master reads version %d; use the master that wrote it, or a newer one",
				e.Key, *version, recordVersion)
		}
		return nil
	}
	switch {
	case strings.HasPrefix(e.Key, agentPrefix):
		var rec agentRecord
		if err := read(&rec, &rec.Version); err != nil {
			return err
		}
		return m.recoverAgent(e.Key[len(agentPrefix):], rec)
	case strings.HasPrefix(e.Key, frameworkPrefix):
		var rec frameworkRecord
		if err := read(&rec, &rec.Version); err != nil {
			return err
		}
		info := new(mezzov1.FrameworkInfo)
		if err := proto.Unmarshal(rec.Info, info); err != nil {
			return fmt.Errorf("registry entry %q cannot be read: %w; restore the registry from a backup", e.Key, err)
		}
		m.recoverFramework(e.Key[len(frameworkPrefix):], info, rec)
		return nil
	case e.Key == scheduleKey:
		var rec scheduleRecord
		if err := read(&rec, &rec.Version); err != nil {
			return err
		}
		m.schedule = newSchedule(rec.Windows, func(id MachineID) bool { return slices.Contains(rec.Down, id) })
		m.wantedSchedule, m.dirty.schedule = m.schedule, true
		return nil
	case strings.HasPrefix(e.Key, rolePrefix):
		var rec roleRecord
		if err := read(&rec, &rec.Version); err != nil {
			return err
		}
		set := override{weight: rec.Weight}
		if rec.Quota != nil {
			set.quota, set.guarantee, set.limit = true, quantitiesOf(rec.Quota.Guarantee), quantitiesOf(rec.Quota.Limit)
		}
		m.recoverRole(e.Key[len(rolePrefix):], set)
		return nil
	}
	return fmt.Errorf("registry entry %q is of no known kind; it was written by a newer master", e.Key)
}
