package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// isolatorRules are what an isolator must keep, as far as it is seen from
// outside. What only a launcher does is skipped for others.
func isolatorRules() []rule {
	return []rule{
		{"claim", "Claim answers launch, amend or none, with a reason for none, and the same again.", playClaim},
		{"prepare", "Prepare keeps what it does not change in the spec: arguments, environment, unknown annotations, large numbers.", playPrepare},
		{"cleanup", "Cleanup succeeds for a container that never was, and twice.", playCleanup},
		{"start", "Nothing of the task runs before Start; then it runs in its sandbox, with its environment and output.", playStart},
		{"exit-code", "Wait tells the exit code, and again.", playExitCode},
		{"exit-signal", "Wait tells the signal that ended the process.", playExitSignal},
		{"signal", "Signal reaches the container's process.", playSignal},
		{"kill", "Kill sends its signal at once, and the process may end in its own way.", playKill},
		{"kill-escalates", "Kill ends by SIGKILL, when the grace period is over, what ignores its signal.", playEscalation},
		{"kill-nearer", "A second Kill may bring the end nearer, never push it back.", playNearer},
		{"not-found", "Wait, Signal and Kill of a container that is not known say NOT_FOUND.", playNotFound},
		{"bad-program", "A program that is not there is an error of Start or Create, or exit code 127.", playBadProgram},
		{"concurrent", "Containers run beside each other.", playConcurrent},
		{"usage", "Usage tells of a container that runs, and of none that is gone.", playUsage},
		{"limitations", "Limitations stays open while nothing is exceeded.", playLimitations},
		{"exec", "Exec runs a command beside the container's process, with its own output, input, signals and status.", playExec},
		{"exec-ends", "A command that Exec runs ends with its stream.", playExecEnds},
		{"exec-terminal", "Exec gives a command a terminal of the size that is asked for, then and later.", playExecTerminal},
		{"attach", "Attach sends several what is written from then on, and the status; the process does not mind who leaves.", playAttach},
		{"attach-slow", "Who is attached and does not read holds up nobody, and is not told that what was sent is all.", playAttachSlow},
		{"attach-terminal", "What is sent to one who is attached is typed, where the process has a terminal.", playAttachTerminal},
		{"recover", "When the plugin is killed containers run on, and the next one knows how they are; orphans are named.", playRecover},
		{"images", "ImportImage keeps the image of an archive and nothing of what is none; ListImages and RemoveImage agree. (capability images)", playImages},
		{"provision", "Provision has an image that is here ready, and kept, until Cleanup; one that is not is an error. (capabilities provision, images)", playProvision},
		{"cold-cleanup", "Cleanup in a process that has just started ends and removes a container.", playColdCleanup},
	}
}

// cell is one isolator under test, and the containers made by it.
type cell struct {
	c      *scenario
	plugin *Plugin
	isolatorv1.IsolatorClient
	boxes []*box
	named int
}

// box is one container.
type box struct {
	id, sandbox string
	task        *isolatorv1.Task
	handle      []byte
	pid         int64
}

// isolator returns the plugin that scenarios share; it has been told that there
// is nothing to recover.
func (c *scenario) isolator() *cell {
	n := &cell{c: c}
	n.use(c.configured())
	if c.suite.recovered != n.plugin {
		if _, err := n.Recover(c.call(), &isolatorv1.RecoverRequest{}); err != nil {
			c.failf("Recover of nothing failed: %v", err)
		}
		c.suite.recovered = n.plugin
	}
	c.undo = append(c.undo, n.clean)
	return n
}

// launcher is isolator, for what only a launcher can do.
func (c *scenario) launcher() *cell {
	if !slices.Contains(c.suite.description.GetCapabilities(), "launch") {
		c.skipf("it does not launch containers")
	}
	return c.isolator()
}

func (n *cell) use(p *Plugin) { n.plugin, n.IsolatorClient = p, isolatorv1.NewIsolatorClient(p.Conn) }

