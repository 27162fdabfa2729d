package doctest

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed driver.sh
var driver string

// standardPatience bounds how long a command may take, unless Options say.
const standardPatience = 2 * time.Minute

// Options say where a page is run.
type Options struct {
	Dir   string   // an empty directory, for the page alone; it is the caller's to remove
	Env   []string // the environment of its shells
	Setup string   // a piece of shell that is run first, as root of the page's own machine
	Root  string   // when not empty, the root of a file system that the page is run in; Dir and what Env names are within it
	// Patience is how long one command may take, and how long a page's words may
	// take to come true; two minutes if it is 0.
	Patience time.Duration
	Binds    []string // directories of the machine that are seen within Root, as FROM:TO
}

// Session is a machine that a page is run on: namespaces of its own for
// processes, network and mounts, in which `/etc`, `/run`, `/usr/local` and
// `/var/lib` take any change, and which leaves nothing. Making one needs root.
// Its methods are called by one goroutine.
type Session struct {
	dir      string // as the caller sees it
	cmd      *exec.Cmd
	orders   *os.File
	answers  *bufio.Scanner
	lines    chan string
	count    int
	last     map[string]int // the block that runs in a terminal
	patience time.Duration
}

// Start makes the machine. It lives until End.
func Start(o Options) (*Session, error) {
	script := filepath.Join(o.Root, o.Dir, ".page")
	if err := errors.Join(os.MkdirAll(script, 0o755), os.WriteFile(filepath.Join(script, "driver.sh"), []byte(driver), 0o644),
		os.WriteFile(filepath.Join(script, "setup.sh"), []byte(o.Setup), 0o644)); err != nil {
		return nil, err
	}
	orders, sendOrders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answers, sendAnswers, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(script, "driver.out"))
	if err != nil {
		return nil, err
	}
	// Where the tests are run in the background Ctrl-C is ignored, and a shell that
	// begins so cannot change it.
	args := []string{"--default-signal=INT,QUIT", "unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private", "sh", "-ec"}
	begin := "exec "
	if o.Root != "" {
		// What looks for the root's own mount, as runc does, finds one.
		begin = fmt.Sprintf("mount --bind '%[1]s' '%[1]s'; ", o.Root)
		for _, bind := range append([]string{"/dev:/dev", "/sys:/sys"}, o.Binds...) {
			from, to, _ := strings.Cut(bind, ":")
			begin += fmt.Sprintf("mkdir -p '%[2]s%[3]s'; mount --rbind '%[1]s' '%[2]s%[3]s'; ", from, o.Root, to)
		}
		begin += "exec chroot '" + o.Root + "' "
	}
	s := &Session{dir: script, orders: sendOrders, answers: bufio.NewScanner(answers), lines: make(chan string), last: map[string]int{}, patience: cmp.Or(o.Patience, standardPatience)}
	s.cmd = exec.Command("env", append(args, begin+"bash '"+filepath.Join(o.Dir, ".page", "driver.sh")+"' '"+o.Dir+"'")...)
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = o.Env, log, log
	s.cmd.ExtraFiles = []*os.File{orders, sendAnswers}
	err = s.cmd.Start()
	_ = errors.Join(orders.Close(), sendAnswers.Close(), log.Close())
	if err != nil {
		_ = errors.Join(sendOrders.Close(), answers.Close())
		return nil, err
	}
	go func() {
		defer close(s.lines)
		defer answers.Close()
		for s.answers.Scan() {
			s.lines <- s.answers.Text()
		}
	}()
	if _, err := s.answer(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("the page's machine does not start: %w", err), s.End())
	}
	return s, nil
}

