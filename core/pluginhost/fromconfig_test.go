package pluginhost

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/config"
)

// TestFromConfig runs a plugin from the operator's file, and finds the
// operator's lines in its complaints.
func TestFromConfig(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		name, config string
		want         []string // of the diagnostics; none: it starts
	}{
		{"good", `greeting = "good day"`, nil},
		{"unknown attribute", `greetings = "good day"`, []string{"master.hcl line 4, column 5", `greetings = "good day"`, `Did you mean "greeting"?`}},
		{"wrong type", `wait = "soon"`, []string{"master.hcl line 4, column 12", "wait must be a duration"}},
		{"plugin validates", `greeting = ""`, []string{"allocator/test: empty greeting", "master.hcl line 4, column 16", "Say something."}},
		{"plugin refuses", "refuse = true", []string{"allocator/test: bad greeting", "master.hcl line 3, column 3", "It is not said here. (About greeting, which is not written here.)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(r.dataDir, "master.hcl")
			r.write(path, []byte("master {}\nallocator \"test\" {\n  config {\n    "+c.config+"\n  }\n}\n"), 0o644)
			file, diags := config.Load([]string{path})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			master, diags := file.ForMaster(config.Defaults{DataDir: r.dataDir, Executable: filepath.Join(r.dataDir, "mezzo")})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			spec := FromConfig(*master.Allocator, filepath.Dir(r.bin))
			if spec.Path != r.bin || !strings.Contains(spec.Place, "master.hcl:2,1-") {
				t.Errorf("path %q, place %q", spec.Path, spec.Place)
			}
			err := Check(r.context(), spec, Options{})
			if c.name == "plugin refuses" { // more than it can know without effect
				if err != nil {
					t.Errorf("check: %v", err)
				}
				_, err = r.host.Start(r.context(), spec)
			}
			if len(c.want) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.As(err, &diags) {
				t.Fatalf("no hcl.Diagnostics in %v", err)
			}
			var out bytes.Buffer
			if err := config.WriteDiagnostics(&out, file.Sources(), diags, config.Format{}); err != nil {
				t.Fatal(err)
			}
			wantAll(t, out.String(), c.want)
		})
	}
}

func wantAll(t *testing.T, text string, parts []string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("lacks %q:\n%s", part, text)
		}
	}
}
