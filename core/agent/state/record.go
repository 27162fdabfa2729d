package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// The buckets of the records. A value is JSON with a version, in which what came
// over the wire is kept in its wire form.
const (
	bucketAgent      = "agent"
	bucketFrameworks = "frameworks"
	bucketExecutors  = "executors"
	bucketContainers = "containers"
	bucketTasks      = "tasks"
	bucketTaskInfos  = "taskinfos" // apart, since they are large and never change
	bucketCompleted  = "completed"
	bucketIsolators  = "isolators"
	bucketResources  = "resources"
	bucketOperations = "operations"
	bucketChores     = "chores"
	bucketStandalone = "standalone"
)

// recordVersion is the newest form of a record that this code reads and the one
// that it writes.
const recordVersion = 1

// stored says what is still to be written of something.
type stored struct {
	dirty bool
	gone  bool // forgotten
	known bool // written once
}

func (s *stored) mark() *stored { return s }

// entity is what is written under a key of its own.
type entity interface {
	mark() *stored
	records() []Record // with values, also when gone
}

// touch notes that an entity changed in this step.
func (m *Machine) touch(e entity) {
	if s := e.mark(); !s.dirty {
		s.dirty = true
		m.dirty = append(m.dirty, e)
	}
}

// forget notes that an entity is not to be remembered any more.
func (m *Machine) forget(e entity) {
	e.mark().gone = true
	m.touch(e)
}

// changes are the records of what changed since it was last asked, in order of
// bucket and key.
func (m *Machine) changes() []Record {
	var list []Record
	for _, e := range m.dirty {
		s := e.mark()
		s.dirty = false
		if s.gone && !s.known {
			continue
		}
		s.known = true
		for _, r := range e.records() {
			if s.gone {
				r.Value = nil
			}
			list = append(list, r)
		}
	}
	m.dirty = m.dirty[:0]
	slices.SortStableFunc(list, func(a, b Record) int {
		if a.Bucket != b.Bucket {
			if a.Bucket < b.Bucket {
				return -1
			}
			return 1
		}
		switch {
		case a.Key < b.Key:
			return -1
		case a.Key > b.Key:
			return 1
		}
		return 0
	})
	return list
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("agent state: a record that JSON cannot hold: %v", err))
	}
	return b
}

// wire is a message's bytes: always the same for the same message. A message
// that lacks required fields is kept as it is.
func wire(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("agent state: %T cannot be written: %v", m, err))
	}
	return b
}

func unwire(b []byte, m proto.Message) error {
	return proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(b, m)
}

type agentRecord struct {
	Version    int         `json:"version"`
	ID         string      `json:"id,omitempty"`
	Epoch      uint64      `json:"epoch,omitempty"`
	Boot       string      `json:"boot,omitempty"`
	Configured *configured `json:"configured,omitempty"`
	TokenKey   []byte      `json:"token_key,omitempty"`
}

type agentEntity struct{ m *Machine }

func (a agentEntity) mark() *stored { return &a.m.stored }
func (a agentEntity) records() []Record {
	return []Record{{bucketAgent, "self", encode(agentRecord{
		Version: recordVersion, ID: a.m.id, Epoch: a.m.epoch, Boot: a.m.cfg.BootID, Configured: a.m.before, TokenKey: a.m.tokenKey,
	})}}
}

type frameworkRecord struct {
	Version     int    `json:"version"`
	Info        []byte `json:"info"`
	Terminating bool   `json:"terminating,omitempty"`
}

func (f *framework) records() []Record {
	return []Record{{bucketFrameworks, f.id, encode(frameworkRecord{Version: recordVersion, Info: wire(f.info), Terminating: f.terminating})}}
}

type executorRecord struct {
	Version   int            `json:"version"`
	Framework string         `json:"framework"`
	ID        string         `json:"id"`
	Role      string         `json:"role,omitempty"`
	Info      []byte         `json:"info,omitempty"`    // absent: a command task's
	Program   *programRecord `json:"program,omitempty"` // of a custom one
}

