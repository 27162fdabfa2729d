package doctest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mark is a file that the page's machine has, and no other.
const mark = "/etc/mark-of-doctest"

func start(t *testing.T) *Session {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	s, err := Start(Options{Dir: t.TempDir(), Env: []string{"PATH=" + os.Getenv("PATH"), "GREETING=hello"}, Setup: "touch " + mark + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSession is a page that uses all that there is, with what may go wrong at
// the end.
func TestSession(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, c := range []struct {
		block     Block
		complaint string
	}{
		{block: Block{Text: "mkdir a; cd a; word=kept\necho $GREETING\n", Shown: true, Output: "hello\n"}},
		{block: Block{Text: "basename $PWD; echo $word", Shown: true, Output: "a\nkept\n"}},
		{block: Block{Text: "ls " + mark}},
		{block: Block{Text: "true\nfalse\necho after\n"}, complaint: "exit status 1"},
		{block: Block{Text: "(exit 7)"}, complaint: "exit status 7"},
		{block: Block{Text: "false || echo so"}},
		{block: Block{Text: "echo one >&2", Shown: true, Output: "two\n"}, complaint: "something else"},
		{block: Block{Text: "( sleep 0.3; echo x >later ) &"}},
		{block: Block{Text: "cat later", Until: true, Shown: true, Output: "x\n"}},
		{block: Block{Text: "trap 'echo bye >end; exit 0' INT; echo begun; echo more\nwhile :; do sleep 0.1; done", Terminal: "2", Shown: true, Output: "begun\n"}},
		{block: Block{Terminal: "2"}},
		{block: Block{Text: "cat end", Shown: true, Output: "bye\n"}},
		{block: Block{Text: "echo over", Terminal: "3", Shown: true, Output: "not over\n"}, complaint: "does not stay"},
		{block: Block{Text: "pgrep -f doctest || echo alone", Shown: true, Output: "alone\n"}},
		{block: Block{Text: "ip -o link | grep -c UP", Shown: true, Output: "1\n"}},
	} {
		output, err := s.Do(context.Background(), c.block)
		switch {
		case c.complaint == "" && err != nil:
			t.Errorf("%q: %v\n%s", c.block.Text, err, output)
		case c.complaint != "" && (err == nil || !strings.Contains(err.Error(), c.complaint)):
			t.Errorf("%q: %v, want %q", c.block.Text, err, c.complaint)
		}
	}
	if err := s.End(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Errorf("%s is seen outside", mark)
	}
}

// TestNothingStays is that what a page has left running goes with it.
func TestNothingStays(t *testing.T) {
	t.Parallel()
	s := start(t)
	if output, err := s.Do(context.Background(), Block{Text: "(trap '' INT TERM HUP; sleep 1000) &\nsetsid sleep 1000 &\n"}); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if output, err := s.Do(context.Background(), Block{Text: "echo begun; sleep 1000", Terminal: "1", Shown: true, Output: "begun\n"}); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	pid, err := s.Pid()
	if err != nil {
		t.Fatal(err)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil || len(inside(space)) < 4 {
		t.Errorf("the page's processes: %v, %v", inside(space), err)
	}
	if err := s.End(); err != nil {
		t.Error(err)
	}
	if left := inside(space); len(left) > 0 {
		t.Errorf("these are still there: %v", left)
	}
}

// inside lists the processes of a pid namespace.
func inside(space string) (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, path := range all {
		if at, err := os.Readlink(path); err == nil && at == space {
			pids = append(pids, path)
		}
	}
	return pids
}

// TestSetupFails is that a machine that cannot be made says why.
func TestSetupFails(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	_, err := Start(Options{Dir: t.TempDir(), Env: os.Environ(), Setup: "echo no such luck >&2; exit 3\n"})
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("got %v", err)
	}
}
