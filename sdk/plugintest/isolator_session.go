package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// talk is one Exec or Attach under way, whose output is being read.
type talk struct {
	n      *cell
	stream grpc.BidiStreamingClient[isolatorv1.ExecInput, isolatorv1.ExecOutput]
	leave  context.CancelFunc
	ended  chan struct{}

	mu             sync.Mutex
	stdout, stderr strings.Builder
	size           int                    // of both
	status         *isolatorv1.ExitStatus // once ended is closed: nil, it was cut off
	err            error
}

// serving is launcher, for isolators with a capability beyond.
func (c *scenario) serving(capability string) *cell {
	if !slices.Contains(c.suite.description.GetCapabilities(), capability) {
		c.skipf("it has not the capability %s", capability)
	}
	return c.launcher()
}

// connect opens a stream and waits for its first message, that it has started.
func (n *cell) connect(call func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[isolatorv1.ExecInput, isolatorv1.ExecOutput], error), first *isolatorv1.ExecInput) *talk {
	ctx, cancel := context.WithCancel(n.c.call())
	n.c.undo = append(n.c.undo, cancel)
	stream, err := call(ctx)
	if err != nil {
		n.c.failf("container %s: %v", first.GetStart().GetContainer(), err)
	}
	_ = stream.Send(first) // Recv tells why it failed
	switch out, err := stream.Recv(); {
	case err != nil:
		n.c.failf("container %s: %v", first.GetStart().GetContainer(), err)
	case !out.GetStarted():
		n.c.failf("container %s: the first message is not that it has started: %v", first.GetStart().GetContainer(), out)
	}
	return &talk{n: n, stream: stream, leave: cancel, ended: make(chan struct{})}
}

// exec runs a script in a container.
func (n *cell) exec(b *box, script string, tty bool) *talk {
	process := &specs.Process{
		User: specs.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, Args: []string{"/bin/sh", "-c", script}, Cwd: b.sandbox, Terminal: tty,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello"},
	}
	text, err := json.Marshal(process)
	if err != nil {
		n.c.failf("write a process: %v", err)
	}
	start := &isolatorv1.ExecStart{Container: b.id, Process: text, Tty: tty}
	if tty {
		start.Size = &isolatorv1.WindowSize{Rows: 31, Columns: 71}
	}
	t := n.connect(n.Exec, &isolatorv1.ExecInput{Start: start})
	go t.read()
	return t
}

// attach connects to a container. Nothing is read before read is called.
func (n *cell) attach(b *box) *talk {
	return n.connect(n.Attach, &isolatorv1.ExecInput{Start: &isolatorv1.ExecStart{Container: b.id}})
}

// read reads the output to its end.
func (t *talk) read() {
	defer close(t.ended)
	for {
		out, err := t.stream.Recv()
		t.mu.Lock()
		if err != nil {
			t.err = err
			t.mu.Unlock()
			return
		}
		const kept = 64 << 10
		if t.size += len(out.GetStdout()) + len(out.GetStderr()); t.size < kept {
			t.stdout.Write(out.GetStdout())
			t.stderr.Write(out.GetStderr())
		}
		if out.GetStatus() != nil {
			t.status = out.GetStatus()
		}
		t.mu.Unlock()
	}
}

func (t *talk) seen() (stdout, stderr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stdout.String(), t.stderr.String()
}

func (t *talk) shows(text string) {
	if !t.n.eventually(func() bool { out, _ := t.seen(); return strings.Contains(out, text) }) {
		out, errors := t.seen()
		t.n.c.failf("%q is not in what was sent: stdout is %q, stderr %q", text, out, errors)
	}
}

// end waits for the stream's end, and returns the status.
func (t *talk) end() *isolatorv1.ExitStatus {
	select {
	case <-t.ended:
	case <-t.n.c.call().Done():
		t.n.c.failf("the stream does not end")
	}
	return t.status
}

func (t *talk) send(in *isolatorv1.ExecInput) {
	if err := t.stream.Send(in); err != nil && !errors.Is(err, io.EOF) {
		t.n.c.failf("input is not taken: %v", err)
	}
}

