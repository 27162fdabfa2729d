package perf

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenFails: what is not counted takes nothing from what may be.
func TestOpenFails(t *testing.T) {
	s := &Set{events: events[:2], cpus: []int{0, 1}, limit: 3}
	if _, err := s.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "its 4 counters") {
		t.Errorf("beyond the limit: %v", err)
	}
	s.limit = 4
	if _, err := s.Open(filepath.Join(t.TempDir(), "gone")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no cgroup: %v", err)
	}
	if _, err := s.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "count cycles on processor 0") {
		t.Errorf("a directory that is no cgroup: %v", err)
	}
	if n := s.inUse.Load(); n != 0 {
		t.Errorf("%d descriptors are held to be in use", n)
	}
}

func TestNothingToCount(t *testing.T) {
	c, err := (&Set{cpus: []int{0}}).Open("/nowhere")
	if c != nil || err != nil || c.Read() != nil {
		t.Errorf("%v, %v", c, err)
	}
	c.Close()
}
