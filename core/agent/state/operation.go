package state

import (
	"bytes"
	"container/heap"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mezzo-os/mezzo/core/operation"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// pending is an operation that is under way, or whose framework has not
// acknowledged what came of it.
type pending struct {
	stored
	uuid      string // the master's name for it, in hex
	framework string // empty: an operator's
	id        string // the framework's; empty: it does not want to know
	info      *mezzov1.Offer_Operation
	made      resource.Resources // what it made
	chores    int                // that are to be done before it has finished
	status    *mezzov1.OperationStatus
	retryAt   time.Time
	delay     time.Duration
}

func (p *pending) key() taskKey { return taskKey{p.framework, p.uuid} }

// lasting is whether the operation outlives the agent's process: somebody waits
// to acknowledge it.
func (p *pending) lasting() bool { return p.id != "" }

type operationRecord struct {
	Version   int    `json:"version"`
	Framework string `json:"framework,omitempty"`
	ID        string `json:"id"`
	Info      []byte `json:"info"`
	Status    []byte `json:"status,omitempty"` // absent: it is under way
}

func (p *pending) records() []Record {
	r := operationRecord{Version: recordVersion, Framework: p.framework, ID: p.id, Info: wire(p.info)}
	if p.ended() {
		r.Status = wire(p.status)
	}
	return []Record{{bucketOperations, p.uuid, encode(r)}}
}

func (m *Machine) readOperation(d *decoder) {
	var r operationRecord
	d.json(&r, &r.Version)
	p := &pending{stored: stored{known: true}, uuid: d.record.Key, framework: r.Framework, id: r.ID, info: &mezzov1.Offer_Operation{}}
	d.message(r.Info, p.info)
	if change, err := operation.Of(p.info); err == nil {
		p.made = change.To
	}
	p.status = m.operationStatus(p, mezzov1.OperationState_OPERATION_PENDING, "")
	if r.Status != nil {
		p.status = &mezzov1.OperationStatus{}
		d.message(r.Status, p.status)
	}
	m.operations[p.uuid] = p
}

func (p *pending) ended() bool {
	return p.status.GetState() != mezzov1.OperationState_OPERATION_PENDING
}

// chore is something that is to be done to a volume's directory. It is done
// again after a restart, until it is known to have been done.
type chore struct {
	stored
	key       string // never used again
	number    uint64 // they are done in this order
	remove    bool   // else it is made
	place     VolumePlace
	operation string // what waits for it; empty: nothing
}

type choreRecord struct {
	Version   int    `json:"version"`
	Number    uint64 `json:"number"`
	Remove    bool   `json:"remove,omitempty"`
	Root      string `json:"root,omitempty"`
	Whole     bool   `json:"whole,omitempty"`
	Role      string `json:"role"`
	ID        string `json:"id"`
	Operation string `json:"operation,omitempty"`
}

func (c *chore) records() []Record {
	return []Record{{bucketChores, c.key, encode(choreRecord{
		Version: recordVersion, Number: c.number, Remove: c.remove, Root: c.place.Root, Whole: c.place.Whole,
		Role: c.place.Role, ID: c.place.ID, Operation: c.operation,
	})}}
}

func (m *Machine) readChore(d *decoder) {
	var r choreRecord
	d.json(&r, &r.Version)
	c := &chore{
		stored: stored{known: true}, key: d.record.Key, number: r.Number, remove: r.Remove, operation: r.Operation,
		place: VolumePlace{Root: r.Root, Whole: r.Whole, Role: r.Role, ID: r.ID},
	}
	m.chores[c.key] = c
	m.lastChore = max(m.lastChore, c.number)
	if p := m.operations[c.operation]; p != nil {
		p.chores++
	}
}

// resumeChores does again what may not have been done.
func (m *Machine) resumeChores() {
	list := slices.SortedFunc(maps.Values(m.chores), func(a, b *chore) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	for _, c := range list {
		m.begin(c)
	}
}

func (m *Machine) begin(c *chore) {
	if c.remove {
		m.unmounted(c.place)
		m.effect(RemoveVolume{Chore: c.key, Place: c.place})
		return
	}
	m.effect(MakeVolume{Chore: c.key, Place: c.place})
}

// operation carries out an operation of the master's, or refuses it.
func (m *Machine) operation(o *linkv1.Operation) {
	m.link.taken++
	p := &pending{
		uuid: hex.EncodeToString(o.GetUuid()), framework: o.GetFrameworkId(), id: o.GetOperationId(), info: o.GetInfo(), delay: m.cfg.Retry,
	}
	if m.operations[p.uuid] != nil || len(p.uuid) == 0 {
		m.log(Error, "the master sent an operation without a name, or twice; it is ignored", "operation", p.uuid)
		m.tellState()
		return
	}
	m.operations[p.uuid] = p
	if p.lasting() {
		m.touch(p)
	}
	why, state := m.apply(p), mezzov1.OperationState_OPERATION_ERROR
	if m.ending != nil {
		why, state = "the agent is shutting down", mezzov1.OperationState_OPERATION_DROPPED
	}
	m.tellState()
	switch {
	case why != "":
		m.log(Warn, "operation refused", "type", p.info.GetType().String(), "framework_id", p.framework, "reason", why)
		m.concluded(p, state, why)
	case p.chores > 0:
		p.status = m.operationStatus(p, mezzov1.OperationState_OPERATION_PENDING, "")
	default:
		m.concluded(p, mezzov1.OperationState_OPERATION_FINISHED, "")
	}
}

// apply changes the agent's resources as an operation says, or says why not.
func (m *Machine) apply(p *pending) string {
	if m.ending != nil {
		return "the agent is shutting down"
	}
	change, err := operation.Of(p.info)
	if err != nil {
		return err.Error()
	}
	if missing := change.From.Minus(m.resources.total); !missing.IsEmpty() {
		return fmt.Sprintf("the agent does not have %s", missing)
	}
	used, by := m.inUse()
	for _, v := range operation.Volumes(change.From) {
		if who := by[v]; who != "" {
			return fmt.Sprintf("volume %s is in use by %s", v, who)
		}
	}
	if missing := change.From.NonShared().Minus(m.resources.total.Minus(used.NonShared())); !missing.IsEmpty() {
		return fmt.Sprintf("%s is in use by tasks", missing)
	}
	for _, v := range operation.Volumes(change.To) {
		if slices.Contains(operation.Volumes(m.resources.total.Minus(change.From)), v) {
			return fmt.Sprintf("the agent has a volume %s already", v)
		}
	}
	p.made = change.To
	m.resources.total = m.resources.total.Minus(change.From).Add(change.To)
	m.touch(&m.resources)
	m.log(Info, "operation carried out", "type", p.info.GetType().String(), "framework_id", p.framework, "from", change.From.String(), "to", change.To.String())
	switch p.info.GetType() {
	case mezzov1.Offer_Operation_CREATE:
		m.chore(p, change.To, false)
	case mezzov1.Offer_Operation_DESTROY:
		m.chore(p, change.From, true)
	}
	return ""
}

// chore has the directories of volumes made or removed.
func (m *Machine) chore(p *pending, volumes resource.Resources, remove bool) {
	for _, v := range VolumesOf(volumes.ToProto()) {
		m.lastChore++
		c := &chore{key: m.newContainerID(), number: m.lastChore, remove: remove, place: v.VolumePlace, operation: p.uuid}
		m.chores[c.key] = c
		m.touch(c)
		p.chores++
		m.begin(c)
	}
}

// volumeDone notes that a volume's directory was made or removed.
func (m *Machine) volumeDone(in VolumeDone) {
	c := m.chores[in.Chore]
	if c == nil {
		return
	}
	delete(m.chores, c.key)
	m.forget(c)
	if c.remove {
		m.effect(ForgetVolume{Chore: c.key, Place: c.place}) // once nothing asks for it any more
	}
	p := m.operations[c.operation]
	if p == nil {
		return
	}
	if p.chores--; p.chores == 0 {
		m.concluded(p, mezzov1.OperationState_OPERATION_FINISHED, "")
	}
}

func (m *Machine) operationStatus(p *pending, state mezzov1.OperationState, message string) *mezzov1.OperationStatus {
	s := &mezzov1.OperationStatus{State: state.Enum(), Message: stringOf(message)}
	if p.id != "" {
		s.OperationId = &mezzov1.OperationID{Value: stringOf(p.id)}
	}
	if m.id != "" {
		s.AgentId = &mezzov1.AgentID{Value: stringOf(m.id)}
	}
	if state == mezzov1.OperationState_OPERATION_FINISHED {
		s.ConvertedResources = p.made.ToProto()
	}
	return s
}

// concluded tells what came of an operation: until that is acknowledged if the
// framework gave it an id, else once.
func (m *Machine) concluded(p *pending, state mezzov1.OperationState, message string) {
	p.status = m.operationStatus(p, state, message)
	if !p.lasting() || m.orphan(p.framework) {
		m.tellOperation(p)
		m.forgetOperation(p)
		return
	}
	p.status.Uuid = &mezzov1.UUID{Value: m.uuid()}
	m.touch(p)
	m.sendOperation(p)
}

// orphan is whether a framework is gone, so that nobody will acknowledge.
func (m *Machine) orphan(framework string) bool {
	f := m.frameworks[framework]
	return f != nil && f.terminating
}

func (m *Machine) tellOperation(p *pending) {
	uuid, _ := hex.DecodeString(p.uuid)
	m.sendMaster(&linkv1.AgentMessage{Message: &linkv1.AgentMessage_Operation{Operation: &linkv1.OperationUpdate{
		FrameworkId: p.framework, OperationUuid: uuid, Status: p.status, LatestStatus: p.status,
	}}})
}

// sendOperation sends what came of an operation, and sets when it is sent again.
func (m *Machine) sendOperation(p *pending) {
	p.retryAt = time.Time{}
	if m.link.state != registered || p.gone || !p.ended() {
		return
	}
	m.tellOperation(p)
	p.retryAt = m.now.Add(p.delay)
	heap.Push(&m.timers, timer{at: p.retryAt, pending: p})
	p.delay = min(2*p.delay, m.cfg.MaxRetry)
}

func (m *Machine) forgetOperation(p *pending) {
	p.retryAt = time.Time{}
	delete(m.operations, p.uuid)
	m.forget(p)
}

func (m *Machine) acknowledgeOperation(a *linkv1.AcknowledgeOperation) {
	p := m.operations[hex.EncodeToString(a.GetOperationUuid())]
	if p == nil || !p.ended() || !bytes.Equal(p.status.GetUuid().GetValue(), a.GetStatusUuid()) {
		m.log(Debug, "acknowledgement of an operation that does not wait for it", "framework_id", a.GetFrameworkId())
		return
	}
	m.forgetOperation(p)
}

// dropOperations forgets those of a framework that is gone; what they changed
// stays.
func (m *Machine) dropOperations(framework string) {
	for _, p := range m.sortedOperations() {
		if p.framework == framework {
			m.forgetOperation(p)
		}
	}
}

func (m *Machine) sortedOperations() []*pending {
	return slices.SortedFunc(maps.Values(m.operations), func(a, b *pending) int { return strings.Compare(a.uuid, b.uuid) })
}

// resendOperations tells a new master, or the same after a break, what it may
// not have heard.
func (m *Machine) resendOperations() {
	for _, p := range m.sortedOperations() {
		p.delay = m.cfg.Retry
		m.sendOperation(p)
	}
}

// pauseOperations waits with all that was sent until the master is there again.
func (m *Machine) pauseOperations() {
	for _, p := range m.operations {
		p.retryAt = time.Time{}
	}
}

// registerOperation is how an operation stands in a registration.
func registerOperation(p *pending) *linkv1.Operation {
	uuid, _ := hex.DecodeString(p.uuid)
	return &linkv1.Operation{FrameworkId: p.framework, OperationId: p.id, Uuid: uuid, Info: p.info, LatestStatus: p.status}
}
