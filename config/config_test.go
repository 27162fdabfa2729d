package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// write makes a file in a directory of the test's own.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError is that a diagnostic's summary and detail hold the words.
func wantError(t *testing.T, diags hcl.Diagnostics, words string) {
	t.Helper()
	for _, diag := range diags {
		if diag.Severity == hcl.DiagError && strings.Contains(diag.Summary+": "+diag.Detail, words) {
			return
		}
	}
	t.Errorf("no error says %q in %v", words, diags)
}

func TestLoadUnreadable(t *testing.T) {
	_, diags := Load([]string{filepath.Join(t.TempDir(), "absent.hcl")})
	wantError(t, diags, "There is no file or directory")

	_, diags = Load([]string{write(t, "large.hcl", strings.Repeat("#", maxFileSize+1))})
	wantError(t, diags, "larger than")
}

// The parsers recurse; a source that nests without end must not end the process.
func TestLoadNestedTooDeeply(t *testing.T) {
	deep := 400_000
	for name, src := range map[string]string{
		"brackets.hcl":    "a = " + strings.Repeat("[", deep),
		"parentheses.hcl": "a = " + strings.Repeat("(", deep),
		"blocks.hcl":      strings.Repeat("a {\n", deep/2),
		"not.hcl":         "a = " + strings.Repeat("!", deep),
		"minus.hcl":       "a = " + strings.Repeat("- ", deep),
		"templates.hcl":   "a = " + strings.Repeat(`"${`, deep/2),
		"brackets.json":   strings.Repeat("[", deep),
		"objects.json":    strings.Repeat(`{"a":`, deep/4),
	} {
		_, diags := Load([]string{write(t, name, src)})
		if !diags.HasErrors() || diags[0].Summary != "Nested too deeply" {
			t.Errorf("%s: %v", name, diags)
		}
	}
	// These the bracket count does not see; the parser must bear them.
	for name, src := range map[string]string{
		"conditions.hcl": "a = " + strings.Repeat("b?", deep/2),
		"chain.hcl":      "a = " + strings.Repeat("b?c:", deep/2),
		"additions.hcl":  "a = 1" + strings.Repeat("+1", deep/2),
	} {
		_, diags := Load([]string{write(t, name, src)})
		if !diags.HasErrors() {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLoadSameFileTwice(t *testing.T) {
	path := write(t, "main.hcl", "data_dir = \"d\"\nmaster {}\n")
	file, diags := Load([]string{path, filepath.Dir(path)})
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if diff := cmp.Diff([]string{path}, file.Paths()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadNothing(t *testing.T) {
	file, diags := Load(nil)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	master, diags := file.ForMaster(Defaults{Executable: "/opt/bin/mezzo", DataDir: "/data"})
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if got := master.Allocator.Binary(master.PluginDir); got != "/opt/bin/plugins/mezzo-allocator-drf" {
		t.Errorf("allocator is %s", got)
	}
	if _, diags := file.ForAgent(Defaults{}); !diags.HasErrors() {
		t.Error("no data directory, and no error")
	}
}

func TestForTheOtherProcess(t *testing.T) {
	file, _ := Load([]string{write(t, "agent.hcl", "data_dir = \"d\"\nallocator \"drf\" {}\nagent {}\n")})
	master, diags := file.ForMaster(Defaults{})
	if master != nil {
		t.Error("an agent's configuration made a master")
	}
	wantError(t, diags, "This configuration is for an agent.")
	if _, diags := file.ForAgent(Defaults{}); len(diags) != 1 || diags[0].Severity != hcl.DiagWarning {
		t.Errorf("want one warning of the unused allocator, got %v", diags)
	}
	file, _ = Load([]string{write(t, "master.hcl", "data_dir = \"d\"\nmaster {}\n")})
	_, diags = file.ForAgent(Defaults{})
	wantError(t, diags, "This configuration is for a master.")
}

// What is resolved belongs to the caller: a change must not reach the next one.
func TestResolvedIsACopy(t *testing.T) {
	file, _ := Load([]string{write(t, "a.hcl", "data_dir = \"d\"\nmaster {}\nagent {}\nrole \"a\" {}\nallocator \"drf\" {}\nframework \"mesos\" {}\n")})
	ignore := cmpopts.IgnoreInterfaces(struct{ hcl.Body }{})
	first, _ := file.ForMaster(Defaults{})
	want, _ := file.ForMaster(Defaults{})
	first.Roles[0].Name, first.Allocator.Name, first.Frameworks[0].Name = "x", "x", "x"
	got, _ := file.ForMaster(Defaults{})
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Error(diff)
	}
	agent, _ := file.ForAgent(Defaults{})
	agent.Masters[0], agent.Frameworks[0].Name = "x", "x"
	if again, _ := file.ForAgent(Defaults{}); again.Masters[0] == "x" || again.Frameworks[0].Name == "x" {
		t.Error("a change of one agent's configuration reached another")
	}
}

func TestRoleQuantities(t *testing.T) {
	r := Role{Guarantee: "mem:10; cpus:1.5", Limit: "gpus:0"}
	want := []resource.Quantity{{Name: "cpus", Amount: 1500}, {Name: "mem", Amount: 10000}}
	if diff := cmp.Diff(want, r.GuaranteeQuantities()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]resource.Quantity{{Name: "gpus"}}, r.LimitQuantities()); diff != "" {
		t.Errorf("a limit of zero is not no limit: %s", diff)
	}
}

func TestWriteLock(t *testing.T) {
	sum := func(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }
	entries := []LockEntry{
		{Kind: KindIsolator, Name: "cgroups", Path: `/opt/a "b"/${x}`, Checksum: sum("1")},
		{Kind: KindAllocator, Name: "drf", Checksum: sum("2")},
	}
	path := write(t, LockName, "an older one")
	if err := WriteLock(path, entries); err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "lock.golden"), string(src))

	got, diags := ReadLock(path)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	want := []LockEntry{entries[1], entries[0]}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(LockEntry{}, "Range")); diff != "" {
		t.Error(diff)
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Errorf("WriteLock left files behind: %v", left)
	}
	if err := WriteLock(filepath.Join(t.TempDir(), "no", "such", LockName), entries); err == nil {
		t.Error("no error about a directory that is not there")
	}
}

