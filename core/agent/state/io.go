package state

import (
	"time"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Input is something that happened. The machine keeps what it is given and does
// not change it; the giver must not change it either.
type Input interface{ input() }

// Output is something to do. Outputs are done in the order given, except that
// what concerns one container need only be in order with the rest of that
// container. Messages in outputs are not changed later.
type Output interface{ output() }

// Record is one thing to remember: a value under a key in a bucket. A nil
// Value forgets it.
type Record struct {
	Bucket string
	Key    string
	Value  []byte
}

// Restore is the first input of every machine: all records that were ever
// written and not forgotten, in any order; none for a new agent. A record that
// cannot be read makes the machine answer with Exit and do nothing else.
type Restore struct{ Records []Record }

// Written says that the records of all checkpoints up to Sequence are durable.
type Written struct{ Sequence uint64 }

// Tick says that the time has come that NextDeadline named. It is harmless at
// any other time.
type Tick struct{}

// End asks the agent to end all its tasks, and then itself.
type End struct{ Reason string }

// LinkUp says that the stream that Connect asked for is open. Session is that
// of the Connect; inputs of older sessions are ignored.
type LinkUp struct {
	Session uint64
	Master  string // address
}

// LinkDown says that the stream ended or could not be opened.
type LinkDown struct {
	Session uint64
	Reason  string
}

// LeaderFound says that another master leads now, or the same one again. An agent
// that waits before its next attempt waits no longer than before its first.
type LeaderFound struct{}

// LinkMessage is a message of the master.
type LinkMessage struct {
	Session uint64
	Message *linkv1.MasterMessage
}

// IsolatorUp says that an isolator's plugin is there, for the first time or
// again. The machine answers with Recover. Spec is what is needed to launch it
// again when the operator has taken it out: opaque, checkpointed.
type IsolatorUp struct {
	Isolator string
	Spec     []byte
}

// IsolatorRecovered is the answer to Recover. An error in the call is an
// IsolatorHealth that is not healthy, and the call is made again.
type IsolatorRecovered struct {
	Isolator   string
	Containers []*isolatorv1.Recovered
	Orphans    []string
}

// IsolatorHealth says whether an isolator may be given new work. While one that
// is listed in the configuration may not, the agent's resources are withheld.
type IsolatorHealth struct {
	Isolator string
	Healthy  bool
	Reason   string // why not: a sentence
}

// SetIsolators says that the configuration has other isolators now, or another
// order: all of them. One that is gone from it is kept until no container names
// it; then comes Retire.
type SetIsolators struct{ Isolators []string }

// AdapterUp says that a framework adapter serves, for the first time or again,
// and where it listens.
type AdapterUp struct {
	Adapter   string
	Endpoints []*linkv1.Endpoint
	// Environment is added to that of custom executors; the agent's own
	// variables, and the executor's, win. In TokenVariables they find their tokens.
	Environment    []Variable
	TokenVariables []string
}

// AdapterDown says that an adapter does not serve any more; it is being started
// again. Executors that came by it are cut off, and not to blame for it.
type AdapterDown struct{ Adapter string }

// SetAdapters says that the configuration has other adapters now: all of them.
type SetAdapters struct{ Adapters []string }

// Claimed is the answer to Claim.
type Claimed struct {
	Launch uint64 // of the Claim
	// Claims is, for each container of the Claim in its order, what each
	// isolator said.
	Claims [][]Claim
	// Err is set when the claims could not be had at all; Claims is nil then.
	Err string
	// Invalid: what was wrong is the launch, not the agent.
	Invalid bool
}

// Claim is one isolator's answer about one container.
type Claim struct {
	Isolator string
	Claim    isolatorv1.ClaimResponse_Claim
	Reason   string
}

// Created says that Launch has made a container whose process is stopped before
// its first instruction.
type Created struct {
	Container string
	PID       int64  // 0: a container without a process
	Netns     string // its own network namespace, if it has one
	Networks  []*mezzov1.NetworkInfo
	Cgroup    *mezzov1.CgroupInfo
	Handles   map[string][]byte // by isolator
}

// Progress tells how far Launch has come where that takes long.
type Progress struct {
	Container string
	Message   string // a sentence
}

// Probed is the answer to Probe.
type Probed struct {
	Container string
	Serial    uint64
	// Void says that nobody could look, through no fault of the task: an isolator
	// was away, perhaps.
	Void bool
	// Err is why there was nothing to see: a sentence; empty when there was.
	Err string
	// Refused is whether that is because the port did not take a connection.
	Refused bool
	// Code is the command's exit code, or the answer's HTTP status.
	Code int32
}

// Started says that a container's process runs.
type Started struct {
	Container string
	Networks  []*mezzov1.NetworkInfo
}

// Updated says that an Update was carried out.
type Updated struct {
	Container string
	Err       string // empty: it worked
}

// LaunchFailed says that Launch or Start did not work. What is left of the
// container is still to be cleaned up; the machine asks for that.
type LaunchFailed struct {
	Container string
	Message   string // for the task's owner
}

// Exited says that a container's process has ended.
type Exited struct {
	Container string
	Status    *isolatorv1.ExitStatus
}

// Limited says that a container exceeded what it may use.
type Limited struct{ Limitation *isolatorv1.Limitation }

// CleanedUp says that nothing is left of a container.
type CleanedUp struct{ Container string }

// VolumeDone says that a volume's directory was made or removed, as MakeVolume or
// RemoveVolume asked.
type VolumeDone struct{ Chore string }

func (VolumeDone) input()        {}
func (Restore) input()           {}
func (Written) input()           {}
func (Tick) input()              {}
func (End) input()               {}
func (LinkUp) input()            {}
func (LinkDown) input()          {}
func (LinkMessage) input()       {}
func (LeaderFound) input()       {}
func (IsolatorUp) input()        {}
func (IsolatorRecovered) input() {}
func (IsolatorHealth) input()    {}
func (SetIsolators) input()      {}
func (AdapterUp) input()         {}
func (AdapterDown) input()       {}
func (SetAdapters) input()       {}
func (Claimed) input()           {}
func (Created) input()           {}
func (Progress) input()          {}
func (Probed) input()            {}
func (Started) input()           {}
func (Updated) input()           {}
func (LaunchFailed) input()      {}
func (Exited) input()            {}
func (Limited) input()           {}
func (CleanedUp) input()         {}

// Checkpoint asks to write the records in one transaction and to answer with
// Written. When it cannot be written the agent must stop: nothing that depends
// on it has left.
type Checkpoint struct {
	Sequence uint64
	Records  []Record
}

// Connect asks to open the stream to a master, and to answer with LinkUp or
// LinkDown of that session. An older stream is closed.
type Connect struct{ Session uint64 }

// Disconnect asks to close the stream. The machine asks for the next Connect
// by itself and expects no LinkDown.
type Disconnect struct {
	Session uint64
	Reason  string
}

// SendMaster is a message for the master of the session. It is dropped when that
// stream is gone.
type SendMaster struct {
	Session uint64
	Message *linkv1.AgentMessage
}

// Recover asks an isolator what became of the containers that it has a part
// in, and to answer with IsolatorRecovered. It comes before anything else that
// concerns the isolator.
type Recover struct {
	Isolator string
	Known    []*isolatorv1.Known // Sandbox is relative to the work directory
}

// Retire says that an isolator is neither configured nor needed any more: its
// plugin, if there is one, can be stopped.
type Retire struct{ Isolator string }

// Claim asks every isolator, in the order of the configuration, about every
// container of a launch, and to answer with Claimed.
type ClaimContainers struct {
	Launch     uint64
	Containers []*Plan
}

// Launch asks to make the sandbox, and the container as far as Create, and to
// answer with Created or LaunchFailed.
type Launch struct{ Plan *Plan }

// Start asks for Isolate along the chain, then Start, and to answer with Started
// or LaunchFailed.
type Start struct {
	Container string
	Chain     []Link
	PID       int64
	Netns     string
}

// Update asks to change what a running container may use to the plan's, and to
// answer with Updated.
type Update struct{ Plan *Plan }

// Probe asks to look at a task that runs, once, and to answer with Probed. The
// container's Cleanup gives it up.
type Probe struct {
	Serial  uint64
	Plan    *Plan  // the container's
	Netns   string // its network namespace's path; empty: the agent's own
	Look    Look
	Timeout time.Duration // 0: none
}

// Look is what is looked at: a command that is run in the container, or a port
// of it.
type Look struct {
	Command *mezzov1.CommandInfo // nil: a port
	Scheme  string               // "http", "https"; empty: whether the port takes a connection
	Port    uint32
	Path    string // for HTTP; empty: "/"
	IPv6    bool   // [::1] instead of 127.0.0.1
}

// Wait asks to wait for the end of a container's process, for as long as it
// takes and across restarts of the plugin, and to answer with Exited.
type Wait struct {
	Container string
	Launcher  string
}

// Kill asks to end a container: Signal now (0: SIGTERM), SIGKILL when Grace has
// passed. It is tried until it works or the container has ended. Exited is the
// only answer. A later Kill of the same container replaces an earlier one that
// has not worked.
type Kill struct {
	Container string
	Launcher  string
	Signal    int32
	Grace     time.Duration
}

// Cleanup asks for Cleanup along the chain in reverse, tried until it works,
// and to answer with CleanedUp. Whatever else goes on with the container is
// given up first.
type Cleanup struct {
	Container string
	Chain     []Link
	Sandbox   string // relative to the work directory; empty: not known
}

// MakeVolume asks to make the directory of a persistent volume, tried until it
// works, and to answer with VolumeDone. What is there already stays. What
// concerns one volume is done in the order in which it was asked for; Launch and
// Update, too, come after it.
type MakeVolume struct {
	Chore string // names what is to be done, and nothing else ever
	Place VolumePlace
}

// RemoveVolume asks to remove a persistent volume with all that is in it, tried
// until it works, and to answer with VolumeDone. It may be asked for again by a
// later process of the agent, when another volume of that name may be there: so
// under the chore's name must be kept that it was done, until ForgetVolume.
type RemoveVolume struct {
	Chore string
	Place VolumePlace
}

// ForgetVolume says that a RemoveVolume will not be asked for again.
type ForgetVolume struct {
	Chore string
	Place VolumePlace
}

// Exit asks the agent to end. The error is for the operator; nil after an
// orderly shutdown.
type Exit struct {
	Reason string
	Err    error
}

// Log is a line for the operator.
type Log struct {
	Level   Level
	Message string
	Fields  []any // key, value, …
}

// Level is how loud a line is.
type Level int

// The levels.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

func (Checkpoint) output()      {}
func (Connect) output()         {}
func (Disconnect) output()      {}
func (SendMaster) output()      {}
func (Recover) output()         {}
func (Retire) output()          {}
func (ClaimContainers) output() {}
func (Launch) output()          {}
func (Start) output()           {}
func (Update) output()          {}
func (Probe) output()           {}
func (Wait) output()            {}
func (Kill) output()            {}
func (Cleanup) output()         {}
func (MakeVolume) output()      {}
func (RemoveVolume) output()    {}
func (ForgetVolume) output()    {}
func (Exit) output()            {}
func (Log) output()             {}

// Plan is all that the shell needs to make a container.
type Plan struct {
	Container string
	// Parent is the root container that it is nested in; empty for a top-level
	// one.
	Parent string
	// Chain is empty until the container has been claimed.
	Chain []Link
	// Task is what the isolators are told.
	Task *isolatorv1.Task
	// Command is what to run; nil for a container without a process.
	Command *mezzov1.CommandInfo
	// Environment is added to what every container finds; the command's own wins.
	Environment []Variable
	// Sandbox is relative to the work directory, with slashes, and never leaves
	// it. Latest is the symbolic link that is to point at it; empty: none.
	Sandbox string
	Latest  string
	// Volumes are those that the container is given.
	Volumes []Volume
	// ParentVolumes are those that the executor has for its tasks' containers,
	// which name them as paths of the parent's sandbox.
	ParentVolumes []Volume
	AgentID       string
	// Deadline is when the container's time is over; zero: never.
	Deadline time.Time
}

// Link is an isolator's part in a container.
type Link struct {
	Isolator string
	Launcher bool
	Handle   []byte // its own note; nil until the container was created
}

// Launcher is the isolator that launches, or empty.
func Launcher(chain []Link) string {
	for _, l := range chain {
		if l.Launcher {
			return l.Isolator
		}
	}
	return ""
}

// View is what an agent shows of itself. It is a copy of its own.
type View struct {
	AgentID  string
	Hostname string
	// State is "recovering" (an isolator has not answered yet), "disconnected",
	// "registering" or "registered".
	State      string
	Master     string
	Epoch      uint64
	Resources  []*mezzov1.Resource
	Withheld   string
	Tasks      []TaskView      // by framework, then task
	Completed  []TaskView      // oldest first
	Containers []ContainerView // by id
	Isolators  []IsolatorView  // in order of the configuration
	Endpoints  []*linkv1.Endpoint
}

// TaskView is a task as shown.
type TaskView struct {
	FrameworkID string
	ID          string
	Name        string
	ExecutorID  string
	Role        string
	User        string              // who it runs as; empty: not known
	Owner       string              // its framework's principal; empty: none, or not known
	Status      *mezzov1.TaskStatus // the newest; never nil
	Resources   []*mezzov1.Resource
	Launched    time.Time
	Started     time.Time // zero: not yet
	Finished    time.Time // zero: not yet
	Container   string    // empty for a task that never had one
	Sandbox     string    // relative to the work directory
	// Exited is whether its process is gone, so that its output is complete.
	Exited bool
}

// ContainerView is a container as shown.
type ContainerView struct {
	ID          string
	FrameworkID string
	ExecutorID  string
	TaskID      string // empty: the root of a group
	Parent      string
	Chain       []string
	Launcher    string
	PID         int64
	State       string
	Sandbox     string
	Standalone  bool // it belongs to no framework
	// Resources are what it may use, with what is nested in it.
	Resources []*mezzov1.Resource
	Volumes   []Volume // that it has been given
}

// IsolatorView is an isolator as shown.
type IsolatorView struct {
	Name      string
	Healthy   bool
	Recovered bool
	Reason    string
}
