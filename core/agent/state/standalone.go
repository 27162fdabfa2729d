package state

import (
	"cmp"
	"maps"
	"slices"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// A standalone container runs an operator's command and belongs to no framework.
// Its life:
//
//	claiming, launching, starting   who asked for it waits
//	running                         it outlives the agent's process
//	cleaning                        its process is gone, or it could not be made
//	over                            how it ended is known until it is removed
//
// One that could not be made is forgotten when it has been cleaned up.

const (
	// maxStandalone bounds those that have not ended.
	maxStandalone = 1000
	// maxEnded bounds those that have, and are not removed: the oldest goes.
	maxEnded = 256
)

type standalone struct {
	stored
	id     string
	number uint64 // they were launched in this order
	spec   StandaloneSpec

	chain      []Link
	phase      phase
	over       bool
	pid        int64
	netns      string
	networks   []*mezzov1.NetworkInfo
	limitation *isolatorv1.Limitation
	exit       *isolatorv1.ExitStatus // nil: not ended, or never begun
	failure    string                 // why it could not be made
	waited     bool
	launching  []uint64 // requests that wait until it runs
	waiting    []uint64 // requests that wait until it has ended
}

// StandaloneSpec is what a standalone container is to be.
type StandaloneSpec struct {
	Command   *mezzov1.CommandInfo
	Container *mezzov1.ContainerInfo
	Resources []*mezzov1.Resource
	Limits    map[string]*mezzov1.Value_Scalar
}

// LaunchStandalone, WaitStandalone and RemoveStandalone are an operator's
// requests, each answered by AnswerStandalone. DropStandalone says that nobody
// waits for an answer any more.
type (
	LaunchStandalone struct {
		Request uint64
		ID      string
		Spec    StandaloneSpec
	}
	WaitStandalone struct {
		Request uint64
		ID      string
	}
	RemoveStandalone struct {
		Request uint64
		ID      string
	}
	DropStandalone struct{ Request uint64 }
)

// AnswerStandalone answers a request.
type AnswerStandalone struct {
	Request    uint64
	Result     StandaloneResult
	Message    string                 // unless it was done
	Exit       *isolatorv1.ExitStatus // of WaitStandalone
	Limitation *isolatorv1.Limitation
}

// StandaloneResult is what became of a request.
type StandaloneResult int

// The results.
const (
	StandaloneDone StandaloneResult = iota
	StandaloneAlready
	StandaloneUnknown // there is no such container
	StandaloneInvalid // the request is
	StandaloneRefused // it cannot be done now
)

// RemoveSandbox asks to remove a standalone container's sandbox, after all else
// that was asked for with it.
type RemoveSandbox struct {
	Container string
	Sandbox   string // relative to the work directory
}

func (LaunchStandalone) input()  {}
func (WaitStandalone) input()    {}
func (RemoveStandalone) input()  {}
func (DropStandalone) input()    {}
func (AnswerStandalone) output() {}
func (RemoveSandbox) output()    {}

func (s *standalone) sandbox() string { return "containers/" + s.id }

type standaloneRecord struct {
	Version    int               `json:"version"`
	Number     uint64            `json:"number"`
	Command    []byte            `json:"command"`
	Container  []byte            `json:"container,omitempty"`
	Resources  [][]byte          `json:"resources,omitempty"`
	Limits     map[string][]byte `json:"limits,omitempty"`
	Chain      []linkRecord      `json:"chain"`
	State      string            `json:"state"` // "launching", "started", "cleaning" or "over"
	PID        int64             `json:"pid,omitempty"`
	Netns      string            `json:"netns,omitempty"`
	Limitation []byte            `json:"limitation,omitempty"`
	Exit       []byte            `json:"exit,omitempty"`
	Failure    string            `json:"failure,omitempty"`
}

func (s *standalone) records() []Record {
	r := standaloneRecord{
		Version: recordVersion, Number: s.number, Command: wire(s.spec.Command), State: s.phase.record(), Chain: linkRecords(s.chain),
		PID: s.pid, Netns: s.netns, Failure: s.failure,
	}
	if s.over {
		r.State = "over"
	}
	if s.spec.Container != nil {
		r.Container = wire(s.spec.Container)
	}
	for _, x := range s.spec.Resources {
		r.Resources = append(r.Resources, wire(x))
	}
	for name, v := range s.spec.Limits {
		if r.Limits == nil {
			r.Limits = map[string][]byte{}
		}
		r.Limits[name] = wire(v)
	}
	if s.limitation != nil {
		r.Limitation = wire(s.limitation)
	}
	if s.exit != nil {
		r.Exit = append([]byte{}, wire(s.exit)...)
	}
	return []Record{{bucketStandalone, s.id, encode(r)}}
}

func (m *Machine) readStandalone(d *decoder) {
	var r standaloneRecord
	d.json(&r, &r.Version)
	s := &standalone{
		stored: stored{known: true}, id: d.record.Key, number: r.Number, pid: r.PID, netns: r.Netns, failure: r.Failure,
		chain: links(r.Chain), phase: cleaning, over: r.State == "over",
		spec: StandaloneSpec{Command: &mezzov1.CommandInfo{}},
	}
	d.message(r.Command, s.spec.Command)
	if r.Container != nil {
		s.spec.Container = &mezzov1.ContainerInfo{}
		d.message(r.Container, s.spec.Container)
	}
	for _, b := range r.Resources {
		x := &mezzov1.Resource{}
		d.message(b, x)
		s.spec.Resources = append(s.spec.Resources, x)
	}
	for name, b := range r.Limits {
		if s.spec.Limits == nil {
			s.spec.Limits = map[string]*mezzov1.Value_Scalar{}
		}
		s.spec.Limits[name] = &mezzov1.Value_Scalar{}
		d.message(b, s.spec.Limits[name])
	}
	if r.Limitation != nil {
		s.limitation = &isolatorv1.Limitation{}
		d.message(r.Limitation, s.limitation)
	}
	if r.Exit != nil {
		s.exit = &isolatorv1.ExitStatus{}
		d.message(r.Exit, s.exit)
	}
	if !s.over {
		s.phase = d.phase(r.State)
	}
	m.standalone[s.id] = s
	m.lastStandalone = max(m.lastStandalone, s.number)
}

// handleStandalone takes an input that concerns a standalone container, if it
// does.
func (m *Machine) handleStandalone(in Input) bool {
	var s *standalone
	switch in := in.(type) {
	case LaunchStandalone:
		m.launchStandalone(in)
		return true
	case WaitStandalone:
		m.waitStandalone(in)
		return true
	case RemoveStandalone:
		m.removeStandalone(in)
		return true
	case DropStandalone:
		for _, s := range m.standalone {
			is := func(r uint64) bool { return r == in.Request }
			s.launching, s.waiting = slices.DeleteFunc(s.launching, is), slices.DeleteFunc(s.waiting, is)
		}
		return true
	case Claimed:
		if s = m.claims[in.Launch]; s != nil {
			delete(m.claims, in.Launch)
			m.standaloneClaimed(s, in)
		}
	case Created:
		if s = m.standalone[in.Container]; s != nil && s.phase == launching {
			s.phase, s.pid, s.netns = starting, in.PID, in.Netns
			for i := range s.chain {
				s.chain[i].Handle = in.Handles[s.chain[i].Isolator]
			}
			m.touch(s)
			m.effect(Start{Container: s.id, Chain: slices.Clone(s.chain), PID: s.pid, Netns: s.netns})
		}
	case Started:
		if s = m.standalone[in.Container]; s != nil && s.phase == starting {
			s.networks = in.Networks
			m.standaloneRuns(s)
		}
	case LaunchFailed:
		if s = m.standalone[in.Container]; s != nil && (s.phase == launching || s.phase == starting) {
			m.counts.LaunchFailures++
			m.standaloneFailed(s, in.Message)
		}
	case Exited:
		if s = m.standalone[in.Container]; s != nil && s.phase == running {
			m.standaloneExited(s, in.Status)
		}
	case Limited:
		if s = m.standalone[in.Limitation.GetContainer()]; s != nil && s.limitation == nil && s.phase != claiming && s.phase != cleaning {
			s.limitation = in.Limitation
			m.touch(s)
			m.killStandalone(s)
		}
	case CleanedUp:
		if s = m.standalone[in.Container]; s != nil && s.phase == cleaning && !s.over {
			m.standaloneOver(s)
		}
	case Progress:
		s = m.standalone[in.Container]
	}
	return s != nil
}

// standaloneError says why a container cannot be asked for; empty: it can.
func (m *Machine) standaloneError(id string, spec StandaloneSpec) string {
	if len(id) == 0 || len(id) > 128 {
		return "its id is not of 1 to 128 characters"
	}
	for _, r := range id {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' {
			return "its id has other characters than letters, digits, '-' and '_'"
		}
	}
	if spec.Command == nil {
		return "it has no command"
	}
	all, err := resource.FromProto(spec.Resources)
	if err != nil {
		return "its resources are wrong: " + err.Error()
	}
	for i := range all {
		switch k := all[i].Kind; {
		case k.Revocable():
			return "its resources must not be revocable"
		case len(k.Reservations()) > 0:
			return "its resources must not be reserved"
		}
	}
	for _, r := range spec.Resources {
		if r.GetDisk() != nil {
			return "its resources must have no volumes and no disks of their own"
		}
	}
	if why := m.commandError(m.operators(), spec.Command, spec.Container); why != "" {
		return why
	}
	return containerError(spec.Container, false, spec.Resources)
}

