package broken

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Isolator is an isolator that builds no walls, for tests in this process, with
// a fault. Its containers are processes of their own, which outlive an instance
// of the plugin and end with Close.
type Isolator struct {
	fault isolatorFault

	mu     sync.Mutex
	boxes  map[string]*box
	images map[string]bool
	needs  map[string]string // the image that a container needs
	// What Exec runs: how to end each process, and all that have not ended.
	execs   map[*execution]func()
	running sync.WaitGroup
}

// IsolatorFaults are the names of all faults; "none" is among them.
func IsolatorFaults() []string { return slices.Sorted(maps.Keys(isolatorFaults)) }

// NewIsolator returns one with this fault.
func NewIsolator(fault string) *Isolator {
	return &Isolator{fault: isolatorFaults[fault], boxes: map[string]*box{}, execs: map[*execution]func(){}, images: map[string]bool{}, needs: map[string]string{}}
}

// Open starts an instance of the plugin.
func (i *Isolator) Open(context.Context) (*plugintest.Plugin, error) {
	local, err := plugin.StartLocal(isolator.Plugin(isolator.Definition{Name: "broken", Version: "1.0.0"},
		&instance{Isolator: i, knows: map[string]bool{}, claims: map[string]int{}}), nil)
	if err != nil {
		return nil, err
	}
	kill := func() {
		local.Close()
		if i.fault.diesWithPlugin {
			i.Close()
		}
	}
	return &plugintest.Plugin{Conn: local.Conn, Close: local.Close, Kill: kill}, nil
}

// Close ends every process that is left, and waits for those that Exec ran.
func (i *Isolator) Close() {
	i.mu.Lock()
	for _, b := range i.boxes {
		b.end()
	}
	for _, end := range i.execs {
		end()
	}
	i.mu.Unlock()
	i.running.Wait()
}

// carries notes a process that Close is to end, until it has ended.
func (i *Isolator) carries(x *execution, end func()) (ended func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.execs[x] = end
	i.running.Add(1)
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.execs, x)
		i.running.Done()
	}
}

// isolatorFault is one way to be wrong.
type isolatorFault struct {
	claimsUnexplained, claimsByTurns                            bool
	losesAnnotations, roundsNumbers                             bool
	cleanupComplains, leavesProcesses, cleansKnown              bool
	runsAtOnce, badProgramSucceeds, shortCodes, termIsCode      bool
	deaf, neverAsks, escalatesEarly, pushesBack, knowsEverybody bool
	most                                                        int // containers; 0: any number
	usageOfTheDead, limitsEverybody                             bool
	recoversNothing, namesNoOrphans, diesWithPlugin             bool
	execIsFine, execStays, execIsBlind                          bool
	attachRemembers, attachTakes, attachHolds, attachSkips      bool
	attachIsDeaf                                                bool
	importsGarbage, forgetsNothing                              bool
	provisionsNothing, keepsNoImage                             bool
}

var isolatorFaults = map[string]isolatorFault{
	"none":                 {},
	"claims-unexplained":   {claimsUnexplained: true},
	"claims-by-turns":      {claimsByTurns: true},
	"loses-annotations":    {losesAnnotations: true},
	"rounds-numbers":       {roundsNumbers: true},
	"cleanup-complains":    {cleanupComplains: true},
	"leaves-processes":     {leavesProcesses: true},
	"cleans-what-it-knows": {cleansKnown: true},
	"runs-at-once":         {runsAtOnce: true},
	"bad-program-succeeds": {badProgramSucceeds: true},
	"short-codes":          {shortCodes: true},
	"signals-are-codes":    {termIsCode: true},
	"deaf":                 {deaf: true},
	"never-asks":           {neverAsks: true},
	"escalates-early":      {escalatesEarly: true},
	"pushes-back":          {pushesBack: true},
	"knows-everybody":      {knowsEverybody: true},
	"few-at-a-time":        {most: 4},
	"usage-of-the-dead":    {usageOfTheDead: true},
	"limits-everybody":     {limitsEverybody: true},
	"recovers-nothing":     {recoversNothing: true},
	"names-no-orphans":     {namesNoOrphans: true},
	"dies-with-plugin":     {diesWithPlugin: true},
	"exec-is-always-fine":  {execIsFine: true},
	"exec-stays":           {execStays: true},
	"exec-is-blind":        {execIsBlind: true},
	"attach-remembers":     {attachRemembers: true},
	"attach-takes-along":   {attachTakes: true},
	"attach-holds-up":      {attachHolds: true},
	"attach-skips":         {attachSkips: true},
	"attach-is-deaf":       {attachIsDeaf: true},
	"imports-garbage":      {importsGarbage: true},
	"forgets-nothing":      {forgetsNothing: true},
	"provisions-nothing":   {provisionsNothing: true},
	"keeps-no-image":       {keepsNoImage: true},
}