type programRecord struct {
	Adapter   string    `json:"adapter,omitempty"`
	Known     bool      `json:"known,omitempty"`
	Used      bool      `json:"used,omitempty"`
	Token     bool      `json:"token,omitempty"`
	StopBy    time.Time `json:"stop_by,omitzero"`
	StopAsked time.Time `json:"stop_asked,omitzero"`
	End       *end      `json:"end,omitempty"`
	// Mounted are volumes by their paths.
	Mounted map[string]VolumePlace `json:"mounted,omitempty"`
}

func (e *executor) records() []Record {
	r := executorRecord{Version: recordVersion, Framework: e.framework.id, ID: e.id, Role: e.role}
	if e.info != nil {
		r.Info = wire(e.info)
	}
	if p := e.program; p != nil {
		r.Program = &programRecord{Adapter: p.adapter, Known: p.known, Used: p.used, Token: p.token, StopBy: p.stopBy, StopAsked: p.stopAsked, End: p.end, Mounted: p.mounted}
	}
	return []Record{{bucketExecutors, e.run, encode(r)}}
}

type containerRecord struct {
	Version    int          `json:"version"`
	Run        string       `json:"run"`
	Framework  string       `json:"framework"`
	Task       string       `json:"task,omitempty"` // absent: a root
	Chain      []linkRecord `json:"chain"`
	State      string       `json:"state"` // "launching", "started" or "cleaning"
	PID        int64        `json:"pid,omitempty"`
	Netns      string       `json:"netns,omitempty"`
	Networks   [][]byte     `json:"networks,omitempty"`
	Cgroup     []byte       `json:"cgroup,omitempty"`
	Sandbox    string       `json:"sandbox"`
	Limitation []byte       `json:"limitation,omitempty"`
	Failure    string       `json:"failure,omitempty"`
}

type linkRecord struct {
	Isolator string `json:"isolator"`
	Launcher bool   `json:"launcher,omitempty"`
	Handle   []byte `json:"handle,omitempty"`
}

func linkRecords(chain []Link) (out []linkRecord) {
	for _, l := range chain {
		out = append(out, linkRecord(l))
	}
	return out
}

func links(chain []linkRecord) (out []Link) {
	for _, l := range chain {
		out = append(out, Link(l))
	}
	return out
}

// record is how far a container has got, as it is kept: what another process
// can take up.
func (p phase) record() string {
	switch p {
	case running, unknown:
		return "started"
	case cleaning:
		return "cleaning"
	}
	return "launching"
}

// phase reads what record writes.
func (d *decoder) phase(text string) phase {
	switch text {
	case "launching":
		return unborn
	case "started":
		return unknown
	case "cleaning":
		return cleaning
	}
	d.fail("a container in state %q", text)
	return unborn
}

func (c *container) records() []Record {
	r := containerRecord{
		Version: recordVersion, Run: c.executor.run, Framework: c.executor.framework.id,
		State: c.phase.record(), Chain: linkRecords(c.chain), PID: c.pid, Netns: c.netns, Sandbox: c.sandbox, Failure: c.failure,
	}
	if c.task != nil {
		r.Task = c.task.key.id
	}
	for _, n := range c.networks {
		r.Networks = append(r.Networks, wire(n))
	}
	if c.cgroup != nil {
		r.Cgroup = wire(c.cgroup)
	}
	if c.limitation != nil {
		r.Limitation = wire(c.limitation)
	}
	return []Record{{bucketContainers, c.id, encode(r)}}
}

type taskRecord struct {
	Version   int         `json:"version"`
	Framework string      `json:"framework"`
	ID        string      `json:"id"`
	Run       string      `json:"run,omitempty"` // absent: it never had a place to run
	Executor  string      `json:"executor,omitempty"`
	Container string      `json:"container,omitempty"`
	Sandbox   string      `json:"sandbox,omitempty"`
	Group     string      `json:"group,omitempty"`
	Role      string      `json:"role,omitempty"`
	Launched  time.Time   `json:"launched,omitzero"`
	Started   time.Time   `json:"started,omitzero"`
	Finished  time.Time   `json:"finished,omitzero"`
	Kill      *killRecord `json:"kill,omitempty"`
	Status    []byte      `json:"status"`
	Updates   [][]byte    `json:"updates,omitempty"`
	Delivered bool        `json:"delivered,omitempty"`
	Seen      [][]byte    `json:"seen,omitempty"`
}