// operators stand for a framework where one is asked for who runs something.
func (m *Machine) operators() *framework {
	user := m.cfg.User
	return &framework{info: &mezzov1.FrameworkInfo{User: &user}}
}

func (m *Machine) launchStandalone(in LaunchStandalone) {
	answer := func(result StandaloneResult, message string) {
		m.immediate = append(m.immediate, AnswerStandalone{Request: in.Request, Result: result, Message: message})
	}
	if why := m.standaloneError(in.ID, in.Spec); why != "" {
		answer(StandaloneInvalid, why)
		return
	}
	living := 0
	for _, s := range m.standalone {
		if !s.over {
			living++
		}
	}
	switch s := m.standalone[in.ID]; {
	case s != nil && s.over:
		answer(StandaloneRefused, "a container of that id has ended and is not removed yet")
		return
	case s != nil && s.phase == cleaning:
		answer(StandaloneRefused, "a container of that id is ending")
		return
	case s != nil && s.phase == running:
		answer(StandaloneAlready, "")
		return
	case s != nil:
		s.launching = append(s.launching, in.Request)
		return
	case m.containers[in.ID] != nil:
		answer(StandaloneRefused, "a task has a container of that id")
		return
	case m.ending != nil:
		answer(StandaloneRefused, "the agent is shutting down")
		return
	case !m.recovered:
		answer(StandaloneRefused, "the agent has not finished recovery")
		return
	case living >= maxStandalone:
		answer(StandaloneRefused, "as many such containers run as may")
		return
	}
	m.lastStandalone++
	m.lastLaunch++
	s := &standalone{id: in.ID, number: m.lastStandalone, spec: in.Spec, phase: claiming, launching: []uint64{in.Request}}
	m.standalone[s.id] = s
	m.claims[m.lastLaunch] = s
	m.immediate = append(m.immediate, ClaimContainers{Launch: m.lastLaunch, Containers: []*Plan{m.standalonePlan(s)}})
}

