package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 15 * time.Second
)

// process is a `mezzo master` or `mezzo agent` of the bench's own.
type process struct {
	cmd     *exec.Cmd
	fields  map[string]string // of its ready line
	leading chan time.Time    // when a master said that it leads
	swapped chan time.Time    // when it said that another allocator has taken over
	log     *tail
	ended   chan struct{}
}

// tail keeps the last of what a process says, for errors, and tells when a
// master leads.
type tail struct {
	mu      sync.Mutex
	last    []byte
	leading chan time.Time
	swapped chan time.Time
}

func (t *tail) Write(p []byte) (int, error) {
	for text, said := range map[string]chan time.Time{" leading: ": t.leading, "another allocator has taken over": t.swapped} {
		if bytes.Contains(p, []byte(text)) {
			select {
			case said <- time.Now():
			default:
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if n := len(t.last) - 4096; n > 0 {
		t.last = append(t.last[:0], t.last[n:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.last)
}

// start runs bin/mezzo with arguments and waits for its ready line.
func (b *bench) start(ctx context.Context, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(filepath.Join(b.bin, "mezzo"), args...), fields: map[string]string{}, ended: make(chan struct{})}
	p.leading = make(chan time.Time, 1)
	p.swapped = make(chan time.Time, 1)
	p.log = &tail{leading: p.leading, swapped: p.swapped}
	p.cmd.Stderr = p.log
	// Ctrl-C is ours to handle: the end of a section stops what it started.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if line := lines.Text(); strings.HasPrefix(line, "ready ") {
				ready <- line
			}
		}
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	select {
	case line := <-ready:
		for _, field := range strings.Fields(line)[1:] {
			name, value, _ := strings.Cut(field, "=")
			p.fields[name] = value
		}
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("mezzo %s ended before it was ready:\n%s", args[0], p.log)
	case <-time.After(startTimeout):
		p.kill()
		return nil, fmt.Errorf("mezzo %s was not ready in %s:\n%s", args[0], startTimeout, p.log)
	case <-ctx.Done():
		p.kill()
		return nil, ctx.Err()
	}
}

// stop asks the process to end, and ends it if it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// children returns the process's own children by the name of their binary.
func (p *process) children() (map[string]int, error) {
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		if parent, err := parentOf(pid); err == nil && parent == p.pid() {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
				out[filepath.Base(exe)] = pid
			}
		}
	}
	return out, nil
}

// usage is what one process uses.
type usage struct {
	rss, pss float64 // MiB
}

// usageOf measures a process. PSS counts pages that it shares with others in
// part.
func usageOf(pid int) (usage, error) {
	var out usage
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return out, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Rss:":
			out.rss = kib / 1024
		case "Pss:":
			out.pss = kib / 1024
		}
	}
	return out, nil
}

// parentOf is the pid of the process that started it.
func parentOf(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything.
	end := bytes.LastIndexByte(text, ')')
	fields := strings.Fields(string(text[end+1:]))
	if end < 0 || len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat cannot be read", pid)
	}
	return strconv.Atoi(fields[1])
}

// processor is the time that the process's threads have run; those that have
// ended are not in it, which Go's hardly ever do.
func processor(pid int) (sum time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, thread := range threads {
		if text, err := os.ReadFile(thread); err == nil {
			first, _, _ := strings.Cut(string(text), " ")
			n, _ := strconv.ParseInt(first, 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}
