package agentapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// E.3 as the Mesos CLI uses it: a session, a trial connection of the input, the
// input, and the status.
func TestSession(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	out := r.open("LAUNCH_NESTED_CONTAINER_SESSION", "s1", `,"command":{"value":"cat","arguments":["cat"],"shell":false},"container":{"type":"MESOS","tty_info":{"window_size":{"rows":2,"columns":3}}}`)
	if h := out.response.Header; h.Get("Content-Type") != transport.RecordIO || h.Get("Message-Content-Type") != transport.JSON || len(out.response.TransferEncoding) != 1 {
		t.Errorf("A.4: the answer has %v", h)
	}
	out.until("2x3")
	r.want(200, "")(r.typeInto(nestedID("s1")).end())
	in := r.typeInto(nestedID("s1"))
	in.send(ioRecord(`{"type":"CONTROL","control":{"type":"HEARTBEAT","heartbeat":{"interval":{"nanoseconds":30000000000}}}}`))
	in.send(stdin("hello"))
	out.until("hello")
	in.send(ioRecord(`{"type":"CONTROL","control":{"type":"TTY_INFO","tty_info":{"window_size":{"rows":40,"columns":50}}}}`))
	out.until("40x50")
	other := r.open("ATTACH_CONTAINER_OUTPUT", "s1", "")
	in.send(stdin("to both"))
	other.until("to both")
	for before := out.beats; out.beats == before; {
		if err := out.next(); err != nil {
			t.Fatal(err)
		}
	}
	in.send(stdin(""))
	for _, o := range []*output{out, other} {
		if err := o.rest(); err != io.EOF {
			t.Errorf("the output ends with %v", err)
		}
	}
	r.want(200, "")(in.result())
	r.want(200, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":0,"message":"Command exited with status 0"}}`)(r.call("WAIT_NESTED_CONTAINER", "s1", ""))
	r.want(404, "Container c1.s1 cannot be found")(r.call("KILL_NESTED_CONTAINER", "s1", ""))
	r.want(404, "Container c1.s1 cannot be found")(r.typeInto(nestedID("s1")).end())
	r.want(202, "")(r.call("LAUNCH_NESTED_CONTAINER_SESSION", "s1", `,"command":{"value":"cat"}`))
	r.want(200, "")(r.call("REMOVE_NESTED_CONTAINER", "s1", ""))
	r.want(404, "Container c1.s1 cannot be found")(r.call("WAIT_NESTED_CONTAINER", "s1", ""))
	r.await("all commands to be over", func() bool { return r.agent.live.Load() == 0 })
}

// A.4: the forms of a stream.
func TestSessionMedia(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	for i, c := range []struct{ accept, inner, media, message string }{
		{"*/*", "", transport.JSON, ""},
		{transport.JSON, "", transport.JSON, ""},
		{transport.Protobuf, "", transport.Protobuf, ""},
		{transport.RecordIO, transport.Protobuf, transport.RecordIO, transport.Protobuf},
	} {
		header := []string{"Content-Type", transport.JSON, "Accept", c.accept}
		if c.inner != "" {
			header = append(header, "Message-Accept", c.inner)
		}
		response, text := r.do("POST", "/api/v1", body("LAUNCH_NESTED_CONTAINER_SESSION", fmt.Sprint("m", i), `,"command":{"value":"exit"}`), header...)
		if h := response.Header; h.Get("Content-Type") != c.media || h.Get("Message-Content-Type") != c.message {
			t.Errorf("%v: %s %v", c, response.Status, h)
		}
		var got []string
		for records := recordio.NewReader(strings.NewReader(text), 1<<20); ; {
			record, err := records.Next()
			if err != nil {
				break
			}
			var p agentv1.ProcessIO
			if c.media == transport.JSON {
				if !strings.Contains(string(record), "HEARTBEAT") {
					got = append(got, string(record))
				}
			} else if err := proto.Unmarshal(record, &p); err != nil {
				t.Fatal(err)
			} else if p.GetData() != nil {
				got = append(got, p.GetData().GetType().String()+string(p.GetData().GetData()))
			}
		}
		want := "STDOUTout STDERRerr"
		if c.media == transport.JSON {
			want = `{"type":"DATA","data":{"type":"STDOUT","data":"b3V0"}} {"type":"DATA","data":{"type":"STDERR","data":"ZXJy"}}`
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: %q", c, got)
		}
	}
	r.want(200, `{"type":"WAIT_CONTAINER","wait_container":{"exit_status":1792,"message":"Command exited with status 7"}}`)(r.call("WAIT_CONTAINER", "m0", ""))
}

// E.3, row by row: what is refused, and what needs no session.
func TestSessionRows(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	const cat = `,"command":{"value":"cat"}`
	for _, c := range []struct {
		row, kind, id, more string
		code                int
		text                string
	}{
		{"session without a command", "LAUNCH_NESTED_CONTAINER_SESSION", "a", ``, 400, "Expecting 'command'"},
		{"session of a docker container", "LAUNCH_NESTED_CONTAINER_SESSION", "a", cat + `,"container":{"type":"DOCKER"}`, 400, "The provided ContainerInfo is not supported"},
		{"session with volumes", "LAUNCH_NESTED_CONTAINER_SESSION", "a", cat + `,"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"x"}]}`, 400, "The provided ContainerInfo is not supported"},
		{"session of a program that is not there", "LAUNCH_NESTED_CONTAINER_SESSION", "a", `,"command":{"value":"missing"}`, 400, "missing: no such file"},
		{"wait for nobody", "WAIT_NESTED_CONTAINER", "nobody", ``, 404, "Container c1.nobody cannot be found"},
		{"wait for nobody", "WAIT_CONTAINER", "nobody", ``, 404, "Container c1.nobody cannot be found"},
		{"kill nobody", "KILL_NESTED_CONTAINER", "nobody", ``, 404, "Container c1.nobody cannot be found"},
		{"kill with no signal", "KILL_CONTAINER", "nobody", `,"signal":0`, 400, "Expecting 'signal'"},
		{"remove nobody", "REMOVE_NESTED_CONTAINER", "nobody", ``, 200, ""},
		{"remove a task's", "REMOVE_CONTAINER", "n1", ``, 500, "Container c1.n1 has not terminated yet"},
		{"attach to nobody", "ATTACH_CONTAINER_OUTPUT", "nobody", ``, 404, "Container c1.nobody cannot be found"},
		{"launch with resources", "LAUNCH_CONTAINER", "b", cat + `,"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1}}]`, 400, "A nested container has no resources"},
		{"launch", "LAUNCH_CONTAINER", "b", cat + `,"container":{"type":"MESOS","tty_info":{}}`, 200, ""},
		{"launch again", "LAUNCH_CONTAINER", "b", cat, 202, ""},
		{"session of the same id", "LAUNCH_NESTED_CONTAINER_SESSION", "b", cat, 202, ""},
		{"remove it while it runs", "REMOVE_CONTAINER", "b", ``, 500, "Container c1.b has not terminated yet"},
		{"kill it", "KILL_CONTAINER", "b", `,"signal":15`, 200, ""},
		{"wait for it", "WAIT_CONTAINER", "b", ``, 200, `{"type":"WAIT_CONTAINER","wait_container":{"exit_status":15,"message":"Command terminated with signal 15 (SIGTERM)"}}`},
		{"launch without input", "LAUNCH_NESTED_CONTAINER", "d", cat, 200, ""},
		{"wait for its end", "WAIT_NESTED_CONTAINER", "d", ``, 200, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":0,`},
		{"launch what is lost", "LAUNCH_CONTAINER", "e", `,"command":{"value":"lost"}`, 200, ""},
		{"wait for what is lost", "WAIT_CONTAINER", "e", ``, 200, `{"type":"WAIT_CONTAINER","wait_container":{"state":"TASK_FAILED","message":"Command was lost: the agent ends"}}`},
		{"launch what does not read", "LAUNCH_CONTAINER", "f", `,"command":{"value":"deaf"}`, 200, ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			r.want(c.code, c.text)(r.call(c.kind, c.id, c.more))
		})
	}
	r.t = t
	post := func(text string) (*http.Response, string) {
		return r.do("POST", "/api/v1", text, "Content-Type", transport.JSON)
	}
	for _, c := range []struct {
		row, body string
		code      int
		text      string
	}{
		{"parent gone", `{"type":"LAUNCH_NESTED_CONTAINER","launch_nested_container":{"container_id":{"value":"x","parent":{"value":"gone"}},"command":{"value":"cat"}}}`, 400, "container gone does not run on this agent"},
		{"forbidden", `{"type":"LAUNCH_NESTED_CONTAINER","launch_nested_container":{"container_id":{"value":"x","parent":{"value":"forbidden"}},"command":{"value":"cat"}}}`, 403, "not yours"},
		{"in a session", `{"type":"LAUNCH_NESTED_CONTAINER","launch_nested_container":{"container_id":{"value":"x","parent":{"value":"f","parent":{"value":"c1"}}},"command":{"value":"cat"}}}`, 400, "Container c1.f is a session"},
		{"kill a task's", `{"type":"KILL_CONTAINER","kill_container":{"container_id":{"value":"c1"},"signal":2}}`, 200, ""},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			r.want(c.code, c.text)(post(c.body))
		})
	}
	r.t = t
	if got := <-r.agent.signals; got != 2 {
		t.Errorf("the task's container got signal %d", got)
	}
}

