package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

const (
	// drainTime is how long output is still read after the process has ended:
	// something that it started may hold the pipes open for ever.
	drainTime = 250 * time.Millisecond
	// maxStray bounds what may stand on stdout before the handshake.
	maxStray = 4 << 10
)

// handshakeLine is go-plugin's: core version|contract version|network|address|…
var handshakeLine = regexp.MustCompile(`^\d+\|(\d+)\|[a-z]+\|[^|]+\|`)

// child is the operating system's side of a plugin process, in the form that
// go-plugin drives (runner.Runner). It owns the pipes, so that a stray print
// cannot break the handshake, a grandchild that holds stderr cannot hide the
// death of the process, and what was printed is there to explain it.
//
// It signals through os.Process, which holds a pidfd and is the only one to
// reap the child: no other process can ever be hit.
type child struct {
	cmd     *exec.Cmd
	out     *output
	stderr  func(line string)
	stray   func(line string)
	adopted atomic.Bool // the launch is over: go-plugin may kill

	mu        sync.Mutex
	process   *os.Process // nil before the start
	condemned bool        // killed, maybe before the start

	// What go-plugin reads; the writing ends are closed at the end of output.
	handshakeR, stderrR *io.PipeReader
	handshakeW, stderrW *io.PipeWriter

	hostPipe *os.File // its end tells the plugin that the host is gone

	exited     chan struct{} // closed when the process is reaped and its output read
	state      *os.ProcessState
	noMore     chan struct{} // closed when stdout ended or holds too much that is no handshake
	tooMuch    atomic.Bool
	plugin     atomic.Int64 // contract version in the handshake, once seen
	closeStray sync.Once
}

var _ runner.Runner = (*child)(nil)

func newChild(path string, env []string, out *output, stderr, stray func(string)) *child {
	c := &child{
		cmd: exec.Command(path), out: out, stderr: stderr, stray: stray,
		exited: make(chan struct{}), noMore: make(chan struct{}),
	}
	c.cmd.Env = env
	// A process group of its own: Ctrl-C is for the host, which ends its plugins.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.handshakeR, c.handshakeW = io.Pipe()
	c.stderrR, c.stderrW = io.Pipe()
	return c
}

// Start starts the process.
func (c *child) Start(context.Context) error {
	var files [6]*os.File // read and write ends of stdout, stderr, host
	closeAll := func(fs ...*os.File) {
		for _, f := range fs {
			if f != nil {
				f.Close()
			}
		}
	}
	for n := 0; n < len(files); n += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files[:]...)
			return err
		}
		files[n], files[n+1] = r, w
	}
	c.cmd.Stdout, c.cmd.Stderr = files[1], files[3]
	c.cmd.ExtraFiles = []*os.File{files[4]} // descriptor hostPipeFD
	c.hostPipe = files[5]
	err := c.begin()
	closeAll(files[1], files[3], files[4])
	if err != nil {
		closeAll(files[0], files[2], files[5])
		return err
	}
	c.watch(files[0], files[2])
	return nil
}

// begin starts the process unless it was killed before.
func (c *child) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.condemned {
		return context.Canceled
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.process = c.cmd.Process
	return nil
}

// hostPipeFD is where a child finds the pipe: the first of ExtraFiles.
const hostPipeFD = 3

// watch reads the output and reaps the process.
func (c *child) watch(stdout, stderr *os.File) {
	var readers sync.WaitGroup
	readers.Go(func() { c.readStdout(stdout) })
	readers.Go(func() {
		eachLine(stderr, func(line string) {
			c.out.addStderr(readable(line))
			c.stderr(line)
		})
	})
	go func() {
		// An error here is an exit status; the process is reaped in any case.
		c.cmd.Wait()
		c.state = c.cmd.ProcessState
		deadline := time.Now().Add(drainTime)
		stdout.SetReadDeadline(deadline)
		stderr.SetReadDeadline(deadline)
		readers.Wait()
		stdout.Close()
		stderr.Close()
		c.hostPipe.Close()
		c.endHandshake()
		c.stderrW.Close()
		close(c.exited)
	}()
}

// readStdout passes the handshake on and logs everything else.
func (c *child) readStdout(stdout io.Reader) {
	seen, stray := false, 0
	eachLine(stdout, func(line string) {
		match := handshakeLine.FindStringSubmatch(line)
		if match != nil && !seen {
			seen = true
			version, _ := strconv.ParseInt(match[1], 10, 64)
			c.plugin.Store(version)
			io.WriteString(c.handshakeW, line+"\n")
			return
		}
		if !seen {
			c.out.addStdout(line)
			if stray += len(line) + 1; stray > maxStray {
				c.tooMuch.Store(true)
				c.endHandshake()
			}
		}
		if stray <= maxStray {
			c.stray(line)
		}
	})
	c.endHandshake()
}

// endHandshake tells go-plugin that no (more) handshake will come.
func (c *child) endHandshake() {
	c.closeStray.Do(func() {
		close(c.noMore)
		c.handshakeW.Close()
	})
}

// Wait waits for the process's end.
func (c *child) Wait(context.Context) error {
	<-c.exited
	if !c.state.Success() {
		return errors.New(c.state.String())
	}
	return nil
}

// Kill is go-plugin's; during a launch it does nothing, since the launch looks
// at how the process ends before it kills.
func (c *child) Kill(context.Context) error {
	if !c.adopted.Load() {
		return nil
	}
	return c.kill()
}

// kill sends SIGKILL; a process that has not begun never will.
func (c *child) kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.condemned = true
	if c.process == nil {
		return nil
	}
	if err := c.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (c *child) Stdout() io.ReadCloser { return c.handshakeR }

// Stderr gives go-plugin nothing to log: the lines are forwarded here. It ends
// when the process's stderr does.
func (c *child) Stderr() io.ReadCloser { return c.stderrR }

func (c *child) Name() string                    { return c.cmd.Path }
func (c *child) Diagnose(context.Context) string { return "" }

// ID is empty before the process runs.
func (c *child) ID() string {
	if pid := c.pid(); pid != 0 {
		return strconv.Itoa(pid)
	}
	return ""
}

// pid is 0 before the process runs.
func (c *child) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.Pid
}

func (c *child) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// ending says how the process ended: "exit status 3", "signal: killed".
func (c *child) ending() string {
	status, ok := c.state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return fmt.Sprintf("was killed by signal %d (%s)", status.Signal(), status.Signal())
	default:
		return fmt.Sprintf("exited with status %d", c.state.ExitCode())
	}
}

// stoppedNote says so if the process is stopped, for errors about a silence.
func (c *child) stoppedNote() string {
	if c.procState() == 'T' {
		return "; the process is stopped (SIGSTOP)"
	}
	return ""
}

// procState is the letter of /proc/PID/stat, 0 if it cannot be read. The child
// is not reaped before exited is closed, so the pid is still its own.
func (c *child) procState() byte {
	select {
	case <-c.exited:
		return 0
	default:
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.pid()))
	if err != nil {
		return 0
	}
	// The name stands in brackets and may hold anything.
	if end := strings.LastIndexByte(string(data), ')'); end >= 0 && end+2 < len(data) {
		return data[end+2]
	}
	return 0
}