type killRecord struct {
	Deadline time.Time `json:"deadline"`
	Escalate time.Time `json:"escalate,omitzero"`
	Asked    time.Time `json:"asked,omitzero"`
	Why      cause     `json:"why"`
	Message  string    `json:"message,omitempty"`
}

func (t *task) records() []Record {
	r := taskRecord{
		Version: recordVersion, Framework: t.key.framework, ID: t.key.id, Executor: t.executorID, Container: t.container,
		Sandbox: t.sandbox, Group: t.group, Role: t.role, Launched: t.launched, Started: t.started, Finished: t.finished,
		Status: wire(t.status), Delivered: t.delivered, Seen: t.seen,
	}
	if t.executor != nil {
		r.Run = t.executor.run
	}
	if t.kill != nil {
		r.Kill = &killRecord{Deadline: t.kill.deadline, Escalate: t.kill.escalate, Asked: t.kill.asked, Why: t.kill.why, Message: t.kill.message}
	}
	for _, u := range t.updates {
		r.Updates = append(r.Updates, wire(u))
	}
	list := []Record{{bucketTasks, t.recordKey(), encode(r)}}
	if t.info != nil && (!t.infoWritten || t.gone) {
		t.infoWritten = true
		list = append(list, Record{bucketTaskInfos, t.recordKey(), wire(t.info)})
	}
	return list
}

func (t *task) recordKey() string { return t.key.framework + "\x00" + t.key.id }

// completed is a task that has ended and was acknowledged.
type completed struct {
	stored
	number    uint64
	framework string
	id        string
	name      string
	executor  string
	role      string
	user      string // empty: an older agent remembered it
	owner     string // likewise, or its framework has no principal
	container string
	sandbox   string
	launched  time.Time
	started   time.Time
	finished  time.Time
	status    *mezzov1.TaskStatus
	resources []*mezzov1.Resource
}