// clean removes what the scenario made, however it ended.
func (n *cell) clean() {
	for _, b := range slices.Backward(n.boxes) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(n.c.ctx), n.c.suite.options.Patience)
		_, err := n.Cleanup(ctx, &isolatorv1.CleanupRequest{Container: b.id, Handle: b.handle})
		cancel()
		if err != nil {
			n.c.suite.verdicts["cleanup"].fail(fmt.Sprintf("in the scenario of %s, of container %s: %v", n.c.rule.name, b.id, err))
		}
	}
}

// box makes room for a container that runs a script.
func (n *cell) box(script string) (*box, []byte) {
	n.named++
	b := &box{id: fmt.Sprintf("verify-%d-%s-%d", os.Getpid(), n.c.rule.name, n.named)}
	b.sandbox = filepath.Join(n.c.suite.data, "work", b.id)
	if err := os.MkdirAll(b.sandbox, 0o755); err != nil {
		n.c.failf("make a sandbox: %v", err)
	}
	b.task = &isolatorv1.Task{FrameworkId: "verify", TaskId: b.id, Name: b.id, Role: "*", Resources: []*mezzov1.Resource{scalar("cpus", 0.1), scalar("mem", 64)}}
	spec := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "/"}, Annotations: map[string]string{"mezzo.container": b.id, "verify.example/kept": "yes"},
		Process: &specs.Process{
			User: specs.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, Args: []string{"/bin/sh", "-c", script}, Cwd: b.sandbox,
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello", "HOME=" + b.sandbox},
		},
		Linux: &specs.Linux{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: proto.Int64(64 << 20)}}},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		n.c.failf("write a spec: %v", err)
	}
	n.boxes = append(n.boxes, b)
	return b, text
}

func scalar(name string, value float64) *mezzov1.Resource {
	return &mezzov1.Resource{Name: proto.String(name), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(value)}}
}

// tryCreate goes as far as a stopped process.
func (n *cell) tryCreate(b *box, spec []byte) error {
	prepared, err := n.Prepare(n.c.call(), &isolatorv1.PrepareRequest{Container: b.id, Task: b.task, Spec: spec, Sandbox: b.sandbox})
	if err != nil {
		return fmt.Errorf("call to Prepare: %w", err)
	}
	b.handle = prepared.GetHandle()
	created, err := n.Create(n.c.call(), &isolatorv1.CreateRequest{Container: b.id, Task: b.task, Spec: prepared.GetSpec(), Sandbox: b.sandbox})
	if err != nil {
		return fmt.Errorf("call to Create: %w", err)
	}
	if b.pid = created.GetPid(); len(created.GetHandle()) > 0 {
		b.handle = created.GetHandle()
	}
	if slices.Contains(n.c.suite.description.GetCapabilities(), "isolate") {
		if _, err := n.Isolate(n.c.call(), &isolatorv1.IsolateRequest{Container: b.id, Pid: b.pid, Netns: created.GetNetns()}); err != nil {
			return fmt.Errorf("call to Isolate: %w", err)
		}
	}
	return nil
}

// create makes a container that is not started.
func (n *cell) create(script string) *box {
	b, spec := n.box(script)
	if err := n.tryCreate(b, spec); err != nil {
		n.c.failf("container %s with the script %q: %v", b.id, script, err)
	}
	return b
}

// run makes a container and starts it.
func (n *cell) run(script string) *box {
	b := n.create(script)
	if _, err := n.Start(n.c.call(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		n.c.failf("container %s with the script %q: Start: %v", b.id, script, err)
	}
	return b
}

func (n *cell) wait(b *box) *isolatorv1.ExitStatus {
	r, err := n.Wait(n.c.call(), &isolatorv1.WaitRequest{Container: b.id})
	if err != nil {
		n.c.failf("container %s: Wait: %v", b.id, err)
	}
	return r.GetStatus()
}

// output waits until the container has written a line on stdout.
func (n *cell) output(b *box, line string) {
	if !n.eventually(func() bool { return strings.Contains(b.read("stdout"), line+"\n") }) {
		n.c.failf("container %s: %q is not in the file stdout of its sandbox; there is %q, and in stderr %q", b.id, line, b.read("stdout"), b.read("stderr"))
	}
}

func (b *box) read(name string) string {
	text, _ := os.ReadFile(filepath.Join(b.sandbox, name)) // not there yet: empty
	return string(text)
}

// eventually looks again and again at what another process does.
func (n *cell) eventually(condition func() bool) bool {
	for deadline := time.Now().Add(n.c.suite.options.Patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) || n.c.ctx.Err() != nil {
			return false
		}
	}
	return true
}

