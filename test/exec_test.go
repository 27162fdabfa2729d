package test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
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
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		buffer := make([]byte, 4096)
		for {
			n, err := terminal.Read(buffer)
			seen <- string(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	all := ""
	expect := func(text string) {
		t.Helper()
		for more := range seen {
			if all += more; strings.Contains(all, text) {
				return
			}
		}
		t.Fatalf("the terminal showed %q, and never %q", all, text)
	}
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
	for range seen {
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("the terminal session ended with %v", err)
	}
}