func playExec(c *scenario) {
	n := c.serving("exec")
	b := n.run("echo ready; sleep 1000")
	n.output(b, "ready")
	t := n.exec(b, `echo "$GREETING from $(pwd)"; echo woe >&2; cat; exit 6`, false)
	t.send(&isolatorv1.ExecInput{Stdin: []byte("typed\n")})
	t.send(&isolatorv1.ExecInput{StdinClosed: true})
	status := t.end()
	out, problems := t.seen()
	if want := "hello from " + b.sandbox + "\ntyped\n"; out != want || problems != "woe\n" {
		c.failf("stdout is %q, want %q; stderr is %q, want %q", out, want, problems, "woe\n")
	}
	if status.GetCode() != 6 || status.GetSignal() != 0 {
		c.failf("it ended by exit 6, and the stream says %v, %v", status, t.err)
	}
	t = n.exec(b, "sleep 1000", false)
	t.send(&isolatorv1.ExecInput{Signal: 15})
	if status := t.end(); status.GetSignal() != 15 {
		c.failf("it was sent signal 15, and the stream says %v, %v", status, t.err)
	}
	if b.pid != 0 && !alive(b.pid) {
		c.failf("with the command the container's own process ended")
	}
}

func playExecEnds(c *scenario) {
	n := c.serving("exec")
	b := n.run("echo ready; sleep 1000")
	n.output(b, "ready")
	t := n.exec(b, `echo up; while :; do echo beat >> beats; sleep 0.02; done`, false)
	t.shows("up")
	t.leave()
	const quiet = 700 * time.Millisecond // many beats, also where much else runs
	last := -1
	if !n.eventually(func() bool {
		before := last
		time.Sleep(max(quiet, c.suite.window()))
		last = len(b.read("beats"))
		return last == before
	}) {
		c.failf("the stream has ended, and the command that it ran goes on")
	}
}

func playExecTerminal(c *scenario) {
	n := c.serving("exec")
	b := n.run("echo ready; sleep 1000")
	n.output(b, "ready")
	t := n.exec(b, `test -t 0 && echo terminal $(stty size); while read line; do echo "got $line" $(stty size); done`, true)
	t.shows("terminal 31 71")
	t.send(&isolatorv1.ExecInput{Resize: &isolatorv1.WindowSize{Rows: 41, Columns: 81}})
	t.send(&isolatorv1.ExecInput{Stdin: []byte("word\r")})
	t.shows("got word 41 81")
}

func playAttach(c *scenario) {
	n := c.serving("attach")
	b := n.run("echo early; while [ ! -e go ]; do sleep 0.02; done; echo now; while [ ! -e end ]; do sleep 0.02; done; exit 5")
	n.output(b, "early")
	first, second := n.attach(b), n.attach(b)
	go first.read()
	go second.read()
	c.touch(b, "go")
	for _, t := range []*talk{first, second} {
		t.shows("now\n")
		if out, _ := t.seen(); out != "now\n" {
			c.failf("attached when %q had been written, and what was sent is %q", "early", out)
		}
	}
	first.leave()
	first.end()
	time.Sleep(c.suite.window()) // in which nothing must happen
	if b.pid != 0 && !alive(b.pid) {
		c.failf("somebody detached, and the container's process is gone")
	}
	c.touch(b, "end")
	if s := second.end(); s.GetCode() != 5 || s.GetSignal() != 0 {
		c.failf("it ended by exit 5, and the stream says %v, %v", s, second.err)
	}
}

// flood is more than fits between a container and somebody who does not read.
const flood = 16 << 20

func playAttachSlow(c *scenario) {
	n := c.serving("attach")
	b := n.run("echo ready; while [ ! -e go ]; do sleep 0.02; done; head -c 16777216 /dev/zero; exit 5")
	n.output(b, "ready")
	t := n.attach(b)
	c.touch(b, "go")
	if s := n.wait(b); s.GetCode() != 5 {
		c.failf("somebody attached does not read, and the container ended so: %v", s)
	}
	go t.read()
	if t.end(); t.status != nil && t.size < flood {
		c.failf("somebody who was too slow got %d of %d bytes, and then the status, as if that were all: want an error", t.size, flood)
	}
}

func playAttachTerminal(c *scenario) {
	n := c.serving("attach")
	b, text := n.box(`test -t 0 || exit 9; while read line; do echo "got $line"; done`)
	text = []byte(strings.Replace(string(text), `"process":{`, `"process":{"terminal":true,`, 1))
	if err := n.tryCreate(b, text); err != nil {
		c.failf("a container with a terminal: %v", err)
	}
	t := n.attach(b)
	go t.read()
	if _, err := n.Start(c.call(), &isolatorv1.StartRequest{Container: b.id}); err != nil {
		c.failf("Start failed: %v", err)
	}
	t.send(&isolatorv1.ExecInput{Stdin: []byte("word\r")})
	t.shows("got word")
}

// touch makes a file in a sandbox.
func (c *scenario) touch(b *box, name string) {
	if err := os.WriteFile(b.sandbox+"/"+name, nil, 0o644); err != nil {
		c.failf("write a file in a sandbox: %v", err)
	}
}
