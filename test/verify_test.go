package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every policy and isolator that is shipped or shown as an example keeps its
// contract. (The example in Node: TestAllocatorInNode.)
func TestPluginsKeepTheirContracts(t *testing.T) {
	t.Parallel()
	plugins, err := filepath.Glob(filepath.Join(bin, "plugins", "mezzo-*-*"))
	if err != nil || len(plugins) < 4 {
		t.Fatalf("the plugins are %v, %v", plugins, err)
	}
	for _, path := range plugins {
		name := filepath.Base(path)
		if name == "mezzo-allocator-broken" || name == "mezzo-allocator-faulty" {
			continue // wrong on purpose
		}
		if name == "mezzo-isolator-containerd" {
			continue // TestContainerdKeepsItsContract
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"plugin", "verify", path, "--patience", "1m"} // for a busy machine
			if adapter, is := strings.CutPrefix(name, "mezzo-framework-"); is {
				// Its own port may be in use.
				file := filepath.Join(tempDir(t), "master.hcl")
				text := fmt.Sprintf("framework %q {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n", adapter)
				if err := os.WriteFile(file, []byte("master {}\n"+text), 0o644); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--config", file)
			}
			r := mezzo(t, nil, args...)
			skipped := map[string]int{
				"mezzo-allocator-lottery": 1, // it does not revoke
				"mezzo-framework-cron":    2, // it does not serve at agents, nor metrics
				"mezzo-isolator-cgroups":  2, // it has no images
			}[name]
			if r.code != 0 || !strings.Contains(r.stdout, fmt.Sprintf(" 0 failed, %d skipped", skipped)) {
				t.Errorf("exit %d, stderr %s\n%s", r.code, r.stderr, r.stdout)
			}
		})
	}
}

// One that does not keep it is told what it did, line by line or for programs.
func TestVerifyTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	path := filepath.Join(bin, "plugins", "mezzo-allocator-broken")
	file := filepath.Join(tempDir(t), "master.hcl")
	write := func(fault string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, "allocator \"broken\" {\n  config {\n    fault = %q\n  }\n}\n", fault), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("ignores-suppression")
	r := mezzo(t, nil, "plugin", "verify", path, "--config", file, "--json")
	var report struct {
		Kind, Name string
		Checks     []struct {
			Name, Rule, Outcome string
			Evidence            []string
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 1 || report.Kind != "allocator" || report.Name != "broken" {
		t.Fatalf("exit %d, %v\n%s\n%s", r.code, err, r.stdout, r.stderr)
	}
	for _, c := range report.Checks {
		if (c.Outcome == "failed") != (c.Name == "suppression") {
			t.Errorf("%s (%s): %s %q", c.Name, c.Rule, c.Outcome, c.Evidence)
		}
		if c.Name == "suppression" && !strings.Contains(strings.Join(c.Evidence, "\n"), "the framework has suppressed the role") {
			t.Errorf("the evidence is %q", c.Evidence)
		}
	}

	write("nothing that there is")
	if r := mezzo(t, nil, "plugin", "verify", path, "--config", file); r.code != 1 || !strings.Contains(r.stdout, "unknown fault") || !strings.Contains(r.stdout, "FAIL  configure") {
		t.Errorf("a configuration that the plugin rejects: %+v", r)
	}
	if err := os.WriteFile(file, []byte("allocator \"other\" {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := mezzo(t, nil, "plugin", "verify", path, "--config", file); r.code != 1 || !strings.Contains(r.stderr, `declares no allocator "broken"`) {
		t.Errorf("a configuration of another plugin: %+v", r)
	}
	if err := os.WriteFile(file, []byte("allocator \"broken\" {\n  config {\n    flaw = 1\n  }\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := mezzo(t, nil, "plugin", "verify", path, "--config", file); r.code != 1 || !strings.Contains(r.stderr, "flaw") {
		t.Errorf("an attribute that there is not: %+v", r)
	}
	if r := mezzo(t, nil, "plugin", "verify", filepath.Join(bin, "mezzo")); r.code != 1 || r.stderr == "" {
		t.Errorf("a binary that is no plugin: %+v", r)
	}
}

// A check can be made alone, and what there is can be listed; a check that there
// is not is bad usage.
func TestVerifyFlags(t *testing.T) {
	t.Parallel()
	path := filepath.Join(bin, "plugins", "mezzo-allocator-drf")
	if r := mezzo(t, nil, "plugin", "verify", path, "--only", "ping,filters", "--patience", "1m"); r.code != 0 || !strings.Contains(r.stdout, "\n2 checks: 2 passed") {
		t.Errorf("--only: %+v", r)
	}
	if r := mezzo(t, nil, "plugin", "verify", path, "--only", "ping,filtres"); r.code != 2 || !strings.Contains(r.stderr, `no check "filtres"`) || r.stdout != "" {
		t.Errorf("--only of a check that there is not: %+v", r)
	}
	if r := mezzo(t, nil, "plugin", "verify", path, "--only", "ping", "--quiet"); r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Errorf("--quiet: %+v", r)
	}
	if r := mezzo(t, nil, "plugin", "verify", path, "--list"); r.code != 0 || !strings.Contains(r.stdout, "\nover-commit ") || !strings.HasPrefix(r.stdout, "describe ") {
		t.Errorf("--list: %+v", r)
	}
	for _, args := range [][]string{{"--quiet", "--json"}, {"--settle", "-1s"}, {"--settle", "soon"}, {"another"}} {
		if r := mezzo(t, nil, append([]string{"plugin", "verify", path}, args...)...); r.code != 2 {
			t.Errorf("%v: %+v, want exit status 2", args, r)
		}
	}
	broken := filepath.Join(bin, "plugins", "mezzo-allocator-broken")
	file := filepath.Join(tempDir(t), "master.hcl")
	if err := os.WriteFile(file, []byte("allocator \"broken\" {\n  config {\n    fault = \"ignores-filters\"\n  }\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := mezzo(t, nil, "plugin", "verify", broken, "--config", file, "--only", "ping,filters", "--quiet"); r.code != 1 || !strings.HasPrefix(r.stdout, "FAIL  filters") {
		t.Errorf("--quiet of what fails: %+v", r)
	}
}
