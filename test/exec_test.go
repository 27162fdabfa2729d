package test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// TestExec: a command in the container of a task, with its status, its input
// and, where asked, a terminal.
func TestExec(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	c.start("run", "--name", "web", "--env", "COLOR=blue", "--", "sleep", "100000")
	eventually(t, "the task", func() bool { return c.task("web")["state"] == "TASK_RUNNING" })
	id, _ := c.task("web")["id"].(string)
	if r := c.mezzo("exec", id, "--", "sh", "-c", "echo $COLOR; echo problem >&2; exit 7"); r.code != 7 || r.stdout != "blue\n" || r.stderr != "problem\n" {
		t.Errorf("%+v", r)
	}
	if r := c.mezzo("exec", id, "--", "sh", "-c", "kill -9 $$"); r.code != 128+9 {
		t.Errorf("a command that is killed: %+v", r)
	}
	if r := c.mezzo("exec", id, "--", "/no/such/program"); r.code != 1 || !strings.Contains(r.stderr, "/no/such/program") {
		t.Errorf("a command that is not there: %+v", r)
	}
	if r := c.mezzo("exec", "nobody", "--", "true"); r.code != 1 || !strings.Contains(r.stderr, `no task "nobody"`) {
		t.Errorf("a task that is not there: %+v", r)
	}
	if r := c.mezzo("exec", id); r.code != 2 {
		t.Errorf("no command: %+v", r)
	}

	// Standard input, larger than any buffer on the way.
	cmd := exec.Command(filepath.Join(bin, "mezzo"), "exec", "-i", id, "--", "cat")
	cmd.Env = append(os.Environ(), "MEZZO_ADDRESS="+c.fields["rpc"])
	input := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.Output(); err != nil || !bytes.Equal(out, input) {
		t.Errorf("cat gave back %d of %d bytes: %v", len(out), len(input), err)
	}

	// A terminal: its size is the caller's, and a change of it is passed on.
	cmd = exec.Command(filepath.Join(bin, "mezzo"), "exec", "-it", id, "--", "sh", "-c",
		"trap 'echo now $(stty size)' WINCH; echo first $(stty size); for i in 1 2 3 4; do read line || continue; [ $line = end ] && exit 5; echo got $line; done")
	cmd.Env = append(os.Environ(), "MEZZO_ADDRESS="+c.fields["rpc"])
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	expect := watch(t, terminal)
	expect("first 33 77")
	if _, err := io.WriteString(terminal, "hello\r"); err != nil {
		t.Fatal(err)
	}
	expect("got hello")
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 44, Cols: 88}); err != nil {
		t.Fatal(err)
	}
	expect("now 44 88")
	if _, err := io.WriteString(terminal, "end\r"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("the terminal session ended with %v", err)
	}
}

// watch reads a terminal, and gives what waits for a text on it.
func watch(t *testing.T, terminal io.Reader) (expect func(text string)) {
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			select {
			case seen <- string(buffer[:n]):
			default: // nobody waits for anything any more
			}
			if err != nil {
				return
			}
		}
	}()
	all := ""
	return func(text string) {
		t.Helper()
		late := time.After(patience)
		for !strings.Contains(all, text) {
			select {
			case more, open := <-seen:
				if all += more; !open {
					t.Fatalf("the terminal showed %q, and never %q", all, text)
				}
			case <-late:
				t.Fatalf("the terminal shows %q, and not %q", all, text)
			}
		}
	}
}

// TestAttach: what a task writes from now on; and with a terminal of its own,
// what is typed is the task's input.
func TestAttach(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := newRunner(t, c.fields["rpc"])
	console := shellTask("console", "while read line; do echo got $line; [ $line = end ] && exit 5; done")
	console.Container = &mezzov1.ContainerInfo{
		Type: mezzov1.ContainerInfo_MESOS.Enum(), TtyInfo: &mezzov1.TTYInfo{},
	}
	r.launch(console, shellTask("writer", "while [ ! -e stop ]; do echo line; sleep 0.05; done; exit 3"))
	for _, id := range []string{"console", "writer"} {
		r.until(id, "running", func(s *mezzov1.TaskStatus) bool { return s.GetState() == mezzov1.TaskState_TASK_RUNNING })
	}
	attach := func(task string) (*os.File, *exec.Cmd) {
		cmd := exec.Command(filepath.Join(bin, "mezzo"), "attach", task)
		cmd.Env = append(os.Environ(), "MEZZO_ADDRESS="+c.fields["rpc"])
		terminal, err := pty.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { terminal.Close() })
		return terminal, cmd
	}
	first, detached := attach("console")
	expect := watch(t, first)
	second, ended := attach("console")
	expectToo := watch(t, second)
	if _, err := io.WriteString(first, "hello\r"); err != nil {
		t.Fatal(err)
	}
	expect("got hello")
	if _, err := io.WriteString(second, "hey\r"); err != nil {
		t.Fatal(err)
	}
	expectToo("got hey")
	expect("got hey")
	if _, err := io.WriteString(first, "\x10\x11"); err != nil {
		t.Fatal(err)
	}
	if err := detached.Wait(); err != nil {
		t.Errorf("Ctrl-P Ctrl-Q: %v", err)
	}
	if s := r.last("console"); s.GetState() != mezzov1.TaskState_TASK_RUNNING {
		t.Errorf("a task that was left alone: %v", s)
	}
	if _, err := io.WriteString(second, "end\r"); err != nil {
		t.Fatal(err)
	}
	if err := ended.Wait(); err == nil || ended.ProcessState.ExitCode() != 5 {
		t.Errorf("a task that ends with status 5: %v", err)
	}

	writer := c.start("attach", "writer")
	eventually(t, "its lines", func() bool { return strings.Contains(writer.stdout.String(), "line\nline\n") })
	if got := c.mezzo("exec", "writer", "--", "touch", "stop"); got.code != 0 {
		t.Errorf("%+v", got)
	}
	if got := writer.wait(); got.code != 3 {
		t.Errorf("%+v", got)
	}
	if got := c.mezzo("attach", "writer"); got.code != 1 || !strings.Contains(got.stderr, "does not run") {
		t.Errorf("a task that has ended: %+v", got)
	}
}