// A.4 and E.3: the first record of an input, and those after it.
func TestSessionInputRows(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	r.want(200, "")(r.call("LAUNCH_CONTAINER", "s", `,"command":{"value":"cat"},"container":{"type":"MESOS","tty_info":{}}`))
	to := containerRecord(nestedID("s"))
	for _, c := range []struct {
		row     string
		header  []string
		records []string
		code    int
		text    string
	}{
		{"no record", nil, nil, 400, "Expecting a record of ATTACH_CONTAINER_INPUT"},
		{"another call", nil, []string{`{"type":"GET_HEALTH"}`}, 415, "Streaming request is not supported for 'GET_HEALTH' call"},
		{"no type", nil, []string{`{}`}, 400, "Failed to validate agent::Call: Expecting 'type' to be present"},
		{"no container", nil, []string{`{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"CONTAINER_ID"}}`}, 400, "Failed to validate agent::Call: Expecting 'attach_container_input.container_id' to be present"},
		{"input first", nil, []string{stdin("x")}, 400, "Failed to validate agent::Call: Expecting 'attach_container_input.type' to be CONTAINER_ID"},
		{"no JSON", nil, []string{`{`}, 400, "Failed to parse body into JSON"},
		{"Accept", []string{"Accept", "text/html"}, []string{to}, 406, "Expecting 'Accept'"},
		{"Accept recordio", []string{"Accept", transport.RecordIO}, []string{to}, 406, "Streaming response is not supported"},
		{"unknown container", nil, []string{containerRecord(nestedID("nobody"))}, 404, "Container c1.nobody cannot be found"},
		{"no terminal", nil, []string{containerRecord(nestedID("n1"))}, 400, "Container c1.n1 was launched without a terminal"},
		{"nothing typed", nil, []string{to}, 200, ""},
		{"the container again", nil, []string{to, to}, 400, "Failed to validate agent::Call: Expecting 'attach_container_input.type' to be PROCESS_IO"},
		{"another call later", nil, []string{to, `{"type":"GET_HEALTH"}`}, 400, "Failed to validate agent::Call: Expecting 'type' to be ATTACH_CONTAINER_INPUT"},
		{"output as input", nil, []string{to, ioRecord(`{"type":"DATA","data":{"type":"STDOUT","data":"eA=="}}`)}, 400, "Failed to validate agent::Call: Expecting 'process_io.data.type' to be STDIN"},
		{"no process_io", nil, []string{to, `{"type":"ATTACH_CONTAINER_INPUT","attach_container_input":{"type":"PROCESS_IO"}}`}, 400, "Failed to validate agent::Call: Expecting 'attach_container_input.process_io' to be present"},
		{"no kind", nil, []string{to, ioRecord(`{}`)}, 400, "Failed to validate agent::Call: Expecting 'process_io.type'"},
		{"no size", nil, []string{to, ioRecord(`{"type":"CONTROL","control":{"type":"TTY_INFO","tty_info":{}}}`)}, 400, "Failed to validate agent::Call: Expecting 'process_io.control.tty_info.window_size' to be present"},
		{"no control", nil, []string{to, ioRecord(`{"type":"CONTROL","control":{}}`)}, 400, "Failed to validate agent::Call: Expecting 'process_io.control.type'"},
	} {
		t.Run(c.row, func(t *testing.T) {
			r.t = t
			var all []byte
			for _, record := range c.records {
				all = recordio.Append(all, []byte(record))
			}
			r.want(c.code, c.text)(r.do("POST", "/api/v1", string(all), append([]string{"Content-Type", transport.RecordIO, "Message-Content-Type", transport.JSON}, c.header...)...))
		})
	}
	r.t = t
	r.want(400, "The input cannot be read: Failed to decode length 'x'")(r.do("POST", "/api/v1", "x", "Content-Type", transport.RecordIO, "Message-Content-Type", transport.JSON))
	r.want(413, "The input has a record of 99999999 bytes")(r.do("POST", "/api/v1", "99999999\n", "Content-Type", transport.RecordIO, "Message-Content-Type", transport.JSON))
	if r.agent.live.Load() != 1 {
		t.Error("bad input ended the session")
	}
}

