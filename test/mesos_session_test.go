package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// mesosAgent speaks to an agent as the command line of Mesos does.
type mesosAgent struct {
	t   *testing.T
	url string
}

func (a *mesosAgent) request(ctx context.Context, body io.Reader, header ...string) *http.Response {
	a.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, body)
	if err != nil {
		a.t.Fatal(err)
	}
	r.Header.Set("Connection", "close")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		a.t.Error(err)
		return &http.Response{Body: http.NoBody}
	}
	return answer
}

func compact(v any) string { b, _ := json.Marshal(v); return string(b) }

// call makes a call about a container and returns the answer's code and body.
func (a *mesosAgent) call(kind string, id object, more object) (int, string) {
	a.t.Helper()
	what := object{"container_id": id}
	for k, v := range more {
		what[k] = v
	}
	answer := a.request(context.Background(), strings.NewReader(compact(object{"type": kind, strings.ToLower(kind): what})), "Content-Type", "application/json", "Accept", "application/json")
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body)
}

// exitStatus waits for a container and returns its status.
func (a *mesosAgent) exitStatus(id object) int {
	a.t.Helper()
	code, body := a.call("WAIT_NESTED_CONTAINER", id, nil)
	var got struct {
		Wait struct {
			Status *int `json:"exit_status"`
		} `json:"wait_nested_container"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Wait.Status == nil {
		a.t.Errorf("WAIT_NESTED_CONTAINER of %v: %d %s", id, code, body)
		return -1
	}
	return *got.Wait.Status
}

// mesosStream is an open stream of output.
type mesosStream struct {
	t      *testing.T
	seen   *syncBuffer
	ended  chan error
	detach context.CancelFunc
}

func (a *mesosAgent) stream(kind string, what object) *mesosStream {
	a.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	answer := a.request(ctx, strings.NewReader(compact(object{"type": kind, strings.ToLower(kind): what})),
		"Content-Type", "application/json", "Accept", "application/recordio", "Message-Accept", "application/json")
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(answer.Body)
		a.t.Fatalf("%s %v: %s %s", kind, what, answer.Status, body)
	}
	s := &mesosStream{t: a.t, seen: &syncBuffer{}, ended: make(chan error, 1), detach: cancel}
	a.t.Cleanup(cancel)
	go func() {
		defer answer.Body.Close()
		records := recordio.NewReader(answer.Body, recordio.DefaultLimit)
		for {
			record, err := records.Next()
			if err != nil {
				s.ended <- err
				return
			}
			var io struct{ Data struct{ Data []byte } }
			if err := json.Unmarshal(record, &io); err != nil {
				s.ended <- err
				return
			}
			_, _ = s.seen.Write(io.Data.Data)
		}
	}()
	return s
}

// session starts a command in a container; with tty, on a terminal of 20 rows.
func (a *mesosAgent) session(id object, tty bool, script string) *mesosStream {
	a.t.Helper()
	what := object{"container_id": id, "command": object{"value": "sh", "arguments": []any{"sh", "-c", script}, "shell": false}}
	if tty {
		what["container"] = object{"type": "MESOS", "tty_info": object{"window_size": object{"rows": 20, "columns": 70}}}
	}
	return a.stream("LAUNCH_NESTED_CONTAINER_SESSION", what)
}

func (s *mesosStream) shows(text string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("the output to have %q", text), func() bool { return strings.Contains(s.seen.String(), text) })
}

func (s *mesosStream) end() error {
	s.t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		s.t.Fatalf("the output does not end; so far %q", s.seen.String())
		return nil
	}
}

// mesosInput is what is typed into a container.
type mesosInput struct {
	w    *io.PipeWriter
	code chan int
}

func (a *mesosAgent) input(id object) *mesosInput {
	pr, pw := io.Pipe()
	in := &mesosInput{w: pw, code: make(chan int, 1)}
	go func() {
		answer := a.request(context.Background(), pr, "Content-Type", "application/recordio", "Message-Content-Type", "application/json", "Accept", "application/json")
		answer.Body.Close()
		in.code <- answer.StatusCode
		pr.Close()
	}()
	in.send(object{"type": "CONTAINER_ID", "container_id": id})
	return in
}

func (in *mesosInput) send(what object) {
	record := compact(object{"type": "ATTACH_CONTAINER_INPUT", "attach_container_input": what})
	_, _ = in.w.Write(recordio.Append(nil, []byte(record)))
}

func (in *mesosInput) write(b string) {
	in.send(object{"type": "PROCESS_IO", "process_io": object{"type": "DATA", "data": object{"type": "STDIN", "data": []byte(b)}}})
}

func (in *mesosInput) resize(rows, columns int) {
	in.send(object{"type": "PROCESS_IO", "process_io": object{"type": "CONTROL", "control": object{
		"type": "TTY_INFO", "tty_info": object{"window_size": object{"rows": rows, "columns": columns}}}}})
}

// containerID is the container of a task, as its status tells.
func (r *runner) containerID(task string) object {
	r.t.Helper()
	s := r.until(task, "running, in a container", func(s *mezzov1.TaskStatus) bool {
		return s.GetState() == mezzov1.TaskState_TASK_RUNNING && s.GetContainerStatus().GetContainerId() != nil
	})
	var of func(id *mezzov1.ContainerID) object
	of = func(id *mezzov1.ContainerID) object {
		out := object{"value": id.GetValue()}
		if id.Parent != nil {
			out["parent"] = of(id.Parent)
		}
		return out
	}
	return of(s.GetContainerStatus().GetContainerId())
}

// ownSleep sleeps about so many seconds; no other process of tests has the same
// command.
func ownSleep(seconds int) string { return fmt.Sprintf("sleep %d.%07d", seconds, os.Getpid()) }

// processesWith is how many processes have a text in their command line.
func processesWith(text string) int {
	out, _ := exec.Command("pgrep", "-fc", text).Output()
	n := 0
	_, _ = fmt.Sscan(string(out), &n)
	return n
}

// TestMesosSessions: commands in the containers of tasks over the Mesos agent
// API, in the order of calls that its command line has.
func TestMesosSessions(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := newRunner(t, c.fields["rpc"])
	web := shellTask("web", "sleep 100000")
	console := shellTask("console", "while read line; do echo got $line; [ $line = end ] && exit 5; done")
	console.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), TtyInfo: &mezzov1.TTYInfo{}}
	r.launch(web, console)
	a := &mesosAgent{t, "http://" + c.fields["mesos_agent"] + "/api/v1"}
	parent := r.containerID("web")
	id := func(name string) object { return object{"value": name, "parent": parent} }

	// Without a terminal: output, both of it, and the status.
	s := a.session(id("plain"), false, "pwd; echo problem >&2; exit 7")
	if err := s.end(); !errors.Is(err, io.EOF) || !strings.Contains(s.seen.String(), "problem\n") || !strings.Contains(s.seen.String(), "/frameworks/") && !strings.Contains(s.seen.String(), "/mnt/mesos/sandbox") {
		t.Errorf("%q %v", s.seen, err)
	}
	if got := a.exitStatus(id("plain")); got != 7<<8 {
		t.Errorf("its status is %d", got)
	}
	if code, body := a.call("REMOVE_NESTED_CONTAINER", id("plain"), nil); code != 200 || body != "" {
		t.Errorf("%d %s", code, body)
	}

	// Input, larger than any buffer on the way, through a command that reads it all.
	s = a.session(id("cat"), false, "wc -c")
	in := a.input(id("cat"))
	for range 64 {
		in.write(strings.Repeat("0123456789abcdef", 1<<10))
	}
	in.write("")
	if err := s.end(); !errors.Is(err, io.EOF) || strings.TrimSpace(s.seen.String()) != fmt.Sprint(1<<20) {
		t.Errorf("wc: %q %v", s.seen, err)
	}
	if code := <-in.code; code != 200 {
		t.Errorf("the input is answered with %d", code)
	}

	// A terminal: its size, a change of that, the trial connection of the input.
	s = a.session(id("tty"), true, "trap 'echo now $(stty size)' WINCH; echo first $(stty size); while :; do read line || continue; echo got $line; [ $line = end ] && exit 5; done")
	s.shows("first 20 70")
	trial := a.input(id("tty"))
	trial.w.Close()
	if code := <-trial.code; code != 200 {
		t.Errorf("the trial of the input is answered with %d", code)
	}
	in = a.input(id("tty"))
	in.write("hello\r")
	s.shows("got hello")
	in.resize(33, 77)
	s.shows("now 33 77")
	in.write("end\r")
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Errorf("the terminal ends with %v", err)
	}
	if got := a.exitStatus(id("tty")); got != 5<<8 {
		t.Errorf("its status is %d", got)
	}

	// Killed, by a signal of the client's choice; and ended with its connection.
	s = a.session(id("killed"), false, "echo up; exec sleep 100001")
	s.shows("up")
	if code, body := a.call("KILL_NESTED_CONTAINER", id("killed"), object{"signal": 15}); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if got := a.exitStatus(id("killed")); got != 15 {
		t.Errorf("its status is %d", got)
	}
	s = a.session(id("left"), false, "echo up; exec "+ownSleep(100002))
	s.shows("up")
	s.detach()
	if got := a.exitStatus(id("left")); got != 9 {
		t.Errorf("its status is %d", got)
	}
	eventually(t, "the command to be gone", func() bool { return processesWith(ownSleep(100002)) == 0 })

	// The task's own terminal.
	own := r.containerID("console")
	s = a.stream("ATTACH_CONTAINER_OUTPUT", object{"container_id": own})
	in = a.input(own)
	in.write("hello\r")
	s.shows("got hello")
	in.write("end\r")
	if err := s.end(); !errors.Is(err, io.EOF) {
		t.Errorf("the task's output ends with %v", err)
	}
	if code := <-in.code; code != 200 {
		t.Errorf("the task's input is answered with %d", code)
	}
	r.ends("console", mezzov1.TaskState_TASK_FAILED)
	eventually(t, "the ended task's container to be unknown", func() bool {
		code, _ := a.call("ATTACH_CONTAINER_OUTPUT", own, nil) // 400 while it is cleaned up
		return code == 404
	})

	// The adapter's end is the sessions', and nobody else's.
	s = a.session(id("last"), false, "echo up; exec "+ownSleep(100003))
	s.shows("up")
	c.killMesosAdapter(false)
	if err := s.end(); errors.Is(err, io.EOF) {
		t.Error("a session that is cut off ends as if its command had")
	}
	eventually(t, "the command to be gone", func() bool { return processesWith(ownSleep(100003)) == 0 })
	if s := r.last("web"); s.GetState() != mezzov1.TaskState_TASK_RUNNING {
		t.Errorf("the task: %v", s)
	}
	// A signal for the task itself, which ends it.
	if code, body := a.call("KILL_CONTAINER", parent, nil); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if s := r.ends("web", mezzov1.TaskState_TASK_FAILED); s.GetExitSignal() != 9 {
		t.Errorf("%v", s)
	}
}

// TestExecInGroupsAndExecutors: the container that is found is the task's own in
// a group, and the executor's for a task of an executor.
func TestExecInGroupsAndExecutors(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	r := newRunner(t, c.fields["rpc"])
	r.launchGroup(shellTask("one", "touch is-one; exec sleep 100004"), shellTask("two", "touch is-two; while :; do echo from two; sleep 0.05; done"))
	first, second := r.containerID("one"), r.containerID("two")
	if first["parent"] == nil || first["value"] == second["value"] {
		t.Fatalf("the containers of the group are %v and %v", first, second)
	}
	for _, name := range []string{"one", "two"} {
		eventually(t, "what "+name+" wrote", func() bool {
			got := c.mezzo("exec", name, "--", "ls")
			return got.code == 0 && strings.Contains(got.stdout, "is-"+name) && !strings.Contains(strings.ReplaceAll(got.stdout, "is-"+name, ""), "is-")
		})
	}
	attached := c.start("attach", "two")
	eventually(t, "its lines", func() bool { return strings.Contains(attached.stdout.String(), "from two\nfrom two\n") })
	a := &mesosAgent{t, "http://" + c.fields["mesos_agent"] + "/api/v1"}
	s := a.session(object{"value": "deep", "parent": second}, false, "ls")
	if err := s.end(); !errors.Is(err, io.EOF) || !strings.Contains(s.seen.String(), "is-two") {
		t.Errorf("a session in a nested container: %q %v", s.seen, err)
	}
	if code, body := a.call("KILL_NESTED_CONTAINER", second, object{"signal": 9}); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	r.ends("one", mezzov1.TaskState_TASK_KILLED)
	if got := attached.wait(); got.code != 128+9 {
		t.Errorf("attached to one that was killed: %+v", got)
	}

	count := own(977 * time.Second)
	n := startCounting(t, c, "-tasks", "2", "-count", count.String())
	n.says("TASK_RUNNING", 2)
	pid := executorPid(t, count)
	for _, task := range []string{"count-0", "count-1"} {
		if got := c.mezzo("exec", task, "--", "touch", "in-"+task); got.code != 0 {
			t.Errorf("exec in the container of %s: %+v", task, got)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/cwd/in-%s", pid, task)); err != nil {
			t.Errorf("a command for %s did not run where its executor does: %v", task, err)
		}
	}
}
