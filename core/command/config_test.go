package command

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/config"
)

// What is wrong with a configuration, for programs: the whole of it on standard
// output, with its places, and nothing in words.
func TestConfigCheckJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "master.hcl")
	check := func(text string) (found []config.Finding, code int) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut, code := invoke(t, "config", "check", "--json", file)
		if err := json.Unmarshal([]byte(out), &found); err != nil || errOut != "" {
			t.Fatalf("%v: %s%s", err, out, errOut)
		}
		return found, code
	}
	found, code := check("data_dir = \"/d\"\nmaster {\n  offer_timeot = \"5m\"\n}\nmaster {\n}\n")
	want := []config.Finding{
		{Severity: "error", Summary: "Unsupported argument", File: file, Line: 3, Column: 3},
		{Severity: "error", Summary: "Duplicate master block", File: file, Line: 5, Column: 1, OtherFile: file, OtherLine: 2, OtherColumn: 1},
	}
	for i := range found {
		if found[i].Detail == "" {
			t.Errorf("%+v has no detail", found[i])
		}
		found[i].Detail = ""
	}
	if diff := cmp.Diff(want, found); diff != "" || code != 1 {
		t.Errorf("%d (-want +got):\n%s", code, diff)
	}
	// What a plugin has to say has the place of its block. There is none beside this test.
	found, code = check("master {\n}\nallocator \"drf\" {\n}\n")
	if len(found) != 2 || code != 1 || found[0].Severity != "warning" || found[1].Line != 3 || !strings.Contains(found[1].Summary, `allocator "drf"`) || !strings.Contains(found[1].Detail, "mezzo-allocator-drf") {
		t.Errorf("%d, %+v", code, found)
	}
}

// Ctrl-C is no complaint about the configuration.
func TestConfigCheckInterrupted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "master.hcl")
	if err := os.WriteFile(file, []byte("data_dir = \"/d\"\nmaster {\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	if code := run(ctx, []string{"config", "check", "--json", file}, strings.NewReader(""), &out, &errOut); code != exitInterrupted || out.String() != "" || errOut.String() != "mezzo: interrupted\n" {
		t.Errorf("%d, %s%s", code, &out, &errOut)
	}
}
