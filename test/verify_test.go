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
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := mezzo(t, nil, "plugin", "verify", path)
			if r.code != 0 || !strings.Contains(r.stdout, " 0 failed, 0 skipped") {
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
