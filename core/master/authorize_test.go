package master_test

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/authorization"
	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
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

// Whoever is allowed nothing is told nothing, and gets nothing done, by whatever
// call there is: one that is added and asks nobody is found here.
func TestNoOperatorCallIsOpen(t *testing.T) {
	o := options(t)
	o.Config.Authorization = &config.Authorization{Default: "deny"}
	m := start(t, o)
	conn := dial(t, m.Addresses()["rpc"])
	// What is refused before anybody is asked needs a request that makes sense.
	requests := map[string]proto.Message{
		"SetWeights": &operatorv1.SetWeightsRequest{Weights: []*operatorv1.RoleWeight{{Role: "web", Weight: 2}}},
		"SetQuota":   &operatorv1.SetQuotaRequest{Role: "web", Limit: &structpb.Struct{}},
		"ApplyOperation": &operatorv1.ApplyOperationRequest{AgentId: "a", Operation: &mezzov1.Offer_Operation{
			Type: mezzov1.Offer_Operation_RESERVE.Enum(),
			Reserve: &mezzov1.Offer_Operation_Reserve{Resources: []*mezzov1.Resource{{
				Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(), Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)},
				Reservations: []*mezzov1.Resource_ReservationInfo{{Type: mezzov1.Resource_ReservationInfo_DYNAMIC.Enum(), Role: proto.String("web")}},
			}}},
		}},
	}
	got := rpctest.Open(t, conn, operatorv1.File_mezzo_operator_v1_operator_proto.Services().ByName("Operator"), requests)
	// Who leads is told to everybody, and nothing else with it.
	if diff := cmp.Diff(map[string]codes.Code{"GetStatus": codes.OK}, got); diff != "" {
		t.Errorf("what is not denied (-want +got):\n%s", diff)
	}
	s, err := m.operator(t).GetStatus(t.Context(), &operatorv1.GetStatusRequest{})
	if err != nil || s.Leadership != "leading" || s.Agents != nil || s.Tasks != nil || len(s.Plugins) > 0 {
		t.Errorf("the status for one who may not see the cluster: %v, %v", s, err)
	}
	for _, path := range []string{"/metrics", "/v1/agents", "/v1/settings", "/v1/history", "/v1/watch", "/v1/agent/a/files?path=/frameworks/f", "/v1/agent/a/state"} {
		if code, text := get(t, "http://"+m.Addresses()["http"]+path); code != 403 {
			t.Errorf("GET %s: %d %s", path, code, text)
		}
	}
	if code, text := get(t, "http://"+m.Addresses()["http"]+"/healthz"); code != 200 {
		t.Errorf("GET /healthz: %d %s", code, text)
	}
}

// Rules see tasks and frameworks as they are: their roles, users and owners.
func TestRulesSeeWhatIsAskedFor(t *testing.T) {
	o := options(t)
	nobody := []string{authorization.Nobody}
	o.Config.Authorization = &config.Authorization{Default: "deny", Rules: []authorization.Rule{
		{Name: "base", Principals: nobody, Actions: []string{"register_agent", "view_cluster"}},
		{Name: "not root", Deny: true, Principals: nobody, Actions: []string{"run_task"}, Users: []string{"root"}},
		{Name: "not others", Deny: true, Principals: nobody, Actions: []string{"kill_task"}, Users: []string{"keep"}},
		{Name: "test", Principals: nobody, Actions: []string{"register_framework", "run_task", "kill_task"}, Roles: []string{`\*`, "web/*"}},
	}}
	m := start(t, o)
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	offer := await(t, "an offer", e.offers)
	as := func(id, user string) *mezzov1.TaskInfo {
		x := task(id, "cpus:1;mem:64")
		x.Command.User = proto.String(user)
		return x
	}
	// The mirror need not know of the framework yet: the call comes at once.
	if err := e.Launch(t.Context(), offer, as("t1", "root"), as("t2", "keep"), as("t3", "web")); err != nil {
		t.Errorf("the call: %v", err)
	}
	if st := e.until(t, "t1", mezzov1.TaskState_TASK_ERROR); st.GetReason() != mezzov1.TaskStatus_REASON_TASK_UNAUTHORIZED {
		t.Errorf("a task as root: %v", st)
	}
	e.until(t, "t2", mezzov1.TaskState_TASK_RUNNING)
	e.until(t, "t3", mezzov1.TaskState_TASK_RUNNING)
	operator := m.operator(t)
	codesOf := map[string]codes.Code{}
	for _, id := range []string{"t2", "t3", "unknown"} {
		_, err := operator.KillTask(t.Context(), &operatorv1.KillTaskRequest{TaskId: id})
		codesOf[id] = status.Code(err)
	}
	want := map[string]codes.Code{"t2": codes.PermissionDenied, "t3": codes.OK, "unknown": codes.PermissionDenied}
	if !maps.Equal(want, codesOf) {
		t.Errorf("kill: %v, want %v", codesOf, want)
	}
	frameworks, err := operator.ListFrameworks(t.Context(), &operatorv1.ListFrameworksRequest{})
	if err != nil || len(frameworks.Frameworks) != 1 {
		t.Fatal(frameworks, err)
	}
	if _, err := operator.Teardown(t.Context(), &operatorv1.TeardownRequest{FrameworkId: frameworks.Frameworks[0].Id}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("teardown: %v", err)
	}
	impostor := info("impostor")
	impostor.Principal = proto.String("ann")
	other := info("other")
	other.Roles = []string{"web/a", "batch"}
	for words, x := range map[string]*mezzov1.FrameworkInfo{`role "batch"`: other, `principal "ann"`: impostor} {
		stream, err := schedulerv1.NewSchedulerClient(dial(t, m.Addresses()["rpc"])).Subscribe(t.Context(), &schedulerv1.Call_Subscribe{FrameworkInfo: x})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), words) {
			t.Errorf("a framework that may not be because of its %s: %v", words, err)
		}
	}
}
