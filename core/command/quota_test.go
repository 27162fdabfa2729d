package command

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// quotaOf reads a flag as quota set does.
func quotaOf(t *testing.T, args ...string) (*structpb.Struct, error) {
	t.Helper()
	cmd := &cobra.Command{}
	text := cmd.Flags().String("limit", "", "")
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return quotaFlag(cmd, "limit", *text)
}

func mustQuota(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	s, err := quotaOf(t, "--limit", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestQuotaFlag(t *testing.T) {
	if s, err := quotaOf(t); s != nil || err != nil {
		t.Errorf("a flag that was not given: %v, %v; want nothing, which leaves the quota as it is", s, err)
	}
	for _, text := range []string{"", "none", " none "} {
		if s := mustQuota(t, text); s == nil || len(s.Fields) != 0 {
			t.Errorf("%q: %v; want an empty one, which takes the quota away", text, s)
		}
	}
	if got := quotaText(mustQuota(t, "mem:1024;cpus:2.5;gpus:0")); got != "cpus:2.5 mem:1024 gpus:0" {
		t.Errorf("got %q; a zero forbids, so it is kept", got)
	}
	for _, text := range []string{"cpus", "cpus:x", "cpus:1;cpus:2", "ports:[1-2]", "cpus(a):1", "cpus:-1"} {
		if s, err := quotaOf(t, "--limit", text); err == nil {
			t.Errorf("%q was read as %v", text, s)
		}
	}
}

func TestRoleWeight(t *testing.T) {
	for arg, want := range map[string]*operatorv1.RoleWeight{
		"ads=2":           {Role: "ads", Weight: 2},
		"eng/web=0.5":     {Role: "eng/web", Weight: 0.5},
		"ads=default":     {Role: "ads"},
		"ads":             nil,
		"=2":              nil,
		"ads=":            nil,
		"ads=0":           nil,
		"ads=-1":          nil,
		"ads=NaN":         nil,
		"ads=Inf":         nil,
		"ads=10000000000": nil,
	} {
		got, err := roleWeight(arg)
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", arg, got, err)
		}
	}
}
