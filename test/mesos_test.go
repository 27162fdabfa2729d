package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// mesosScheduler is a scheduler as Mesos frameworks are: plain HTTP and JSON.
type mesosScheduler struct {
	t         *testing.T
	url       string
	stream    string // Mesos-Stream-Id
	framework string
	events    chan map[string]any // closed when the subscription has ended
	cancel    context.CancelFunc
}

// subscribeMesos subscribes a framework without a failover timeout; with an id
// it goes on as that one.
func subscribeMesos(t *testing.T, address, id string) *mesosScheduler {
	t.Helper()
	s := &mesosScheduler{t: t, url: "http://" + address + "/api/v1/scheduler", framework: id, events: make(chan map[string]any, 1000)}
	info := map[string]any{"user": "root", "name": "sleeper", "roles": []string{"*"}, "capabilities": []any{map[string]any{"type": "MULTI_ROLE"}}}
	call := map[string]any{"type": "SUBSCRIBE", "subscribe": map[string]any{"framework_info": info}}
	if id != "" {
		info["id"] = map[string]any{"value": id}
		call["framework_id"] = info["id"]
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	t.Cleanup(cancel)
	answer := s.post(ctx, call)
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		t.Fatalf("SUBSCRIBE: %s: %s", answer.Status, text)
	}
	s.stream = answer.Header.Get("Mesos-Stream-Id")
	go func() {
		defer answer.Body.Close()
		defer close(s.events)
		records := recordio.NewReader(answer.Body, recordio.DefaultLimit)
		for {
			record, err := records.Next()
			if err != nil {
				return
			}
			var event map[string]any
			if err := json.Unmarshal(record, &event); err != nil {
				t.Errorf("an event is no JSON: %s", record)
				return
			}
			s.events <- event
		}
	}()
	first := s.await("SUBSCRIBED", nil)
	s.framework = first["subscribed"].(map[string]any)["framework_id"].(map[string]any)["value"].(string)
	return s
}

func (s *mesosScheduler) post(ctx context.Context, call map[string]any) *http.Response {
	s.t.Helper()
	body, err := json.Marshal(call)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	if s.stream != "" {
		r.Header.Set("Mesos-Stream-Id", s.stream)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer
}

// call makes a call, which must be accepted.
func (s *mesosScheduler) call(kind string, what any) {
	s.t.Helper()
	call := map[string]any{"type": kind, "framework_id": map[string]any{"value": s.framework}}
	if what != nil {
		call[strings.ToLower(kind)] = what
	}
	answer := s.post(context.Background(), call)
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		text, _ := io.ReadAll(answer.Body)
		s.t.Fatalf("%s: %s: %s", kind, answer.Status, text)
	}
}

// await takes events until one of a type that matches.
func (s *mesosScheduler) await(kind string, matches func(map[string]any) bool) map[string]any {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		select {
		case e, open := <-s.events:
			switch {
			case !open:
				s.t.Fatalf("the subscription ended before %s", kind)
			case e["type"] == kind && (matches == nil || matches(e)):
				return e
			}
		case <-ctx.Done():
			s.t.Fatalf("waited in vain for %s", kind)
		}
	}
}

// update awaits an update of a task and acknowledges it.
func (s *mesosScheduler) update(task, state string) (status map[string]any) {
	s.t.Helper()
	e := s.await("UPDATE", func(e map[string]any) bool {
		status := e["update"].(map[string]any)["status"].(map[string]any)
		return status["task_id"].(map[string]any)["value"] == task && status["state"] == state
	})
	return s.acknowledge(e)
}

func (s *mesosScheduler) acknowledge(update map[string]any) (status map[string]any) {
	s.t.Helper()
	status = update["update"].(map[string]any)["status"].(map[string]any)
	if status["uuid"] != nil {
		s.call("ACKNOWLEDGE", map[string]any{"agent_id": status["agent_id"], "task_id": status["task_id"], "uuid": status["uuid"]})
	}
	return status
}

// finish has the executor of a task finish it, whose message may be lost while
// the executor is on its way back, and returns the last status.
func (s *mesosScheduler) finish(agent any) (last map[string]any) {
	s.t.Helper()
	eventually(s.t, "the task has ended", func() bool {
		s.call("MESSAGE", map[string]any{"agent_id": agent, "executor_id": map[string]any{"value": "plain"}, "data": []byte("finish")})
		for {
			select {
			case e := <-s.events:
				if e["type"] != "UPDATE" {
					continue
				}
				if last = s.acknowledge(e); last["state"] != "TASK_RUNNING" {
					return true
				}
			default:
				return false
			}
		}
	})
	return last
}

// launch runs a command on the first offer, or, with an executor's command, a
// task of that executor.
func (s *mesosScheduler) launch(task, command, executor string) (agent any) {
	s.t.Helper()
	offer := s.await("OFFERS", nil)["offers"].(map[string]any)["offers"].([]any)[0].(map[string]any)
	scalar := func(name string, value float64) any {
		return map[string]any{"name": name, "type": "SCALAR", "scalar": map[string]any{"value": value}}
	}
	info := map[string]any{
		"name": task, "task_id": map[string]any{"value": task}, "agent_id": offer["agent_id"],
		"resources": []any{scalar("cpus", 0.1), scalar("mem", 32)},
	}
	if executor != "" {
		info["executor"] = map[string]any{
			"executor_id": map[string]any{"value": "plain"}, "command": map[string]any{"value": executor},
			"resources": []any{scalar("cpus", 0.1), scalar("mem", 32)},
		}
	} else {
		info["command"] = map[string]any{"value": command}
	}
	s.call("ACCEPT", map[string]any{
		"offer_ids":  []any{offer["id"]},
		"operations": []any{map[string]any{"type": "LAUNCH", "launch": map[string]any{"task_infos": []any{info}}}},
	})
	return offer["agent_id"]
}

