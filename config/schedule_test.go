package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func readSchedule(t *testing.T, text string) ([]MaintenanceWindow, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "schedule.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	windows, file, diags := ReadSchedule(path)
	return windows, DiagnosticText(file, diags)
}

// What is written of a schedule is read again as it was.
func TestScheduleRoundTrip(t *testing.T) {
	want := []MaintenanceWindow{
		{Machines: []Machine{{"node1", ""}, {"", "10.0.0.7"}, {"node2", "fe80::1"}}, Start: time.Date(2026, 12, 1, 22, 0, 0, 5e6, time.UTC), Duration: 90 * time.Minute},
		{Machines: []Machine{{"node3", ""}}, Start: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	got, complaints := readSchedule(t, string(FormatSchedule(want)))
	if complaints != "" {
		t.Fatal(complaints)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, complaints := readSchedule(t, ""); len(got) != 0 || complaints != "" {
		t.Errorf("an empty schedule: %v, %s", got, complaints)
	}
}

// Every error is found, with its place.
func TestScheduleErrors(t *testing.T) {
	_, complaints := readSchedule(t, `
window {
  machines = ["a", "A", "b c", "d@e"]
  start    = "tomorrow"
  duration = "-1h"
}
window {
  machines = []
  start    = "2026-12-01T22:00:00Z"
}
window {}
windows {}
`)
	for _, want := range []string{
		`schedule.hcl:3,15`, "Duplicate machine A", `"b c" is not a machine`, "behind the @", `"tomorrow" is not a time`, "duration",
		"for one machine at least", `"machines" is required`, `"start" is required`, "windows",
	} {
		if !strings.Contains(complaints, want) {
			t.Errorf("nothing of %q in:\n%s", want, complaints)
		}
	}
}