func playClaim(c *scenario) {
	n := c.isolator()
	b, _ := n.box("true")
	var first *isolatorv1.ClaimResponse
	for range 2 {
		r, err := n.Claim(c.call(), &isolatorv1.ClaimRequest{Container: b.id, Task: b.task})
		switch {
		case err != nil:
			c.failf("Claim failed: %v", err)
		case r.GetClaim() < isolatorv1.ClaimResponse_CLAIM_NONE || r.GetClaim() > isolatorv1.ClaimResponse_CLAIM_LAUNCH:
			c.failf("the claim is %v", r.GetClaim())
		case r.GetClaim() == isolatorv1.ClaimResponse_CLAIM_NONE && r.GetReason() == "":
			c.failf("it claims no part in the container, and does not say why")
		case first != nil && first.GetClaim() != r.GetClaim():
			c.failf("the first claim is %v, the second %v", first.GetClaim(), r.GetClaim())
		}
		first = r
	}
	launches := slices.Contains(c.suite.description.GetCapabilities(), "launch")
	if first.GetClaim() == isolatorv1.ClaimResponse_CLAIM_LAUNCH && !launches {
		c.failf("it claims to launch, and the capability launch is not among those that it describes")
	}
}

func playPrepare(c *scenario) {
	n := c.isolator()
	b, text := n.box("true")
	var before, after specs.Spec
	if err := json.Unmarshal(text, &before); err != nil {
		c.failf("read a spec: %v", err)
	}
	// "No limit" is a number that a float64 cannot hold.
	limit := specs.POSIXRlimit{Type: "RLIMIT_CORE", Hard: math.MaxUint64, Soft: math.MaxUint64 - 1}
	before.Process.Rlimits = append(before.Process.Rlimits, limit)
	text, err := json.Marshal(&before)
	if err != nil {
		c.failf("write a spec: %v", err)
	}
	r, err := n.Prepare(c.call(), &isolatorv1.PrepareRequest{Container: b.id, Task: b.task, Spec: text, Sandbox: b.sandbox})
	if err != nil {
		c.failf("Prepare failed: %v", err)
	}
	b.handle = r.GetHandle()
	if err := json.Unmarshal(r.GetSpec(), &after); err != nil || after.Process == nil {
		c.failf("what it returned is no spec with a process (%v): %s", err, r.GetSpec())
	}
	if !slices.Contains(after.Process.Rlimits, limit) {
		c.failf("the limits have lost %v: %v", limit, after.Process.Rlimits)
	}
	if after.Annotations["verify.example/kept"] != "yes" {
		c.failf("the annotation verify.example/kept is gone: %s", r.GetSpec())
	}
	for _, v := range before.Process.Env {
		if !slices.Contains(after.Process.Env, v) {
			c.failf("the environment has lost %s: %v", v, after.Process.Env)
		}
	}
	if n := len(after.Process.Args); n == 0 || after.Process.Args[n-1] != "true" {
		c.failf("the arguments are %v, and were %v", after.Process.Args, before.Process.Args)
	}
}

func playCleanup(c *scenario) {
	n := c.isolator()
	for range 2 {
		if _, err := n.Cleanup(c.call(), &isolatorv1.CleanupRequest{Container: "verify-never-was"}); err != nil {
			c.failf("of a container that never was: %v", err)
		}
	}
	if !slices.Contains(c.suite.description.GetCapabilities(), "launch") {
		return
	}
	b := n.run("sleep 1000")
	for i := range 2 {
		if _, err := n.Cleanup(c.call(), &isolatorv1.CleanupRequest{Container: b.id, Handle: b.handle}); err != nil {
			c.failf("of a container that runs, call %d: %v", i+1, err)
		}
	}
	if !n.eventually(func() bool { return !alive(b.pid) }) {
		c.failf("after Cleanup the process %d of container %s lives on", b.pid, b.id)
	}
}