// A task's own container: its output, its terminal, and its end.
func TestSessionOfTask(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	in := r.typeInto(`{"value":"c1"}`)
	out := r.open("ATTACH_CONTAINER_OUTPUT", "", "")
	waited := make(chan func(), 1)
	go func() {
		response, text := r.do("POST", "/api/v1", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"c1"}}}`, "Content-Type", transport.JSON)
		waited <- func() {
			r.want(200, `{"type":"WAIT_CONTAINER","wait_container":{"exit_status":768,"message":"Command exited with status 3"}}`)(response, text)
		}
	}()
	for out.beats == 0 {
		if err := out.next(); err != nil {
			t.Fatal(err)
		}
	}
	close(r.agent.exit)
	(<-waited)()
	if err := out.rest(); err != io.EOF {
		t.Errorf("the output ends with %v", err)
	}
	r.want(200, "")(in.result())
	// One that has ended, of which only the task's status is known.
	r.want(200, `{"type":"WAIT_CONTAINER","wait_container":{"exit_status":0,"state":"TASK_FINISHED"`)(
		r.do("POST", "/api/v1", `{"type":"WAIT_CONTAINER","wait_container":{"container_id":{"value":"c0"}}}`, "Content-Type", transport.JSON))
}

// The session ends with its connection, however that ends; a WAIT is told.
func TestSessionEndsWithItsConnection(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	out := r.open("LAUNCH_NESTED_CONTAINER_SESSION", "s", `,"command":{"value":"cat"}`)
	in := r.typeInto(nestedID("s"))
	in.send(stdin("x"))
	out.until("x")
	out.cancel()
	r.want(200, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":9,"message":"Command was killed: its connection ended"}}`)(r.call("WAIT_NESTED_CONTAINER", "s", ""))
	r.want(200, "")(in.result())
	r.await("the command to be gone", func() bool { return r.agent.live.Load() == 0 })
}

