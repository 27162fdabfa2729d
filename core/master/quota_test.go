package master_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/config"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func amounts(t *testing.T, fields map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually asks until the answer is as wanted: what is shown follows what has
// happened by a moment.
func eventually[T any](t *testing.T, what string, ask func(context.Context) (T, error), want func(T) bool) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		got, err := ask(ctx)
		if err == nil && want(got) {
			return got
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: the last answer is %v, %v", what, got, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A limit set by an operator holds at once, is refused where it would do harm,
// and outlives the master.
func TestQuotaAndWeights(t *testing.T) {
	o := options(t)
	o.Config.Roles = []config.Role{{Name: "ops", Weight: 2, Limit: "cpus:8;gpus:0"}}
	m := start(t, o)
	a := newAgent(t, "h1", "cpus:4;mem:4096")
	a.connect(m.Addresses()["rpc"])
	e := subscribe(t, m.Addresses()["rpc"], info("test"))
	await(t, "the subscription", e.subscribed)
	if err := e.Launch(t.Context(), await(t, "an offer", e.offers), task("t1", "cpus:2;mem:64")); err != nil {
		t.Fatal(err)
	}
	e.until(t, "t1", mezzov1.TaskState_TASK_RUNNING)
	operator := m.operator(t)
	set := func(role string, guarantee, limit map[string]any, force bool) ([]string, codes.Code) {
		q := &operatorv1.SetQuotaRequest{Role: role, Force: force}
		if guarantee != nil {
			q.Guarantee = amounts(t, guarantee)
		}
		if limit != nil {
			q.Limit = amounts(t, limit)
		}
		answer, err := operator.SetQuota(t.Context(), q)
		return answer.GetWarnings(), status.Code(err)
	}
	for name, x := range map[string]struct {
		role             string
		guarantee, limit map[string]any
		want             codes.Code
	}{
		"less than it uses":      {"*", nil, map[string]any{"cpus": 1.0}, codes.FailedPrecondition},
		"guarantee above limit":  {"*", map[string]any{"cpus": 4.0}, map[string]any{"cpus": 3.0}, codes.InvalidArgument},
		"nothing given":          {"*", nil, nil, codes.InvalidArgument},
		"negative":               {"*", nil, map[string]any{"cpus": -1.0}, codes.InvalidArgument},
		"a text":                 {"*", nil, map[string]any{"cpus": "many"}, codes.InvalidArgument},
		"a name that is none":    {"*", nil, map[string]any{"c pu(s": 1.0}, codes.InvalidArgument},
		"a role that is no role": {"a//b", nil, map[string]any{"cpus": 1.0}, codes.InvalidArgument},
	} {
		if _, code := set(x.role, x.guarantee, x.limit, false); code != x.want {
			t.Errorf("%s: %s, want %s", name, code, x.want)
		}
	}
	if _, code := set("*", nil, map[string]any{"cpus": 1.0, "gpus": 0.0}, true); code != codes.OK {
		t.Fatalf("a forced limit: %s", code)
	}
	if warnings, code := set("eng/web", map[string]any{"cpus": 100.0}, nil, false); code != codes.OK || len(warnings) != 1 || !strings.Contains(warnings[0], "cpus:100 of 4") {
		t.Errorf("a guarantee of more than there is: %s %v", code, warnings)
	}
	quotas := func(want func(map[string]*operatorv1.Quota) bool) func(*operatorv1.GetQuotaResponse) bool {
		return func(r *operatorv1.GetQuotaResponse) bool {
			byRole := map[string]*operatorv1.Quota{}
			for _, q := range r.Quotas {
				byRole[q.Role] = q
			}
			return want(byRole)
		}
	}
	get := func(ctx context.Context) (*operatorv1.GetQuotaResponse, error) {
		return operator.GetQuota(ctx, &operatorv1.GetQuotaRequest{})
	}
	all := func(q map[string]*operatorv1.Quota) bool {
		gpus, has := q["*"].GetLimit().GetFields()["gpus"]
		return len(q) == 3 && q["*"].Limit.Fields["cpus"].GetNumberValue() == 1 && has && gpus.GetNumberValue() == 0 &&
			q["*"].Consumed.Fields["cpus"].GetNumberValue() == 2 && q["*"].Source == "operator" &&
			q["ops"].Source == "configuration" && q["eng/web"].Guarantee.Fields["cpus"].GetNumberValue() == 100
	}
	eventually(t, "the quotas", get, quotas(all))
	if _, err := operator.GetQuota(t.Context(), &operatorv1.GetQuotaRequest{Role: "web"}); status.Code(err) != codes.NotFound {
		t.Errorf("the quota of a role that has none: %v", err)
	}
	if _, err := operator.RemoveQuota(t.Context(), &operatorv1.RemoveQuotaRequest{Role: "ops"}); status.Code(err) != codes.NotFound {
		t.Errorf("removing the configuration's quota: %v", err)
	}
	for role, weight := range map[string]float64{"*": 1e7, "ops": -1, "web": 0.0001} {
		if _, err := operator.SetWeights(t.Context(), &operatorv1.SetWeightsRequest{Weights: []*operatorv1.RoleWeight{{Role: role, Weight: weight}}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("the weight %v: %v", weight, err)
		}
	}
	if _, err := operator.SetWeights(t.Context(), &operatorv1.SetWeightsRequest{Weights: []*operatorv1.RoleWeight{{Role: "*", Weight: 0.5}, {Role: "ops", Weight: 3}}}); err != nil {
		t.Fatal(err)
	}
	roles := func(ctx context.Context) (*operatorv1.ListRolesResponse, error) {
		return operator.ListRoles(ctx, &operatorv1.ListRolesRequest{})
	}
	rolesAre := func(r *operatorv1.ListRolesResponse) bool {
		byName := map[string]*operatorv1.Role{}
		for _, x := range r.Roles {
			byName[x.Name] = x
		}
		all, ops := byName["*"], byName["ops"]
		return len(byName) == 3 && all.GetWeight() == 0.5 && all.GetWeightSource() == "operator" && ops.GetWeight() == 3 &&
			ops.GetQuotaSource() == "configuration" && byName["eng/web"].GetQuotaSource() == "operator"
	}
	eventually(t, "the roles", roles, func(r *operatorv1.ListRolesResponse) bool {
		if !rolesAre(r) {
			return false
		}
		got := r.Roles[0]
		return got.Name == "*" && got.DominantShare == 0.5 && got.DominantResource == "cpus" && len(got.Frameworks) == 1 &&
			got.Allocated.Fields["cpus"].GetNumberValue() == 2
	})

	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	o.Allocator = fair(t)
	m = start(t, o)
	operator = m.operator(t)
	eventually(t, "the roles after a restart", roles, rolesAre)
	if _, err := operator.RemoveQuota(t.Context(), &operatorv1.RemoveQuotaRequest{Role: "*"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the quota's end", get, quotas(func(q map[string]*operatorv1.Quota) bool { return len(q) == 2 && q["*"] == nil }))
}