// box is a container: a process group, held back by a pipe until Start.
type box struct {
	id     string
	cmd    *exec.Cmd
	gate   func() // lets it go
	stdout string // the file
	// terminal is the process's, if it has one.
	terminal *os.File
	ended    chan struct{}
	status   *isolatorv1.ExitStatus // once ended is closed

	mu       sync.Mutex
	deadline time.Time
	timer    *time.Timer
}

func (b *box) signal(s syscall.Signal) { _ = syscall.Kill(-b.cmd.Process.Pid, s) } // it may have ended

// end ends whatever is left of it, and waits for that.
func (b *box) end() {
	b.signal(syscall.SIGKILL)
	<-b.ended
	b.signal(syscall.SIGKILL) // those that the first had started
}

// kill has SIGKILL come at a time, unless it comes earlier; or in any case.
func (b *box) kill(at time.Time, inAnyCase bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.timer != nil && b.deadline.Before(at) && !inAnyCase {
		return
	}
	if b.timer != nil {
		b.timer.Stop()
	}
	b.deadline = at
	b.timer = time.AfterFunc(time.Until(at), func() { b.signal(syscall.SIGKILL) })
}

// instance is one run of the plugin.
type instance struct {
	*Isolator
	knows  map[string]bool // created or recovered by this one
	claims map[string]int
}

func (i *instance) box(id string) (*box, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if b := i.boxes[id]; b != nil {
		return b, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %s is not known", id)
}

func (i *instance) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims[r.GetContainer()]++
	switch {
	case i.fault.claimsUnexplained:
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE}, nil
	case i.fault.claimsByTurns && i.claims[r.GetContainer()]%2 == 0:
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}, nil
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}, nil
}

func (i *instance) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	var spec any
	switch {
	case i.fault.losesAnnotations:
		spec = new(specs.Spec)
	case i.fault.roundsNumbers:
		spec = new(map[string]any)
	default:
		return &isolatorv1.PrepareResponse{Spec: r.GetSpec()}, nil
	}
	if err := json.Unmarshal(r.GetSpec(), spec); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if typed, ok := spec.(*specs.Spec); ok {
		typed.Annotations = nil
	}
	text, err := json.Marshal(spec)
	return &isolatorv1.PrepareResponse{Spec: text}, err
}

// held is what a process runs before the task: it waits for a byte on its
// third descriptor.
const held = `read -r go <&3 || exit 126; exec 3<&-; exec "$@"`

func (i *instance) Create(_ context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	var spec specs.Spec
	if err := json.Unmarshal(r.GetSpec(), &spec); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	args := spec.Process.Args
	if _, err := exec.LookPath(args[0]); err != nil && i.fault.badProgramSucceeds {
		args = []string{"true"}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.fault.most > 0 && len(i.boxes) >= i.fault.most {
		return nil, status.Error(codes.ResourceExhausted, "there is no room for another container")
	}
	b := &box{id: r.GetContainer(), cmd: exec.Command("/bin/sh", append([]string{"-c", held, "sh"}, args...)...), ended: make(chan struct{})}
	b.cmd.Env, b.cmd.Dir = spec.Process.Env, spec.Process.Cwd
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b.stdout = filepath.Join(r.GetSandbox(), "stdout")
	if err := b.start(r.GetSandbox(), spec.Process.Terminal); err != nil {
		return nil, err
	}
	if i.fault.runsAtOnce {
		b.gate()
	}
	go b.wait()
	i.boxes[b.id], i.knows[b.id] = b, true
	return &isolatorv1.CreateResponse{Pid: int64(b.cmd.Process.Pid)}, nil
}

// start starts the process, which waits at its gate.
func (b *box) start(sandbox string, tty bool) error {
	files, err := openAll(b.stdout, filepath.Join(sandbox, "stderr"))
	if err != nil {
		return err
	}
	defer closeAll(files)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	b.cmd.Stdout, b.cmd.Stderr = files[0], files[1]
	b.cmd.ExtraFiles = append(b.cmd.ExtraFiles, read)
	b.gate = sync.OnceFunc(func() {
		_, _ = write.WriteString("go\n") // it may have been killed
		write.Close()
	})
	if tty {
		return b.startTerminal()
	}
	return b.cmd.Start()
}

func (b *box) wait() {
	_ = b.cmd.Wait() // ProcessState says how it ended
	if b.terminal != nil {
		b.terminal.Close()
	}
	b.gate() // closes it
	b.status = exitStatus(b.cmd.ProcessState)
	close(b.ended)
}

func (i *instance) Start(_ context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	b, err := i.box(r.GetContainer())
	if err != nil {
		return nil, err
	}
	b.gate()
	return &isolatorv1.StartResponse{}, nil
}

func (i *instance) Wait(ctx context.Context, r *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error) {
	b, err := i.box(r.GetContainer())
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.ended:
	}
	s := &isolatorv1.ExitStatus{Code: b.status.GetCode(), Signal: b.status.GetSignal(), Time: b.status.GetTime(), Known: true}
	switch {
	case i.fault.shortCodes && s.Code > 127:
		s.Code -= 256
	case i.fault.termIsCode && s.Signal == int32(syscall.SIGTERM):
		s.Code, s.Signal = 128+s.Signal, 0
	}
	return &isolatorv1.WaitResponse{Status: s}, nil
}