func TestLockPath(t *testing.T) {
	file := write(t, "main.hcl", "")
	dir := filepath.Dir(file)
	for _, path := range []string{file, dir} {
		if got, want := LockPath(path), filepath.Join(dir, LockName); got != want {
			t.Errorf("LockPath(%s) = %s, want %s", path, got, want)
		}
	}
}

func TestLockFilesDisagree(t *testing.T) {
	lock := func(digit string) string {
		path := write(t, "main.hcl", "")
		err := WriteLock(LockPath(path), []LockEntry{{Kind: KindAllocator, Name: "drf", Checksum: "sha256:" + strings.Repeat(digit, 64)}})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, diags := Load([]string{lock("1"), lock("2")})
	wantError(t, diags, "Checksums disagree")
}

func TestBrokenSchema(t *testing.T) {
	p := Plugin{Kind: KindAllocator, Name: "drf", Body: hcl.EmptyBody()}
	_, diags := DecodePlugin(p, &pluginv1.Schema{Attributes: []*pluginv1.Attribute{{Name: "a", Type: pluginv1.Type_TYPE_STRING, DefaultJson: "{"}}})
	wantError(t, diags, "Report this to the plugin's author")

	file, _ := Load([]string{write(t, "a.hcl", "allocator \"drf\" {\n config {\n a = 1\n }\n}\n")})
	_, diags = DecodePlugin(*file.allocator, &pluginv1.Schema{Attributes: []*pluginv1.Attribute{{Name: "a", Type: 99}}})
	wantError(t, diags, "its type is not known")
}

// A plugin without a schema takes an empty block, and nothing else.
func TestNoSchema(t *testing.T) {
	got, diags := DecodePlugin(Plugin{Kind: KindAllocator, Name: "drf", Body: hcl.EmptyBody()}, nil)
	if string(got) != "{}" || len(diags) > 0 {
		t.Errorf("%s, %v", got, diags)
	}
	file, _ := Load([]string{write(t, "a.hcl", "allocator \"drf\" {\n config {\n a = 1\n }\n}\n")})
	_, diags = DecodePlugin(*file.allocator, nil)
	wantError(t, diags, "Unsupported argument")
}

func TestWriteDiagnosticsFormats(t *testing.T) {
	src := []byte("x = \"" + strings.Repeat("a", 100) + "\" # \x1b[31m\xff end\n")
	sources := map[string]*hcl.File{"f.hcl": {Bytes: src}}
	at := hcl.Range{Filename: "f.hcl",
		Start: hcl.Pos{Line: 1, Column: 5, Byte: 4}, End: hcl.Pos{Line: 1, Column: 107, Byte: 106}}
	end := hcl.Range{Filename: "f.hcl",
		Start: hcl.Pos{Line: 1, Column: 116, Byte: len(src) - 4}, End: hcl.Pos{Line: 2, Column: 1, Byte: len(src)}}
	off := hcl.Range{Filename: "f.hcl", Start: hcl.Pos{Line: 9, Column: 1, Byte: 9999}}
	other := hcl.Range{Filename: "gone.hcl", Start: hcl.Pos{Line: 3, Column: 1, Byte: 9}}
	diags := hcl.Diagnostics{
		invalid(at, "Long", "%s", strings.Repeat("many words ", 10)),
		invalid(end, "At the end", ""),
		invalid(off, "Off the file", "Detail."),
		invalid(other, "Not at hand", "Detail."),
		{Severity: hcl.DiagWarning, Summary: "No place"},
	}
	var out bytes.Buffer
	for _, f := range []Format{{}, {Width: 40}, {Width: 1}, {Width: 40, Color: true}} {
		if err := WriteDiagnostics(&out, sources, diags, f); err != nil {
			t.Fatal(err)
		}
	}
	if bytes.ContainsRune(bytes.ReplaceAll(out.Bytes(), []byte("\x1b["), nil), 0x1b) || strings.Contains(out.String(), "# \x1b") {
		t.Error("an escape sequence of the source reached the terminal")
	}
	golden(t, filepath.Join("testdata", "formats.golden"), out.String())
}

// A data directory that the caller names takes with it what lies there by
// default, and nothing that the file places elsewhere.
func TestCallersDataDir(t *testing.T) {
	file, _ := Load([]string{write(t, "both.hcl", "data_dir = \"/file\"\nmaster {}\nagent {}\n")})
	master, _ := file.ForMaster(Defaults{DataDir: "/flag"})
	agent, _ := file.ForAgent(Defaults{DataDir: "/flag"})
	got := []string{master.DataDir, master.Registry.File, agent.DataDir, agent.WorkDir}
	if diff := cmp.Diff([]string{"/flag", "/flag/registry.db", "/flag", "/flag/work"}, got); diff != "" {
		t.Errorf("the caller's directory (-want +got):\n%s", diff)
	}
	file, _ = Load([]string{write(t, "both.hcl", "data_dir = \"/file\"\nmaster {}\nagent { work_dir = \"/work\" }\nregistry \"bbolt\" { file = \"/db\" }\n")})
	master, _ = file.ForMaster(Defaults{DataDir: "/flag"})
	agent, _ = file.ForAgent(Defaults{DataDir: "/flag"})
	if master.Registry.File != "/db" || agent.WorkDir != "/work" {
		t.Errorf("what the file places elsewhere: %s, %s", master.Registry.File, agent.WorkDir)
	}
}
