package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a master or an agent that `mezzo dev` has started.
type child struct {
	name   string
	exe    string
	args   []string
	stderr io.Writer
	ended  chan<- *child

	fields map[string]string // of its ready line
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has been reaped
	err    error         // how it ended; read after done

	mu      sync.Mutex
	serving bool
}

func (d *dev) newChild(name string, args []string) *child {
	if name == "master" && d.forMaster || name != "master" && d.forAgents {
		for _, path := range d.o.configs {
			args = append(args, "--config", path)
		}
	}
	return &child{name: name, exe: d.exe, args: args, stderr: d.c.err, ended: d.ended}
}

// start returns once the process serves, or with what went wrong.
func (c *child) start(ctx context.Context) error {
	// A process group of its own: Ctrl-C on the terminal reaches dev only, which
	// ends its children in order.
	c.cmd = exec.Command(c.exe, c.args...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = c.stderr
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start the %s: %w", c.name, err)
	}
	c.done = make(chan struct{})
	ready := make(chan map[string]string, 1)
	go c.watch(stdout, ready)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case c.fields = <-ready:
		c.mu.Lock()
		c.serving = true
		c.mu.Unlock()
		return nil
	case <-c.done:
		return fmt.Errorf("the %s did not start (%s); what it said is above", c.name, c.outcome())
	case <-ctx.Done():
		return fmt.Errorf("the %s was not ready within %s", c.name, startTimeout)
	}
}

// watch reads the ready line, then waits for the end.
func (c *child) watch(stdout io.Reader, ready chan<- map[string]string) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "ready" {
			fields := map[string]string{}
			for _, word := range words[1:] {
				name, value, _ := strings.Cut(word, "=")
				fields[name] = value
			}
			ready <- fields
			break
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	c.err = c.cmd.Wait()
	close(c.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving {
		c.ended <- c
	}
}

func (c *child) outcome() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// restartCommand starts it again by hand, at the same addresses.
func (c *child) restartCommand() string {
	words := []string{quote(c.exe)}
	for i, arg := range c.args {
		if i > 0 {
			switch field := map[string]string{"--rpc": "rpc", "--http": "http"}[c.args[i-1]]; {
			case field != "" && c.args[0] == "agent" && field == "rpc":
				arg = c.fields["agent"]
			case field != "" && c.args[0] == "agent":
				arg = c.fields["agent_http"]
			case field != "":
				arg = c.fields[field]
			}
		}
		words = append(words, quote(arg))
	}
	return strings.Join(words, " ")
}

// quote makes a word safe for a shell.
func quote(word string) string {
	if word != "" && strings.IndexFunc(word, func(r rune) bool {
		return !strings.ContainsRune("-_./:=,@%+", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// hangUp passes a SIGHUP on to a process that serves.
func (c *child) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving {
		_ = c.cmd.Process.Signal(syscall.SIGHUP)
	}
}

// stop asks the process to end and waits; past the limit it is killed.
func (c *child) stop(limit time.Duration) {
	if c.done == nil {
		return
	}
	c.mu.Lock()
	c.serving = false
	c.mu.Unlock()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(limit):
		_ = c.cmd.Process.Signal(os.Kill)
		<-c.done
	}
}
