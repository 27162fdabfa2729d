package test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A tool that reads the cluster as mesos-dns and mesos-cat do: the leader's state,
// where the tasks are and under which addresses, then the agent's own state and
// the output of a task.
func TestToolsReadTheState(t *testing.T) {
	t.Parallel()
	c := startDev(t, "--mesos", "127.0.0.1:0", "--mesos-agent", "127.0.0.1:0")
	if r := c.mezzo("run", "--name", "web", "--", "echo", "hello"); r.code != 0 {
		t.Fatalf("run: %+v", r)
	}
	type task struct {
		ID, Name, State string
		SlaveID         string `json:"slave_id"`
		Resources       map[string]any
		Statuses        []struct {
			State           string
			Timestamp       float64
			ContainerStatus struct {
				NetworkInfos []struct {
					IPAddresses []struct {
						IPAddress string `json:"ip_address"`
					} `json:"ip_addresses"`
				} `json:"network_infos"`
			} `json:"container_status"`
		}
	}
	var state struct {
		Leader, Version string
		Slaves          []struct{ ID, Hostname, PID string }
		Completed       []struct {
			Name      string
			Completed []task `json:"completed_tasks"`
		} `json:"completed_frameworks"`
	}
	// The command does not wait for its framework's end.
	eventually(t, "the framework is completed", func() bool {
		getJSON(t, "http://"+c.fields["mesos"]+"/master/state", &state)
		return len(state.Completed) == 1
	})
	if state.Leader != "master@"+c.fields["mesos"] || strings.Trim(state.Version, "0123456789.") != "" {
		t.Errorf("leader is %q, version %q", state.Leader, state.Version)
	}
	if len(state.Slaves) != 1 || state.Slaves[0].PID != "slave(1)@"+c.fields["mesos_agent"] {
		t.Fatalf("slaves are %v", state.Slaves)
	}
	if len(state.Completed) != 1 || len(state.Completed[0].Completed) != 1 {
		t.Fatalf("completed frameworks are %v", state.Completed)
	}
	done := state.Completed[0].Completed[0]
	if done.State != "TASK_FINISHED" || done.SlaveID != state.Slaves[0].ID || done.Resources["cpus"] == nil {
		t.Errorf("the task is %v", done)
	}
	running := false
	for _, s := range done.Statuses {
		running = running || s.State == "TASK_RUNNING" && s.Timestamp > 1e9 && s.ContainerStatus.NetworkInfos[0].IPAddresses[0].IPAddress != ""
	}
	if !running {
		t.Errorf("it was never seen running, with an address: %v", done.Statuses)
	}

	// The adapters are killed: when they are back they know the same.
	before := state
	c.killMesosAdapter(true)
	c.killMesosAdapter(false)
	getJSON(t, "http://"+c.fields["mesos"]+"/state", &state)
	if diff := cmp.Diff(before, state); diff != "" {
		t.Errorf("after the adapter was killed (-before +after):\n%s", diff)
	}

	agent := "http://" + strings.TrimPrefix(state.Slaves[0].PID, "slave(1)@")
	var onAgent struct {
		Completed []struct {
			Executors []struct {
				Directory string
				Completed []task `json:"completed_tasks"`
			} `json:"completed_executors"`
		} `json:"completed_frameworks"`
	}
	getJSON(t, agent+"/slave(1)/state", &onAgent)
	executor := onAgent.Completed[0].Executors[0]
	if executor.Completed[0].ID != done.ID {
		t.Errorf("the agent has %v", executor)
	}
	var file struct {
		Data   string
		Offset int
	}
	getJSON(t, agent+"/files/read?offset=0&path="+url.QueryEscape(executor.Directory+"/stdout"), &file)
	if file.Data != "hello\n" {
		t.Errorf("stdout reads as %q", file.Data)
	}
	for _, path := range []string{"/../../../../../../../../../etc/passwd", "/%2e%2e/%2e%2e/agent.db"} {
		answer, err := http.Get(agent + "/files/download?path=" + executor.Directory + path)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered with %s", path, answer.Status)
		}
	}
}

// getJSON reads an answer of 200.
func getJSON(t *testing.T, address string, into any) {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", address, answer.Status, err, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v in %s", address, err, text)
	}
}