type completedRecord struct {
	Version   int       `json:"version"`
	Framework string    `json:"framework"`
	ID        string    `json:"id"`
	Name      string    `json:"name,omitempty"`
	Executor  string    `json:"executor,omitempty"`
	Role      string    `json:"role,omitempty"`
	User      string    `json:"user,omitempty"`
	Owner     string    `json:"owner,omitempty"`
	Container string    `json:"container,omitempty"`
	Sandbox   string    `json:"sandbox,omitempty"`
	Launched  time.Time `json:"launched,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Finished  time.Time `json:"finished,omitzero"`
	Status    []byte    `json:"status"`
	Resources [][]byte  `json:"resources,omitempty"`
}

func (c *completed) records() []Record {
	r := completedRecord{
		Version: recordVersion, Framework: c.framework, ID: c.id, Name: c.name, Executor: c.executor, Role: c.role, User: c.user, Owner: c.owner, Container: c.container,
		Sandbox: c.sandbox, Launched: c.launched, Started: c.started, Finished: c.finished, Status: wire(c.status),
	}
	for _, res := range c.resources {
		r.Resources = append(r.Resources, wire(res))
	}
	return []Record{{bucketCompleted, fmt.Sprintf("%020d", c.number), encode(r)}}
}

func (i *isolator) mark() *stored { return &i.stored }
func (i *isolator) records() []Record {
	return []Record{{bucketIsolators, i.name, append([]byte{}, i.spec...)}}
}

// decoder reads records, and keeps the first error.
type decoder struct {
	record Record
	err    error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("record %q in %q: %w", d.record.Key, d.record.Bucket, fmt.Errorf(format, args...))
	}
}

func (d *decoder) json(into any, version *int) {
	if err := json.Unmarshal(d.record.Value, into); err != nil {
		d.fail("not what an agent wrote: %w", err)
	} else if *version < 1 || *version > recordVersion {
		d.fail("written in form %d, this agent reads forms 1 to %d: run the release that wrote it, or a newer one", *version, recordVersion)
	}
}

func (d *decoder) message(b []byte, m proto.Message) {
	if err := unwire(b, m); err != nil {
		d.fail("not what an agent wrote: %w", err)
	}
}

// read turns records back into what they were of.
func (m *Machine) read(records []Record) error {
	byBucket := map[string][]Record{}
	for _, r := range records {
		byBucket[r.Bucket] = append(byBucket[r.Bucket], r)
	}
	infos := map[string][]byte{}
	for _, r := range byBucket[bucketTaskInfos] {
		infos[r.Key] = r.Value
	}
	steps := []struct {
		bucket string
		read   func(*decoder)
	}{
		{bucketAgent, m.readAgent},
		{bucketFrameworks, m.readFramework},
		{bucketExecutors, m.readExecutor},
		{bucketTasks, func(d *decoder) { m.readTask(d, infos[d.record.Key]) }},
		{bucketContainers, m.readContainer},
		{bucketCompleted, m.readCompleted},
		{bucketIsolators, m.readIsolator},
		{bucketResources, m.readResources},
		{bucketOperations, m.readOperation},
		{bucketChores, m.readChore},
		{bucketStandalone, m.readStandalone},
	}
	for _, s := range steps {
		list := byBucket[s.bucket]
		slices.SortFunc(list, func(a, b Record) int {
			if a.Key < b.Key {
				return -1
			}
			return 1
		})
		for _, r := range list {
			d := &decoder{record: r}
			if s.read(d); d.err != nil {
				return d.err
			}
		}
	}
	return nil
}

func (m *Machine) readAgent(d *decoder) {
	var r agentRecord
	d.json(&r, &r.Version)
	m.id, m.epoch, m.stored, m.before, m.tokenKey = r.ID, r.Epoch, stored{known: true}, r.Configured, r.TokenKey
	m.rebooted = r.Boot != "" && m.cfg.BootID != "" && r.Boot != m.cfg.BootID
	if r.Boot != m.cfg.BootID || r.Configured == nil {
		m.touch(agentEntity{m})
	}
}

func (m *Machine) readFramework(d *decoder) {
	var r frameworkRecord
	d.json(&r, &r.Version)
	f := &framework{stored: stored{known: true}, id: d.record.Key, info: &mezzov1.FrameworkInfo{}, terminating: r.Terminating}
	d.message(r.Info, f.info)
	m.frameworks[f.id] = f
}

func (m *Machine) readExecutor(d *decoder) {
	var r executorRecord
	d.json(&r, &r.Version)
	f := m.frameworks[r.Framework]
	if f == nil {
		d.fail("names framework %q, which is not recorded", r.Framework)
		return
	}
	e := &executor{stored: stored{known: true}, run: d.record.Key, framework: f, id: r.ID, role: r.Role}
	if r.Info != nil {
		e.info = &mezzov1.ExecutorInfo{}
		d.message(r.Info, e.info)
	}
	if p := r.Program; p != nil {
		e.program = &program{adapter: p.Adapter, known: p.Known, used: p.Used, token: p.Token, stopBy: p.StopBy, stopAsked: p.StopAsked, end: p.End, mounted: p.Mounted}
		m.rebase(&e.program.stopAsked, &e.program.stopBy)
	}
	f.uses++
	m.executors[e.run] = e
}

// rebase moves deadlines that were set when the clock was ahead of what it is
// now: it has been set back, and nobody is to have that much more time.
func (m *Machine) rebase(asked *time.Time, deadlines ...*time.Time) {
	ahead := asked.Sub(m.now)
	if asked.IsZero() || ahead <= 0 {
		return
	}
	for _, at := range append(deadlines, asked) {
		if !at.IsZero() {
			*at = at.Add(-ahead)
		}
	}
}

func (m *Machine) readTask(d *decoder, info []byte) {
	var r taskRecord
	d.json(&r, &r.Version)
	t := &task{
		stored: stored{known: true}, key: taskKey{r.Framework, r.ID}, framework: m.frameworks[r.Framework], executorID: r.Executor, container: r.Container,
		sandbox: r.Sandbox, group: r.Group, role: r.Role, launched: r.Launched, started: r.Started, finished: r.Finished,
		delivered: r.Delivered, seen: r.Seen,
		status: &mezzov1.TaskStatus{},
	}
	d.message(r.Status, t.status)
	for _, b := range r.Updates {
		u := &mezzov1.TaskStatus{}
		d.message(b, u)
		t.updates = append(t.updates, u)
	}
	if r.Kill != nil {
		t.kill = &kill{deadline: r.Kill.Deadline, escalate: r.Kill.Escalate, asked: r.Kill.Asked, why: r.Kill.Why, message: r.Kill.Message}
		m.rebase(&t.kill.asked, &t.kill.deadline, &t.kill.escalate)
	}
	if info != nil {
		t.info, t.infoWritten = &mezzov1.TaskInfo{}, true
		d.message(info, t.info)
	}
	if t.framework != nil {
		t.framework.uses++
	}
	if r.Run != "" && !t.ended() {
		if t.executor = m.executors[r.Run]; t.executor == nil {
			d.fail("names executor run %q, which is not recorded", r.Run)
			return
		}
		t.executor.tasks = append(t.executor.tasks, t)
		if t.executor.program == nil { // others live on without tasks
			m.live[executorKey{t.key.framework, t.executor.id}] = t.executor
		}
	}
	m.tasks[t.key] = t
}

func (m *Machine) readContainer(d *decoder) {
	var r containerRecord
	d.json(&r, &r.Version)
	e := m.executors[r.Run]
	if e == nil {
		d.fail("names executor run %q, which is not recorded", r.Run)
		return
	}
	c := &container{stored: stored{known: true}, id: d.record.Key, executor: e, pid: r.PID, netns: r.Netns, sandbox: r.Sandbox, failure: r.Failure}
	c.chain, c.phase = links(r.Chain), d.phase(r.State)
	for _, b := range r.Networks {
		n := &mezzov1.NetworkInfo{}
		d.message(b, n)
		c.networks = append(c.networks, n)
	}
	if r.Cgroup != nil {
		c.cgroup = &mezzov1.CgroupInfo{}
		d.message(r.Cgroup, c.cgroup)
	}
	if r.Limitation != nil {
		c.limitation = &isolatorv1.Limitation{}
		d.message(r.Limitation, c.limitation)
	}
	if r.Task == "" {
		e.root = c
	} else {
		c.task = m.tasks[taskKey{r.Framework, r.Task}]
		e.children++
	}
	if c.task == nil && r.Task != "" && c.phase != cleaning {
		d.fail("names task %q, which is not recorded", r.Task)
	}
	m.containers[c.id] = c
}

func (m *Machine) readCompleted(d *decoder) {
	var r completedRecord
	d.json(&r, &r.Version)
	c := &completed{
		stored: stored{known: true}, framework: r.Framework, id: r.ID, name: r.Name, executor: r.Executor, role: r.Role, user: r.User, owner: r.Owner, container: r.Container, sandbox: r.Sandbox,
		launched: r.Launched, started: r.Started, finished: r.Finished, status: &mezzov1.TaskStatus{},
	}
	if _, err := fmt.Sscanf(d.record.Key, "%d", &c.number); err != nil {
		d.fail("its key is not a number")
	}
	d.message(r.Status, c.status)
	for _, b := range r.Resources {
		res := &mezzov1.Resource{}
		d.message(b, res)
		c.resources = append(c.resources, res)
	}
	m.completed = append(m.completed, c)
}

func (m *Machine) readIsolator(d *decoder) {
	if i := m.isolator(d.record.Key); i != nil {
		i.spec, i.stored.known = d.record.Value, true
		return
	}
	m.isolators = append(m.isolators, &isolator{name: d.record.Key, spec: d.record.Value, stored: stored{known: true}, reason: "is not in the configuration any more"})
}
