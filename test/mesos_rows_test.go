package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// What a real master answers to schedulers of the Mesos API, row by row of the
// tables of its behaviour; the rows that need no master are the scheduler
// package's own tests.

type object = map[string]any

func value(v string) object { return object{"value": v} }

// parse reads JSON that is written here.
func parse(t *testing.T, text string) object {
	t.Helper()
	var out object
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

// TestMesosSubscribeRows is what is wrong with subscriptions: a 200 whose only
// event is an ERROR.
func TestMesosSubscribeRows(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	url := "http://" + c.fields["mesos"] + "/api/v1/scheduler"
	const multi = `"capabilities":[{"type":"MULTI_ROLE"}]`
	removed := subscribeMesos(t, c.fields["mesos"], "")
	removed.call("TEARDOWN", nil)
	owned := subscribeMesos(t, c.fields["mesos"], "")
	update := owned.post(t.Context(), object{"type": "UPDATE_FRAMEWORK", "framework_id": value(owned.framework), "update_framework": object{
		"framework_info": parse(t, `{"id":{"value":"`+owned.framework+`"},"user":"root","name":"sleeper","roles":["*"],`+multi+`,"principal":"other"}`),
	}})
	text, _ := io.ReadAll(update.Body)
	update.Body.Close()
	if update.StatusCode != http.StatusBadRequest || string(text) != "FrameworkInfo update is not valid: Changing framework's principal is not allowed." {
		t.Errorf("UPDATE_FRAMEWORK of the principal: %s %s", update.Status, text)
	}
	for _, row := range []struct{ name, info, more, message string }{
		{"role with MULTI_ROLE", `"role":"a",` + multi, "", "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"},
		{"roles without", `"roles":["a"]`, "", "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"},
		{"a role twice", `"roles":["a","a"],` + multi, "", "'FrameworkInfo.roles' contains duplicate items: a"},
		{"a bad role", `"roles":["a//b"],` + multi, "", "'FrameworkInfo.roles' contains invalid role: "},
		{"a bad id", `"id":{"value":"a/b"}`, "", "Framework ID: 'a/b' contains invalid characters"},
		{"offer filters of nothing", `"offer_filters":{"*":{"min_allocatable_resources":{"quantities":[{}]}}}`, "", "Resource quantities must contain at least one quantity"},
		{"offer filters below nothing", `"offer_filters":{"*":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{"value":-1}}}]}}}`, "", "Invalid resource quantity for 'cpus': "},
		{"a timeout of ages", `"failover_timeout":1e10`, "", "The framework failover_timeout (1e+10) is invalid"},
		{"removed", `"id":{"value":"` + removed.framework + `"}`, "", "Framework has been removed"},
		{"suppressed, and not its own", `"role":"a"`, `"suppressed_roles":["b"]`, "Suppressed roles { b } are not contained in the set of roles"},
		{"constraints for another role", `"role":"a"`, `"offer_constraints":{"role_constraints":{"b":{"groups":[]}}}`, "Offer constraints "},
		{"constraints that mean nothing", `"role":"a"`, `"offer_constraints":{"role_constraints":{"a":{"groups":[{"attribute_constraints":[
			{"selector":{"attribute_name":"x"},"predicate":{"text_matches":{"regex":"("}}}]}]}}}`, "Offer constraints "},
	} {
		t.Run(row.name, func(t *testing.T) {
			info := parse(t, `{"user":"root","name":"n",`+row.info+`}`)
			subscribe := parse(t, `{`+row.more+`}`)
			subscribe["framework_info"] = info
			call, err := json.Marshal(object{"type": "SUBSCRIBE", "framework_id": info["id"], "subscribe": subscribe})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(call)))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				text, _ := io.ReadAll(answer.Body)
				t.Fatalf("%s: %s", answer.Status, text)
			}
			in := recordio.NewReader(answer.Body, recordio.DefaultLimit)
			record, err := in.Next()
			if err != nil {
				t.Fatal(err)
			}
			event := parse(t, string(record))
			problem, _ := event["error"].(object)
			message, _ := problem["message"].(string)
			if event["type"] != "ERROR" || !strings.HasPrefix(message, row.message) {
				t.Errorf("%s, want %q", record, row.message)
			}
			if more, err := in.Next(); err != io.EOF {
				t.Errorf("after it: %q %v", more, err)
			}
		})
	}
}

