package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A container that belongs to no framework, by the Mesos API of an agent: it runs,
// is shown, and is waited for, killed and removed.
func TestMesosStandaloneContainer(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	a := &mesosAgent{t, "http://" + c.fields["mesos_agent"] + "/api/v1"}
	run := func(id, script string) (int, string) {
		t.Helper()
		return a.call("LAUNCH_CONTAINER", object{"value": id}, object{
			"command":   object{"value": "sh", "arguments": []any{"sh", "-c", script}, "shell": false},
			"resources": []any{object{"name": "cpus", "type": "SCALAR", "scalar": object{"value": 0.1}}, object{"name": "mem", "type": "SCALAR", "scalar": object{"value": 32}}},
		})
	}
	status := func(id string) int {
		t.Helper()
		code, body := a.call("WAIT_CONTAINER", object{"value": id}, nil)
		var got struct {
			Wait struct {
				Status *int `json:"exit_status"`
			} `json:"wait_container"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Wait.Status == nil {
			t.Errorf("WAIT_CONTAINER of %s: %d %s", id, code, body)
			return -1
		}
		return *got.Wait.Status
	}
	for id, script := range map[string]string{"short": "echo hello; exit 7", "long": "exec sleep 100017"} {
		if code, body := run(id, script); code != 200 || body != "" {
			t.Fatalf("LAUNCH_CONTAINER of %s: %d %s", id, code, body)
		}
	}
	if code, _ := run("long", "true"); code != 202 {
		t.Errorf("LAUNCH_CONTAINER of one that runs: %d", code)
	}
	if got := status("short"); got != 7<<8 {
		t.Errorf("the status is %d", got)
	}
	found, err := filepath.Glob(filepath.Join(c.dir, "*", "work", "containers", "short", "stdout"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the output is in %v, %v", found, err)
	}
	if text, err := os.ReadFile(found[0]); err != nil || string(text) != "hello\n" {
		t.Errorf("the output is %q, %v", text, err)
	}
	if code, body := a.call("REMOVE_CONTAINER", object{"value": "long"}, nil); code != 500 {
		t.Errorf("REMOVE_CONTAINER of one that runs: %d %s", code, body)
	}
	if code, body := a.call("REMOVE_CONTAINER", object{"value": "short"}, nil); code != 200 || body != "" {
		t.Errorf("REMOVE_CONTAINER: %d %s", code, body)
	}
	eventually(t, "the end of its sandbox", func() bool { _, err := os.Stat(found[0]); return os.IsNotExist(err) })
	if code, _ := a.call("WAIT_CONTAINER", object{"value": "short"}, nil); code != 404 {
		t.Errorf("WAIT_CONTAINER of one that is removed: %d", code)
	}
	answer := a.request(t.Context(), strings.NewReader(`{"type":"GET_CONTAINERS","get_containers":{"show_standalone":true}}`), "Content-Type", "application/json")
	defer answer.Body.Close()
	var shown struct {
		Get struct {
			Containers []struct {
				ID        object `json:"container_id"`
				Framework object `json:"framework_id"`
			}
		} `json:"get_containers"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&shown); err != nil || len(shown.Get.Containers) != 1 || shown.Get.Containers[0].ID["value"] != "long" || shown.Get.Containers[0].Framework != nil {
		t.Errorf("shown are %v, %v", shown, err)
	}
	if code, body := a.call("KILL_CONTAINER", object{"value": "long"}, object{"signal": 15}); code != 200 || body != "" {
		t.Errorf("KILL_CONTAINER: %d %s", code, body)
	}
	if got := status("long"); got != 15 {
		t.Errorf("killed, the status is %d", got)
	}
}