// A command that reads nothing is killed, though more than fits waits for it.
func TestSessionKillDeaf(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	out := r.open("LAUNCH_NESTED_CONTAINER_SESSION", "s", `,"command":{"value":"deaf"}`)
	in := r.typeInto(nestedID("s"))
	go func() {
		for range 40 {
			in.send(stdin(strings.Repeat("x", 16<<10)))
		}
	}()
	r.want(200, "")(r.call("KILL_NESTED_CONTAINER", "s", ""))
	r.want(200, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":9,"message":"Command was killed: it was killed"}}`)(r.call("WAIT_NESTED_CONTAINER", "s", ""))
	if err := out.rest(); err != io.EOF {
		t.Errorf("the output ends with %v", err)
	}
	r.want(200, "")(in.result())
}

// A reader that reads nothing holds the command up, and little memory; after a
// time it is cut off, and the command ends. One that is only attached is cut off
// at once, and holds up nobody.
func TestSessionSlowReader(t *testing.T) {
	r := startSessions(t, transport.Limits{Write: time.Second})
	raw := func(kind, id, more string) net.Conn {
		conn, err := net.Dial("tcp", r.server.Address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		text := body(kind, id, more)
		fmt.Fprintf(conn, "POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
			t.Fatalf("%q %v", line, err)
		}
		return conn
	}
	raw("LAUNCH_NESTED_CONTAINER_SESSION", "slow", `,"command":{"value":"flood"}`)
	r.await("the command to be killed", func() bool { return r.agent.live.Load() == 0 })
	if sent := r.agent.sent.Load(); sent > 16<<20 {
		t.Errorf("%d bytes were taken from the command, for a reader that read none", sent)
	}
	r.want(200, `{"type":"WAIT_NESTED_CONTAINER","wait_nested_container":{"exit_status":9,`)(r.call("WAIT_NESTED_CONTAINER", "slow", ""))

	r = startSessions(t, transport.Limits{Write: patience}) // a machine that is busy may make the fast one slow
	fast := r.open("LAUNCH_NESTED_CONTAINER_SESSION", "fast", `,"command":{"value":"flood"}`)
	idle := raw("ATTACH_CONTAINER_OUTPUT", "fast", "")
	for n := 0; n < 24<<20; n += len(fast.text) {
		fast.text = ""
		if err := fast.next(); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	_ = idle.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(idle)
	if strings.HasSuffix(string(rest), "0\r\n\r\n") || len(rest) > 32<<20 {
		t.Errorf("one who does not keep up is told that it was all, in %d bytes, %v", len(rest), err)
	}
}

// More sessions than may run are refused; the ends of old ones are forgotten.
func TestSessionBounds(t *testing.T) {
	r := startSessions(t, transport.Limits{})
	launch := func(id string, command string) (*http.Response, string) {
		return r.call("LAUNCH_CONTAINER", id, `,"command":{"value":"`+command+`"}`)
	}
	for i := range 256 {
		r.want(200, "")(launch(fmt.Sprint("s", i), "deaf"))
	}
	r.want(503, "As many sessions run on this agent as may")(launch("more", "deaf"))
	r.want(200, "")(r.call("KILL_CONTAINER", "s0", ""))
	r.want(200, `{"type":"WAIT_CONTAINER"`)(r.call("WAIT_CONTAINER", "s0", ""))
	r.await("its place to be free", func() bool {
		response, _ := launch("more", "exit")
		return response.StatusCode == 200
	})
	for i := range 257 {
		id := fmt.Sprint("e", i)
		r.await("a place", func() bool { response, _ := launch(id, "exit"); return response.StatusCode != 503 })
		r.want(200, `{"type":"WAIT_CONTAINER"`)(r.call("WAIT_CONTAINER", id, ""))
	}
	r.want(404, "Container c1.more cannot be found")(r.call("WAIT_CONTAINER", "more", ""))
	r.want(200, `{"type":"WAIT_CONTAINER"`)(r.call("WAIT_CONTAINER", "e256", ""))
}
