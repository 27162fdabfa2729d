package pluginhost

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketsFit: however deep a data directory lies, the longest name that a
// plugin's socket may get is one that the kernel takes.
func TestSocketsFit(t *testing.T) {
	const longest = "/p4294967295/plugin-dir4294967295/plugin4294967295"
	for length := 40; length < 80; length++ {
		base := t.TempDir()
		if length <= len(base)+1 {
			continue
		}
		s, err := openSocketDir(filepath.Join(base, strings.Repeat("d", length-len(base)-1)))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(s.path + longest); n > 107 {
			t.Errorf("a data directory of %d bytes: sockets of %d", length, n)
		}
		s.close()
	}
}