// standalonePlan is what the shell is told of it.
func (m *Machine) standalonePlan(s *standalone) *Plan {
	it := &isolatorv1.Task{Name: s.id, Resources: s.spec.Resources, Limits: limits(s.spec.Limits)}
	wishes(it, m.operators(), s.spec.Container, s.spec.Command)
	return &Plan{
		Container: s.id, Chain: slices.Clone(s.chain), Sandbox: s.sandbox(), AgentID: m.id, Task: it,
		Command: s.spec.Command, Environment: optionEnvironment(it),
	}
}

func (m *Machine) standaloneClaimed(s *standalone, in Claimed) {
	switch {
	case in.Err != "":
	case len(in.Claims) != 1:
		in.Err = "the isolators did not answer"
	default:
		if s.chain = chainOf(in.Claims[0], ""); Launcher(s.chain) == "" {
			in.Err = "no isolator launches the container: " + refusals(in.Claims[0])
		} else if m.ending != nil {
			in.Err = "the agent is shutting down"
		}
	}
	if in.Err != "" {
		m.counts.LaunchFailures++
		s.failure = in.Err
		m.dropStandalone(s)
		return
	}
	s.phase = launching
	m.touch(s)
	m.effect(Launch{Plan: m.standalonePlan(s)})
}

func (m *Machine) standaloneRuns(s *standalone) {
	s.phase = running
	m.touch(s)
	if !s.waited {
		s.waited = true
		m.effect(Wait{Container: s.id, Launcher: Launcher(s.chain)})
	}
	if s.limitation != nil || m.ending != nil {
		m.killStandalone(s)
	}
	for _, request := range s.launching {
		m.effect(AnswerStandalone{Request: request})
	}
	s.launching = nil
}

func (m *Machine) killStandalone(s *standalone) {
	if s.phase == running {
		m.effect(Kill{Container: s.id, Launcher: Launcher(s.chain), Signal: sigkill})
	}
}

// standaloneFailed gives up one that could not be made.
func (m *Machine) standaloneFailed(s *standalone, why string) {
	s.failure = why
	m.cleanStandalone(s)
}

func (m *Machine) standaloneExited(s *standalone, exit *isolatorv1.ExitStatus) {
	s.exit = exit
	if s.exit == nil {
		s.exit = &isolatorv1.ExitStatus{}
	}
	if s.limitation == nil {
		s.limitation = exit.GetLimitation()
	}
	m.cleanStandalone(s)
}

func (m *Machine) cleanStandalone(s *standalone) {
	s.phase = cleaning
	m.touch(s)
	if m.recovered { // else allAnswered does it
		m.effect(Cleanup{Container: s.id, Chain: slices.Clone(s.chain), Sandbox: s.sandbox()})
	}
}