func httpGet(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// mesosPlugin is the adapter at "master", or at an agent.
func (c *cluster) mesosPlugin(atMaster bool) map[string]any {
	c.t.Helper()
	for _, p := range c.list("plugins") {
		if p["id"] == "framework/mesos" && (p["host"] == "master") == atMaster && p["state"] == "healthy" {
			return p
		}
	}
	return nil
}

// killMesosAdapter kills an adapter and waits until it is back.
func (c *cluster) killMesosAdapter(atMaster bool) {
	c.t.Helper()
	var before map[string]any
	eventually(c.t, fmt.Sprintf("an adapter (at the master: %t)", atMaster), func() bool {
		before = c.mesosPlugin(atMaster)
		return before != nil
	})
	pid := int(before["pid"].(float64))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
	keepFree(c.t, c.fields[map[bool]string{true: "mesos", false: "mesos_agent"}[atMaster]])
	eventually(c.t, "the adapter is back at its place", func() bool {
		now := c.mesosPlugin(atMaster)
		return now != nil && int(now["pid"].(float64)) != pid && fmt.Sprint(now["endpoints"]) == fmt.Sprint(before["endpoints"])
	})
}

// TestDevServesMesos is that a development cluster speaks to Mesos frameworks,
// and that killing its adapters costs none of them anything.
func TestDevServesMesos(t *testing.T) {
	t.Parallel()
	c := startDev(t, "--agents", "2")
	for _, name := range []string{"mesos", "mesos_agent", "mesos_agent2"} {
		if code, text := httpGet(t, "http://"+c.fields[name]+"/version"); code != http.StatusOK || !strings.Contains(text, `"version":"1.`) {
			t.Errorf("%s=%s: /version answers %d %s", name, c.fields[name], code, text)
		}
	}
	if r := c.mezzo("status"); !strings.Contains(r.stdout, "mesos="+c.fields["mesos"]) {
		t.Errorf("the status does not tell where the adapter is:\n%s", r.stdout)
	}
	told := fmt.Sprint(c.list("agents"))
	for _, name := range []string{"mesos_agent", "mesos_agent2"} {
		if !strings.Contains(told, c.fields[name]) {
			t.Errorf("the master does not know of the agent's adapter at %s: %s", c.fields[name], told)
		}
	}
	s := subscribeMesos(t, c.fields["mesos"], "")
	s.launch("sleep", "sleep 1000", "")
	s.update("sleep", "TASK_RUNNING")

	c.killMesosAdapter(true)
	c.killMesosAdapter(false)
	for open := true; open; {
		_, open = <-s.events
	}
	again := subscribeMesos(t, c.fields["mesos"], s.framework)
	again.call("RECONCILE", map[string]any{"tasks": []any{}})
	again.update("sleep", "TASK_RUNNING")
	if task := c.task("sleep"); task["state"] != "TASK_RUNNING" {
		t.Errorf("the task is %v, want it to run on", task)
	}

	// A scheduler that hangs up, and has no failover timeout, is gone at once.
	again.cancel()
	eventually(t, "the task has ended with its framework", func() bool { return c.task("sleep")["state"] == "TASK_KILLED" })
}

// TestMesosExecutor runs a task of an executor that speaks HTTP, and kills the
// adapter that it speaks to in the middle: the executor, and its task, go on.
func TestMesosExecutor(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	s := subscribeMesos(t, c.fields["mesos"], "")
	agent := s.launch("t1", "", filepath.Join(bin, "mesos-executor"))
	first := s.update("t1", "TASK_RUNNING")
	c.killMesosAdapter(false)

	if last := s.finish(agent); last["state"] != "TASK_FINISHED" || first["message"] != last["message"] {
		t.Errorf("the task ran in the executor of %v, and ended as %v in that of %v", first["message"], last["state"], last["message"])
	}
}

// TestMesosExecutorOutlivesAgent kills a whole agent, its adapter with it, under
// an executor that speaks HTTP. The next agent listens where that one did, so
// that the executor finds it.
func TestMesosExecutorOutlivesAgent(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	file := writeFile(t, filepath.Join(dir, "mesos.hcl"), "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n")
	common := []string{"--config", file, "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}
	m := serve(t, nil, append([]string{"master", "--data-dir", filepath.Join(dir, "m")}, common...)...)
	args := append([]string{
		"agent", "--data-dir", filepath.Join(dir, "a"), "--master", m.fields["rpc"], "--resources", smallAgent, "--end-tasks",
	}, common...)
	before := serve(t, nil, args...)
	s := subscribeMesos(t, m.fields["mesos"], "")
	agent := s.launch("t1", "", filepath.Join(bin, "mesos-executor"))
	first := s.update("t1", "TASK_RUNNING")

	before.stop(syscall.SIGKILL)
	keepFree(t, before.fields["mesos_agent"])
	after := serve(t, nil, args...)
	if before.fields["mesos_agent"] != after.fields["mesos_agent"] {
		t.Errorf("the agent's adapter was at %s, and is at %s", before.fields["mesos_agent"], after.fields["mesos_agent"])
	}
	if last := s.finish(agent); last["state"] != "TASK_FINISHED" || first["message"] != last["message"] {
		t.Errorf("the task ran in the executor of %v, and ended as %v in that of %v", first["message"], last["state"], last["message"])
	}
}