// Pid is the process, seen from outside, whose namespaces are the page's.
func (s *Session) Pid() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.cmd.Process.Pid, s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// Do does what a block says, and returns what it printed. An error says what was
// not as the page says.
func (s *Session) Do(ctx context.Context, b Block) (output string, err error) {
	if b.Terminal != "" {
		return s.terminal(ctx, b)
	}
	deadline := time.Now().Add(s.patience)
	for {
		output, status, err := s.run(ctx, "run", b.Text)
		asShown := !b.Shown || Match(b.Output, output, false)
		switch {
		case err != nil:
			return output, err
		case b.Until && (status != "0" || !asShown):
			if time.Now().After(deadline) {
				return output, fmt.Errorf("it did not come to print what the page says within %s", s.patience)
			}
			select {
			case <-ctx.Done():
				return output, ctx.Err()
			case <-time.After(100 * time.Millisecond):
				continue
			}
		case status != "0":
			return output, fmt.Errorf("a command failed with exit status %s", status)
		case !asShown:
			return output, errors.New("it printed something else than the page says")
		}
		return output, nil
	}
}

func (s *Session) terminal(ctx context.Context, b Block) (output string, err error) {
	if n := s.last[b.Terminal]; n != 0 {
		delete(s.last, b.Terminal)
		if status, err := s.order(ctx, "interrupt", n); err != nil {
			return s.output(n), fmt.Errorf("Ctrl-C: %w", err)
		} else if status != "0" && status != "130" {
			return s.output(n), fmt.Errorf("after Ctrl-C it ended with exit status %s", status)
		}
	}
	if b.Text == "" {
		return "", nil
	}
	if _, _, err := s.run(ctx, "stay", b.Text); err != nil {
		return "", err
	}
	n := s.count
	s.last[b.Terminal] = n
	deadline := time.Now().Add(s.patience)
	for {
		if Match(b.Output, s.output(n), true) {
			return s.output(n), nil
		}
		if status, err := s.order(ctx, "runs", n); err != nil || status != "0" {
			return s.output(n), fmt.Errorf("it does not stay in the foreground; exit status %s, %v", status, err)
		}
		if time.Now().After(deadline) {
			return s.output(n), fmt.Errorf("it did not print what the page says within %s", s.patience)
		}
		select {
		case <-ctx.Done():
			return s.output(n), ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// run has the driver take up a piece of shell.
func (s *Session) run(ctx context.Context, how, text string) (output, status string, err error) {
	s.count++
	if err := os.WriteFile(filepath.Join(s.dir, fmt.Sprintf("%d.sh", s.count)), []byte(text), 0o644); err != nil {
		return "", "", err
	}
	status, err = s.order(ctx, how, s.count)
	return s.output(s.count), status, err
}

func (s *Session) output(n int) string {
	text, _ := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("%d.out", n)))
	return string(text)
}

func (s *Session) order(ctx context.Context, how string, n int) (status string, err error) {
	if _, err := fmt.Fprintf(s.orders, "%s %d\n", how, n); err != nil {
		return "", err
	}
	return s.answer(ctx)
}

func (s *Session) answer(ctx context.Context) (string, error) {
	select {
	case line, ok := <-s.lines:
		if !ok {
			log, _ := os.ReadFile(filepath.Join(s.dir, "driver.out"))
			return "", fmt.Errorf("the page's shell has ended: %s", log)
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(s.patience):
		// It hangs, and so does the driver: all that is left is to end the machine.
		_ = s.cmd.Process.Kill()
		return "", fmt.Errorf("it did not end within %s", s.patience)
	}
}

// End ends what the page has left running, in order where it can, and the
// machine with it. It tells what did not end by itself.
func (s *Session) End() error {
	ctx := context.Background()
	var problems []error
	for len(s.last) > 0 {
		newest := ""
		for name, n := range s.last {
			if newest == "" || n > s.last[newest] {
				newest = name
			}
		}
		n := s.last[newest]
		delete(s.last, newest)
		if _, err := s.order(ctx, "interrupt", n); err != nil {
			problems = append(problems, fmt.Errorf("terminal %s: %w", newest, err))
			break
		}
	}
	_ = s.orders.Close()
	// The driver ends by itself; only one that hangs is killed, and all of the
	// page with it.
	kill := time.AfterFunc(s.patience, func() { _ = s.cmd.Process.Kill() })
	for range s.lines {
	}
	err := s.cmd.Wait()
	kill.Stop()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(s.dir, "driver.out"))
		problems = append(problems, fmt.Errorf("the page's machine: %w: %s", err, log))
	}
	return errors.Join(problems...)
}
