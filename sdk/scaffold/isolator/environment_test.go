package main

import (
	"slices"
	"strings"
	"testing"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

func TestPrepareAddsVariablesAndKeepsTheRest(t *testing.T) {
	e := &environment{settings: &settings{Variables: map[string]string{"SITE": "lisbon", "RACK": "r7"}}}
	spec := `{"process":{"args":["env"],"env":["PATH=/bin","RACK=mine"],"rlimits":[{"type":"RLIMIT_CORE","hard":18446744073709551615}]},"unknown":{"kept":true}}`
	prepared, err := e.Prepare(t.Context(), &isolatorv1.PrepareRequest{Container: "c", Spec: []byte(spec)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"env":["PATH=/bin","RACK=mine","SITE=lisbon"]`, `"hard":18446744073709551615`, `"unknown":{"kept":true}`, `"args":["env"]`} {
		if got := string(prepared.GetSpec()); !strings.Contains(got, want) {
			t.Errorf("the specification is without %s: %s", want, got)
		}
	}
	for _, bad := range []string{"", "[]", "{}", `{"process":null}`, `{"process":[]}`, `{"process":{"env":7}}`} {
		if got, err := e.Prepare(t.Context(), &isolatorv1.PrepareRequest{Container: "c", Spec: []byte(bad)}); err == nil {
			t.Errorf("of %q it made %s", bad, got.GetSpec())
		}
	}
}

func TestOverride(t *testing.T) {
	e := &environment{settings: &settings{Variables: map[string]string{"RACK": "r7"}, Override: true}}
	if got, want := e.amend([]string{"RACK=mine", "RACKS=2"}), []string{"RACKS=2", "RACK=r7"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClaim(t *testing.T) {
	full, empty := &environment{settings: &settings{Variables: map[string]string{"RACK": "r7"}}}, &environment{settings: &settings{}}
	for _, test := range []struct {
		name string
		e    *environment
		task *isolatorv1.Task
		want isolatorv1.ClaimResponse_Claim
	}{
		{"a task", full, &isolatorv1.Task{}, isolatorv1.ClaimResponse_CLAIM_AMEND},
		{"a container without a process", full, &isolatorv1.Task{SandboxOnly: true}, isolatorv1.ClaimResponse_CLAIM_NONE},
		{"nothing to add", empty, &isolatorv1.Task{}, isolatorv1.ClaimResponse_CLAIM_NONE},
	} {
		got, err := test.e.Claim(t.Context(), &isolatorv1.ClaimRequest{Task: test.task})
		if err != nil || got.GetClaim() != test.want || test.want == isolatorv1.ClaimResponse_CLAIM_NONE && got.GetReason() == "" {
			t.Errorf("%s: %v, %v; want %v", test.name, got, err, test.want)
		}
	}
}

func TestSettings(t *testing.T) {
	if wrong := (&settings{Variables: map[string]string{"_A1": ""}}).Validate(); len(wrong) > 0 {
		t.Errorf("a good name: %v", wrong)
	}
	if wrong := (&settings{Variables: map[string]string{"1A": "", "A=B": "", "": ""}}).Validate(); len(wrong) != 3 {
		t.Errorf("three bad names: %v", wrong)
	}
}
