package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunDiskQuota: where the operator has asked for it, a task that writes more
// than its disk ends, and is told why.
func TestRunDiskQuota(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "agent.hcl")
	if err := os.WriteFile(file, []byte("agent {\n  enforce_disk = true\n  disk_watch_interval = \"1s\"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startDev(t, "--config", file)
	r := c.mezzo("run", "--disk", "4", "--", "sh", "-c", "head -c 20000000 /dev/zero > big; sleep 1000")
	if r.code == 0 || !strings.Contains(r.stderr, "Disk usage") || !strings.Contains(r.stderr, "exceeds quota (4096 KiB)") {
		t.Errorf("%+v", r)
	}
	if r := c.mezzo("run", "--disk", "4", "--", "sh", "-c", "head -c 2000000 /dev/zero > small; sleep 3"); r.code != 0 {
		t.Errorf("within its disk: %+v", r)
	}
}
