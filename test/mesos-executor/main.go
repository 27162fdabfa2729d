// Mesos-executor is an executor as those of Mesos are: plain HTTP and JSON, from
// its environment alone. A task runs until the scheduler sends "finish". When it
// loses its agent it subscribes again, with all that was not acknowledged.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

type object = map[string]any

// executor is what it knows. One goroutine uses it.
type executor struct {
	url     string
	tasks   map[string]any    // that no update was acknowledged of, by id
	updates map[string]object // that were not acknowledged, by uuid
	running []string
}

func main() {
	e := &executor{
		url: "http://" + os.Getenv("MESOS_AGENT_ENDPOINT") + "/api/v1/executor", tasks: map[string]any{}, updates: map[string]object{},
	}
	for {
		over, err := e.subscribe()
		fmt.Fprintln(os.Stderr, "the subscription ended:", err)
		if over {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (e *executor) post(kind string, what any) (*http.Response, error) {
	call := object{
		"type": kind, "framework_id": object{"value": os.Getenv("MESOS_FRAMEWORK_ID")}, "executor_id": object{"value": os.Getenv("MESOS_EXECUTOR_ID")},
	}
	if what != nil {
		call[map[string]string{"SUBSCRIBE": "subscribe", "UPDATE": "update"}[kind]] = what
	}
	body, err := json.Marshal(call)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	return http.DefaultClient.Do(r)
}

// subscribe serves one subscription. over: the executor is to end.
func (e *executor) subscribe() (over bool, err error) {
	tasks, updates := []any{}, []any{}
	for _, t := range e.tasks {
		tasks = append(tasks, t)
	}
	for _, u := range e.updates {
		updates = append(updates, object{"status": u})
	}
	answer, err := e.post("SUBSCRIBE", object{"unacknowledged_tasks": tasks, "unacknowledged_updates": updates})
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return false, fmt.Errorf("%s: %s", answer.Status, text)
	}
	for records := recordio.NewReader(answer.Body, recordio.DefaultLimit); ; {
		record, err := records.Next()
		if err != nil {
			return false, err
		}
		var event struct {
			Type   string
			Launch struct{ Task object }
			Kill   struct {
				ID struct{ Value string } `json:"task_id"`
			}
			Acknowledged struct {
				UUID string
				ID   struct{ Value string } `json:"task_id"`
			}
			Message struct{ Data []byte }
		}
		if err := json.Unmarshal(record, &event); err != nil {
			return false, err
		}
		switch event.Type {
		case "LAUNCH":
			id := event.Launch.Task["task_id"].(object)["value"].(string)
			e.tasks[id] = event.Launch.Task
			e.running = append(e.running, id)
			e.update(id, "TASK_RUNNING")
		case "KILL":
			e.update(event.Kill.ID.Value, "TASK_KILLED")
		case "ACKNOWLEDGED":
			delete(e.updates, event.Acknowledged.UUID)
			delete(e.tasks, event.Acknowledged.ID.Value)
		case "MESSAGE":
			for _, id := range e.running {
				e.update(id, "TASK_FINISHED")
			}
			e.running = nil
		case "SHUTDOWN", "ERROR":
			return true, fmt.Errorf("%s", record)
		}
	}
}

// update reports a task; when it does not get through, the next subscription
// takes it along.
func (e *executor) update(task, state string) {
	uuid := make([]byte, 16)
	_, _ = rand.Read(uuid)
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80
	text, _ := json.Marshal(uuid) // base64, in quotes
	status := object{
		"task_id": object{"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": json.RawMessage(text),
		"message": fmt.Sprintf("pid %d", os.Getpid()),
	}
	e.updates[string(bytes.Trim(text, `"`))] = status
	answer, err := e.post("UPDATE", object{"status": status})
	if err != nil {
		fmt.Fprintln(os.Stderr, "update:", err)
		return
	}
	if answer.StatusCode != http.StatusAccepted {
		fmt.Fprintln(os.Stderr, "update:", answer.Status)
	}
	answer.Body.Close()
}
