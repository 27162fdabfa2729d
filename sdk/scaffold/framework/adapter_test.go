package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func newTestAdapter(t *testing.T) *adapter {
	t.Helper()
	a, wrong := newAdapter(&settings{Listen: "127.0.0.1:0", Role: "*", Resources: "cpus:1;mem:32"}, hclog.NewNullLogger())
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return a
}

func offer(resources string) *mezzov1.Offer {
	return &mezzov1.Offer{
		AgentId:   &mezzov1.AgentID{Value: proto.String("agent")},
		Resources: resource.MustParse(resources).Allocate("*").ToProto(),
	}
}

func heard(id string, state mezzov1.TaskState) *mezzov1.TaskStatus {
	return &mezzov1.TaskStatus{TaskId: &mezzov1.TaskID{Value: &id}, State: &state, Message: proto.String("told")}
}

func TestAnOfferIsFilledInTheOrderOfRequests(t *testing.T) {
	a := newTestAdapter(t)
	var ids []string
	for _, command := range []string{"first", "second", "third"} {
		added, err := a.tasks.add(command)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, added.ID)
	}
	if tasks := a.place(offer("cpus:0.5;mem:64")); len(tasks) != 0 {
		t.Errorf("half a CPU took %v", tasks)
	}
	tasks := a.place(offer("cpus:2.5;mem:4096"))
	if len(tasks) != 2 || tasks[0].GetCommand().GetValue() != "first" || tasks[1].GetCommand().GetValue() != "second" {
		t.Fatalf("two and a half CPUs took %v", tasks)
	}
	if task, _ := a.tasks.get(ids[2]); task.State != waiting || !a.tasks.anyWaiting() {
		t.Errorf("the third is %+v", task)
	}
	if got := a.tasks.launched(); len(got) != 2 || got[0].GetTaskId().GetValue() != tasks[0].GetTaskId().GetValue() {
		t.Errorf("launched are %v", got)
	}
}

func TestATaskThatWasDroppedWaitsAgain(t *testing.T) {
	a := newTestAdapter(t)
	added, _ := a.tasks.add("true")
	first := a.place(offer("cpus:1;mem:32"))[0].GetTaskId().GetValue()
	if !a.tasks.update(heard(first, mezzov1.TaskState_TASK_DROPPED)) {
		t.Fatal("it does not wait again")
	}
	second := a.place(offer("cpus:1;mem:32"))[0].GetTaskId().GetValue()
	if second == first {
		t.Errorf("both attempts are %s", first)
	}
	for _, test := range []struct {
		id    string
		state mezzov1.TaskState
		want  string
	}{
		{first, mezzov1.TaskState_TASK_FAILED, "TASK_STAGING"}, // late news of the attempt before
		{second, mezzov1.TaskState_TASK_RUNNING, "TASK_RUNNING"},
		{second, mezzov1.TaskState_TASK_GONE, "TASK_GONE"}, // it ran, so it does not run again
		{second, mezzov1.TaskState_TASK_FINISHED, "TASK_GONE"},
		{"of somebody else", mezzov1.TaskState_TASK_RUNNING, "TASK_GONE"},
	} {
		if a.tasks.update(heard(test.id, test.state)) {
			t.Errorf("%s of %s made it wait again", test.state, test.id)
		}
		if task, _ := a.tasks.get(added.ID); task.State != test.want {
			t.Errorf("after %s of %s it is %+v, want %s", test.state, test.id, task, test.want)
		}
	}
}

func TestATaskOfAProcessBefore(t *testing.T) {
	a := newTestAdapter(t)
	a.tasks.update(heard("old-1.0", mezzov1.TaskState_TASK_RUNNING))
	if task, found := a.tasks.get("old-1"); !found || task.State != "TASK_RUNNING" {
		t.Errorf("it is %+v", task)
	}
	if _, taskID, _ := a.tasks.cancel("old-1"); taskID != "old-1.0" {
		t.Errorf("it would be killed as %q", taskID)
	}
}

func TestTheBookIsBounded(t *testing.T) {
	b := newBook()
	for range maxOpen {
		if _, err := b.add("true"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.add("one more"); err != errFull {
		t.Errorf("one more: %v", err)
	}
	for range maxEnded + 10 {
		for _, one := range b.list() {
			if !one.ended {
				b.cancel(one.ID)
				break
			}
		}
		if _, err := b.add("true"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(b.list()); n != maxOpen+maxEnded {
		t.Errorf("the book holds %d tasks", n)
	}
}

func TestRequests(t *testing.T) {
	a := newTestAdapter(t)
	known, _ := a.tasks.add("true")
	for _, test := range []struct {
		name, method, path, body, origin string
		code                             int
		says                             string
	}{
		{"a command while there is no subscription", "POST", "/tasks", "true", "", http.StatusServiceUnavailable, "not subscribed"},
		{"no command", "POST", "/tasks", " \n", "", http.StatusBadRequest, "empty"},
		{"too long a command", "POST", "/tasks", strings.Repeat("x", maxCommand+1), "", http.StatusRequestEntityTooLarge, "too large"},
		{"from a page of somebody else's", "POST", "/tasks", "true", "https://elsewhere.example", http.StatusForbidden, ""},
		{"all tasks", "GET", "/tasks", "", "", http.StatusOK, known.ID},
		{"one task", "GET", "/tasks/" + known.ID, "", "", http.StatusOK, `"state":"WAITING"`},
		{"no task", "GET", "/tasks/none", "", "", http.StatusNotFound, "no such task"},
		{"another path", "GET", "/", "", "", http.StatusNotFound, ""},
	} {
		r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		w := httptest.NewRecorder()
		a.handler().ServeHTTP(w, r)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.says) {
			t.Errorf("%s: %d %s; want %d and %q", test.name, w.Code, w.Body, test.code, test.says)
		}
	}
}

func TestSettings(t *testing.T) {
	if wrong := (&settings{Listen: "127.0.0.1:0", Resources: "cpus:1"}).Validate(); len(wrong) > 0 {
		t.Errorf("good settings: %v", wrong)
	}
	for _, bad := range []settings{{Listen: "here", Resources: "cpus:1"}, {Listen: ":0", Resources: "cpus"}, {Listen: ":0"}} {
		if wrong := bad.Validate(); len(wrong) != 1 {
			t.Errorf("%+v: %v", bad, wrong)
		}
	}
}