// standaloneOver notes that nothing is left of one but its sandbox.
func (m *Machine) standaloneOver(s *standalone) {
	if s.exit == nil {
		m.dropStandalone(s)
		return
	}
	s.over = true
	m.touch(s)
	for _, request := range s.waiting {
		m.effect(s.ended(request))
	}
	s.waiting = nil
	m.retireIsolators()
	var over []*standalone
	for _, o := range m.sortedStandalone() {
		if o.over {
			over = append(over, o)
		}
	}
	slices.SortFunc(over, func(a, b *standalone) int { return cmp.Compare(a.number, b.number) })
	for len(over) > maxEnded {
		m.dropStandalone(over[0])
		over = over[1:]
	}
}

func (s *standalone) ended(request uint64) AnswerStandalone {
	return AnswerStandalone{Request: request, Exit: s.exit, Limitation: s.limitation}
}

// dropStandalone forgets one, with its sandbox, and answers who still waits.
func (m *Machine) dropStandalone(s *standalone) {
	made := s.known || s.dirty
	m.forget(s)
	delete(m.standalone, s.id)
	for _, request := range s.launching {
		m.effect(AnswerStandalone{Request: request, Result: StandaloneRefused, Message: s.failure})
	}
	for _, request := range s.waiting {
		m.effect(AnswerStandalone{Request: request, Result: StandaloneUnknown, Message: s.failure})
	}
	s.launching, s.waiting = nil, nil
	if made {
		m.effect(RemoveSandbox{Container: s.id, Sandbox: s.sandbox()})
	}
	m.retireIsolators()
}

func (m *Machine) waitStandalone(in WaitStandalone) {
	switch s := m.standalone[in.ID]; {
	case s == nil:
		m.immediate = append(m.immediate, AnswerStandalone{Request: in.Request, Result: StandaloneUnknown, Message: "there is no such container"})
	case s.over:
		m.immediate = append(m.immediate, s.ended(in.Request))
	default:
		s.waiting = append(s.waiting, in.Request)
	}
}

func (m *Machine) removeStandalone(in RemoveStandalone) {
	answer := AnswerStandalone{Request: in.Request}
	switch s := m.standalone[in.ID]; {
	case s == nil:
		answer.Result, answer.Message = StandaloneUnknown, "there is no such container"
	case !s.over:
		answer.Result, answer.Message = StandaloneRefused, "the container has not ended"
	default:
		m.dropStandalone(s)
	}
	m.effect(answer)
}

// recoverStandalone takes a launcher's word on what became of one.
func (m *Machine) recoverStandalone(s *standalone, r *isolatorv1.Recovered) {
	alive := r.GetState() == isolatorv1.Recovered_STATE_RUNNING || r.GetState() == isolatorv1.Recovered_STATE_EXITED
	if alive && r.GetPid() != 0 && r.GetPid() != s.pid {
		s.pid = r.GetPid()
		m.touch(s)
	}
	switch {
	case s.phase == unknown && alive, s.phase == unborn && alive:
		m.standaloneRuns(s)
	case s.phase == unknown, s.phase == running && !alive:
		m.standaloneExited(s, &isolatorv1.ExitStatus{})
	case s.phase == unborn:
		m.standaloneFailed(s, "the agent was restarted before the container was started")
	}
}

func (m *Machine) sortedStandalone() []*standalone {
	var list []*standalone
	for _, id := range slices.Sorted(maps.Keys(m.standalone)) {
		list = append(list, m.standalone[id])
	}
	return list
}

// living is whether something of one may be there for isolators.
func (s *standalone) living() bool { return !s.over && s.phase != claiming }

// standaloneKnown is one as isolators are told of it when they recover.
func (m *Machine) standaloneKnown(s *standalone, isolator string) *isolatorv1.Known {
	for _, l := range s.chain {
		if s.living() && l.Isolator == isolator {
			return &isolatorv1.Known{Container: s.id, Handle: l.Handle, Launcher: l.Launcher, Sandbox: s.sandbox(), Task: m.standalonePlan(s).Task}
		}
	}
	return nil
}

// endStandalone ends those that there are, since the agent ends with all it runs.
func (m *Machine) endStandalone() {
	for _, s := range m.sortedStandalone() {
		m.killStandalone(s)
	}
}

func (s *standalone) view() ContainerView {
	v := ContainerView{
		ID: s.id, Launcher: Launcher(s.chain), PID: s.pid, State: s.phase.String(), Sandbox: s.sandbox(), Resources: s.spec.Resources, Standalone: true,
	}
	for _, l := range s.chain {
		v.Chain = append(v.Chain, l.Isolator)
	}
	return v
}