// TestMesosAcceptRows is what becomes of tasks that cannot be launched: one
// update each, from the master, with no uuid, and the others are launched.
func TestMesosAcceptRows(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	s := subscribeMesos(t, c.fields["mesos"], "")
	offer := s.await("OFFERS", nil)["offers"].(object)["offers"].([]any)[0].(object)
	const resources = `"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":0.1}},{"name":"mem","type":"SCALAR","scalar":{"value":32}}]`
	const command = `"command":{"value":"true"}`
	rows := []struct{ id, rest, message string }{
		{"a/b", resources + "," + command, "Task ID: 'a/b' contains invalid characters"},
		{"elsewhere", resources + "," + command + `,"agent_id":{"value":"elsewhere"}`, "Task uses invalid agent elsewhere while agent "},
		{"kill-policy", resources + "," + command + `,"kill_policy":{"grace_period":{"nanoseconds":-1}}`, "Task's 'kill_policy.grace_period' must be non-negative"},
		{"completion", resources + "," + command + `,"max_completion_time":{"nanoseconds":-1}`, "Task's 'max_completion_time' must be non-negative"},
		{"check", resources + "," + command + `,"check":{"type":"HTTP"}`, "Task uses invalid check: "},
		{"health", resources + "," + command + `,"health_check":{"type":"TCP"}`, "Task uses invalid health check: "},
		{"nothing", command, "Task uses no resources"},
		{"environment", resources + `,"command":{"value":"true","environment":{"variables":[{"name":"A"}]}}`, "Task's command is invalid: "},
		{"volume", resources + "," + command + `,"container":{"type":"MESOS","volumes":[{"mode":"RW","container_path":"x"}]}`, "Task's container is invalid: "},
		{"limits", resources + "," + command + `,"limits":{"disk":{"value":1}}`, "Resource limits are only supported for 'cpus' and 'mem'"},
		{"neither", resources, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"},
		{"both", resources + "," + command + `,"executor":{"executor_id":{"value":"e"},"command":{"value":"true"}}`, "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"},
		{"large", `"resources":[{"name":"cpus","type":"SCALAR","scalar":{"value":1000}}],` + command, "Total resources cpus:1000 required by task and its executor is more than available "},
	}
	var tasks []any
	for _, row := range rows {
		task := parse(t, `{"name":"n",`+row.rest+`}`)
		task["task_id"] = value(row.id)
		if task["agent_id"] == nil {
			task["agent_id"] = offer["agent_id"]
		}
		tasks = append(tasks, task)
	}
	good := parse(t, `{"name":"n","task_id":{"value":"good"},`+resources+`,"command":{"value":"sleep 1000"}}`)
	good["agent_id"] = offer["agent_id"]
	launch := func(offers []any, tasks ...any) {
		t.Helper()
		s.call("ACCEPT", object{
			"offer_ids": offers, "filters": object{"refuse_seconds": 0},
			"operations": []any{object{"type": "LAUNCH", "launch": object{"task_infos": tasks}}},
		})
	}
	refused := func(id, state, reason, message string) {
		t.Helper()
		status := s.await("UPDATE", func(e object) bool {
			status := e["update"].(object)["status"].(object)
			return status["task_id"].(object)["value"] == id && status["source"] == "SOURCE_MASTER"
		})["update"].(object)["status"].(object)
		said, _ := status["message"].(string)
		if status["state"] != state || status["reason"] != reason || status["uuid"] != nil || !strings.HasPrefix(said, message) {
			t.Errorf("%s: %v, want %s %s %q", id, status, state, reason, message)
		}
	}
	launch([]any{offer["id"]}, append(tasks, good, good)...)
	for _, row := range rows {
		refused(row.id, "TASK_ERROR", "REASON_TASK_INVALID", row.message)
	}
	refused("good", "TASK_ERROR", "REASON_TASK_INVALID", "Task has duplicate ID: good")

	next := s.await("OFFERS", nil)["offers"].(object)["offers"].([]any)[0].(object)
	late := parse(t, `{"name":"n","task_id":{"value":"late"},`+resources+","+command+`}`)
	late["agent_id"] = next["agent_id"]
	for _, row := range []struct {
		offers  []any
		message string
	}{
		{[]any{next["id"], next["id"]}, "Duplicate offer "},
		{[]any{next["id"]}, "Offer " + next["id"].(object)["value"].(string) + " is no longer valid"}, // it was given back
		{[]any{}, "No offers specified"},
	} {
		launch(row.offers, late)
		refused("late", "TASK_LOST", "REASON_INVALID_OFFERS", "Task launched with invalid offers: "+row.message)
	}
	eventually(t, "the task that was right to run", func() bool {
		tasks := c.list("tasks")
		return len(tasks) == 1 && tasks[0]["id"] == "good" && tasks[0]["state"] == "TASK_RUNNING"
	})
	s.call("TEARDOWN", nil)
}

// TestMesosReconcileRows is what schedulers hear of tasks and operations that
// nobody knows, and that calls about them are accepted.
func TestMesosReconcileRows(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	agent := fmt.Sprint(c.list("agents")[0]["id"])
	for _, framework := range []struct {
		capability                  string
		unknown, gone, unknownAgent string
	}{
		{"MULTI_ROLE", "TASK_LOST", "TASK_LOST", "TASK_LOST"},
		{"PARTITION_AWARE", "TASK_UNKNOWN", "TASK_GONE", "TASK_UNKNOWN"},
	} {
		s := subscribeMesos(t, c.fields["mesos"], "")
		answer := s.post(t.Context(), object{"type": "UPDATE_FRAMEWORK", "framework_id": value(s.framework), "update_framework": object{
			"framework_info": parse(t, `{"id":{"value":"`+s.framework+`"},"user":"root","name":"sleeper","roles":["*"],
				"capabilities":[{"type":"MULTI_ROLE"},{"type":"`+framework.capability+`"}]}`),
		}})
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || answer.ContentLength != 0 {
			t.Errorf("UPDATE_FRAMEWORK: %s", answer.Status)
		}
		s.call("RECONCILE", object{"tasks": []any{
			object{"task_id": value("t1")}, object{"task_id": value("t2"), "agent_id": value(agent)}, object{"task_id": value("t3"), "agent_id": value("nobody")},
		}})
		s.call("KILL", object{"task_id": value("t4")})
		for id, state := range map[string]string{"t1": framework.unknown, "t2": framework.gone, "t3": framework.unknownAgent, "t4": framework.unknown} {
			s.call("RECONCILE", object{"tasks": []any{object{"task_id": value(id), "agent_id": map[string]any{"t2": value(agent), "t3": value("nobody")}[id]}}})
			status := s.update(id, state)
			message, _ := status["message"].(string)
			if status["source"] != "SOURCE_MASTER" || status["reason"] != "REASON_RECONCILIATION" || status["uuid"] != nil || !strings.HasPrefix(message, "Reconciliation: ") {
				t.Errorf("%s: %v", id, status)
			}
		}
		s.call("RECONCILE_OPERATIONS", object{"operations": []any{object{"operation_id": value("o1"), "agent_id": value(agent)}}})
		status := s.await("UPDATE_OPERATION_STATUS", nil)["update_operation_status"].(object)["status"].(object)
		if status["state"] != "OPERATION_UNKNOWN" || status["uuid"] != nil || status["operation_id"].(object)["value"] != "o1" {
			t.Errorf("operation: %v", status)
		}
		s.call("RECONCILE_OPERATIONS", object{})
		s.call("DECLINE", object{"offer_ids": []any{value("nobody's")}})
		s.call("ACKNOWLEDGE", object{"agent_id": value("nobody"), "task_id": value("t1"), "uuid": "AAAAAAAAQACAAAAAAAAAAA=="})
		s.call("MESSAGE", object{"agent_id": value("nobody"), "executor_id": value("e"), "data": "aGVsbG8="})
		s.call("SHUTDOWN", object{"agent_id": value("nobody"), "executor_id": value("e")})
		s.call("ACCEPT_INVERSE_OFFERS", object{"inverse_offer_ids": []any{value("nobody's")}})
		s.call("DECLINE_INVERSE_OFFERS", object{"inverse_offer_ids": []any{value("nobody's")}})
		s.call("REQUEST", object{"requests": []any{object{}}})
		s.call("SUPPRESS", object{"roles": []any{"another"}})
		s.call("REVIVE", object{"roles": []any{"another"}})
		s.call("TEARDOWN", nil)
	}
}
