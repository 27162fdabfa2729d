package command

import (
	"bytes"
	"testing"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// What is printed of a reload says how much of it took place.
func TestShowReload(t *testing.T) {
	changes := []*operatorv1.ReloadChange{{What: "isolator \"a\"", From: "as it was", To: "another config"}}
	restart := []*operatorv1.ReloadChange{{What: "rpc", From: ":1", To: ":2"}}
	for _, test := range []struct {
		name     string
		answer   *operatorv1.ReloadResponse
		out, err string
	}{
		{"nothing", &operatorv1.ReloadResponse{}, "nothing to change\n", ""},
		{"all", &operatorv1.ReloadResponse{Changes: changes, Restart: restart, Diagnostics: "Warning: w\n"},
			"changed isolator \"a\": as it was -> another config\nneeds a restart, not applied: rpc: :1 -> :2\n", "Warning: w\n"},
		{"failed at once", &operatorv1.ReloadResponse{Failed: true, Diagnostics: "Error: e\n"}, "", "Error: e\nmezzo: nothing has changed\n"},
		{"failed in the middle", &operatorv1.ReloadResponse{Failed: true, Diagnostics: "Error: e\n", Changes: changes},
			"changed isolator \"a\": as it was -> another config\n", "Error: e\nmezzo: the rest has not changed\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if err := (&cli{out: &out, err: &errs}).showReload(test.answer); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.out || errs.String() != test.err {
				t.Errorf("printed %q and %q, want %q and %q", out.String(), errs.String(), test.out, test.err)
			}
		})
	}
}