func (i *instance) Signal(_ context.Context, r *isolatorv1.SignalRequest) (*isolatorv1.SignalResponse, error) {
	b, err := i.box(r.GetContainer())
	if err != nil && !i.fault.knowsEverybody {
		return nil, err
	}
	if b != nil && !i.fault.deaf {
		_ = syscall.Kill(b.cmd.Process.Pid, syscall.Signal(r.GetSignal())) // it may have ended
	}
	return &isolatorv1.SignalResponse{}, nil
}

func (i *instance) Kill(_ context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	b, err := i.box(r.GetContainer())
	if err != nil {
		return nil, err
	}
	grace := time.Duration(r.GetGraceMs()) * time.Millisecond
	if i.fault.escalatesEarly {
		grace /= 2
	}
	if !i.fault.neverAsks {
		_ = syscall.Kill(b.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	}
	b.kill(time.Now().Add(grace), i.fault.pushesBack)
	return &isolatorv1.KillResponse{}, nil
}

func (i *instance) Usage(_ context.Context, r *isolatorv1.UsageRequest) (*isolatorv1.UsageResponse, error) {
	out := &isolatorv1.UsageResponse{}
	for _, id := range r.GetContainers() {
		if _, err := i.box(id); err == nil || i.fault.usageOfTheDead {
			now := float64(time.Now().UnixNano()) / 1e9
			out.Usages = append(out.Usages, &isolatorv1.Usage{Container: id, Statistics: &mezzov1.ResourceStatistics{Timestamp: &now}})
		}
	}
	return out, nil
}

func (i *instance) Limitations(ctx context.Context, send func(*isolatorv1.Limitation) error) error {
	if i.fault.limitsEverybody {
		return send(&isolatorv1.Limitation{Container: "everybody", Message: "too much"})
	}
	<-ctx.Done()
	return ctx.Err()
}

func (i *instance) Cleanup(_ context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	i.mu.Lock()
	b, knows := i.boxes[r.GetContainer()], i.knows[r.GetContainer()]
	delete(i.needs, r.GetContainer())
	i.mu.Unlock()
	switch {
	case b == nil && i.fault.cleanupComplains:
		return nil, status.Errorf(codes.NotFound, "container %s is not known", r.GetContainer())
	case b == nil || i.fault.leavesProcesses || i.fault.cleansKnown && !knows:
		return &isolatorv1.CleanupResponse{}, nil
	}
	b.end()
	i.mu.Lock()
	delete(i.boxes, b.id)
	i.mu.Unlock()
	return &isolatorv1.CleanupResponse{}, nil
}

func (i *instance) Recover(_ context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	out := &isolatorv1.RecoverResponse{}
	i.mu.Lock()
	defer i.mu.Unlock()
	named := map[string]bool{}
	for _, k := range r.GetContainers() {
		named[k.GetContainer()] = true
		x := &isolatorv1.Recovered{Container: k.GetContainer(), State: isolatorv1.Recovered_STATE_LOST}
		out.Containers = append(out.Containers, x)
		b := i.boxes[k.GetContainer()]
		if b == nil || i.fault.recoversNothing {
			continue
		}
		i.knows[b.id] = true
		x.State, x.Pid = isolatorv1.Recovered_STATE_RUNNING, int64(b.cmd.Process.Pid)
		select {
		case <-b.ended:
			x.State = isolatorv1.Recovered_STATE_EXITED
		default:
		}
	}
	for _, id := range slices.Sorted(maps.Keys(i.boxes)) {
		if !named[id] && !i.fault.namesNoOrphans {
			out.Orphans = append(out.Orphans, id)
			i.knows[id] = true
		}
	}
	return out, nil
}
