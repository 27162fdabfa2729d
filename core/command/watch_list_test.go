package command

import (
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Elsewhere than on a terminal, what is there comes first, then a line for each
// change, the end of a task too; not what is not meant.
func TestWatchTasks(t *testing.T) {
	m := newMaster(t)
	m.frameworks = []*operatorv1.Framework{{Id: "m-0001", Name: "spark"}, {Id: "m-0002", Name: "other"}}
	c := start(t, "tasks", "--watch", "--framework", "spark", "--address", m.address)
	w := m.watched(t)
	other, ended := webTask(mezzov1.TaskState_TASK_RUNNING, ""), webTask(mezzov1.TaskState_TASK_FINISHED, "")
	other.Id, other.FrameworkId, ended.Id = "other", "m-0002", "ended"
	w.tell(t, taskEvent(webTask(mezzov1.TaskState_TASK_STAGING, "")), taskEvent(other), taskEvent(ended), snapshotEnd())
	c.out.await(t, "web.1  web   STAGING")
	w.tell(t, taskEvent(webTask(mezzov1.TaskState_TASK_RUNNING, "")), taskEvent(webTask(mezzov1.TaskState_TASK_RUNNING, "")))
	w.end <- status.Error(codes.Unavailable, "the master does not lead any more")
	w = m.watched(t)
	w.tell(t, taskEvent(webTask(mezzov1.TaskState_TASK_FAILED, "exited")), taskEvent(other), snapshotEnd())
	c.out.await(t, "FAILED")
	w.tell(t, &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_TaskRemoved{TaskRemoved: &operatorv1.TaskKey{FrameworkId: "m-0001", TaskId: "web.1"}}},
		taskEvent(func() *operatorv1.Task { x := webTask(mezzov1.TaskState_TASK_STAGING, ""); x.Id = "last"; return x }()))
	c.out.await(t, "last")
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(c.out.String()), "\n") {
		fields := strings.Fields(line)
		got = append(got, fields[0]+" "+fields[2])
	}
	if want := "ID STATE, web.1 STAGING, web.1 RUNNING, web.1 FAILED, last STAGING"; strings.Join(got, ", ") != want {
		t.Errorf("the lines are %q, want %q:\n%s", strings.Join(got, ", "), want, c.out)
	}
}

// What a watch does not tell whole is asked for again when something changes.
func TestWatchAsksAgain(t *testing.T) {
	m := newMaster(t)
	ads := &operatorv1.Role{Name: "ads", Weight: 1, Reserved: quantities(map[string]float64{"cpus": 1})}
	set := func(roles ...*operatorv1.Role) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.roles = roles
	}
	set(ads)
	c := start(t, "roles", "-w", "--json", "--address", m.address)
	w := m.watched(t)
	w.tell(t, snapshotEnd())
	c.out.await(t, `"added"`)
	heavier := proto.CloneOf(ads)
	heavier.Weight = 2
	set(heavier)
	w.tell(t, &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_Role{Role: heavier}})
	c.out.await(t, `"changed"`)
	set()
	w.tell(t, &operatorv1.WatchEvent{Event: &operatorv1.WatchEvent_RoleRemoved{RoleRemoved: "ads"}})
	c.out.await(t, `"removed"`)
	lines := strings.Split(strings.TrimSpace(c.out.String()), "\n")
	var line struct {
		ID, Change string
		Object     struct {
			Weight   float64
			Reserved map[string]float64
		}
	}
	if err := json.Unmarshal([]byte(lines[1]), &line); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 3 || line.ID != "ads" || line.Change != "changed" || line.Object.Weight != 2 || line.Object.Reserved["cpus"] != 1 {
		t.Errorf("the lines are:\n%s", c.out)
	}
}

// terminals are the two ends of a pseudo terminal, and what was written to the
// inner one.
func terminals(t *testing.T, width, height uint16) (outer, inner *os.File, seen *buffer) {
	t.Helper()
	outer, inner, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(outer, &pty.Winsize{Rows: height, Cols: width}); err != nil {
		t.Fatal(err)
	}
	seen = &buffer{}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(seen, outer) // until both ends are closed
	}()
	t.Cleanup(func() {
		inner.Close()
		<-drained
		outer.Close()
	})
	return outer, inner, seen
}

// On a terminal it is drawn again, in its width and height, and at the end the
// terminal is as it was, with the last picture.
func TestWatchOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	m := newMaster(t)
	_, inner, seen := terminals(t, 40, 4)
	c := startOn(t, strings.NewReader(""), inner, "tasks", "-w", "--address", m.address)
	w := m.watched(t)
	for _, id := range []string{"a", "b", "c", "d"} {
		task := webTask(mezzov1.TaskState_TASK_RUNNING, "")
		task.Id = id
		w.tell(t, taskEvent(task))
	}
	w.tell(t, snapshotEnd())
	seen.await(t, "\x1b[?1049h")
	seen.await(t, green+"RUNNING"+plainC)
	seen.await(t, "… 3 more")
	w.tell(t, taskEvent(func() *operatorv1.Task { x := webTask(mezzov1.TaskState_TASK_FAILED, ""); x.Id = "a"; return x }()))
	seen.await(t, "… 2 more")
	c.cancel()
	if code := <-c.code; code != 0 {
		t.Errorf("it ends with %d: %s", code, c.err)
	}
	seen.await(t, leaveScreen)
	_, after, _ := strings.Cut(seen.String(), leaveScreen)
	seen.await(t, "d   web") // the last picture is whole
	if strings.Contains(after, "FAILED") {
		t.Errorf("what has ended is still there: %q", after)
	}
	drawn := strings.NewReplacer(home, "\n", "\r", "").Replace(strings.Split(seen.String(), leaveScreen)[0])
	for _, line := range strings.Split(regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`).ReplaceAllString(drawn, ""), "\n") {
		if n := len([]rune(line)); n > 40 {
			t.Errorf("a line of %d: %q", n, line)
		}
	}
}
