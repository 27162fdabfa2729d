package command

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// commandLine runs one command line, and returns what it printed.
func commandLine(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestPluginNewWritesAModule(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir", "new")
	code, out, errOut := commandLine(t, "plugin", "new", "fair-gpus", "--kind", "allocator", "--dir", dir, "--module", "example.com/fair")
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	for _, want := range []string{filepath.Join(dir, "main.go") + "\n", "cd '" + dir + "'\n", "go mod tidy", "make test", "make verify", "make dev"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.Contains(string(mod), "module example.com/fair\n") || !strings.Contains(string(mod), "require github.com/mezzo-os/mezzo v0") {
		t.Errorf("go.mod: %v\n%s", err, mod)
	}
}

func TestPluginNewWithACheckout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	code, out, errOut := commandLine(t, "plugin", "new", "x", "--kind", "isolator", "--dir", dir, "--sdk", "../..")
	if code != 0 || errOut != "" || strings.Contains(out, "go mod tidy") {
		t.Fatalf("exit %d: %s\n%s", code, errOut, out)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(text), "google.golang.org/grpc v") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// What is there is left alone, and then nothing is written at all.
func TestPluginNewOverwritesNothing(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "main.go")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := commandLine(t, "plugin", "new", "x", "--kind", "framework", "--dir", dir)
	if code != 1 || out != "" || !strings.Contains(errOut, mine) || !strings.Contains(errOut, "nothing was written") {
		t.Errorf("exit %d: %s\n%s", code, errOut, out)
	}
	left, err := os.ReadDir(dir)
	text, _ := os.ReadFile(mine)
	if err != nil || len(left) != 1 || string(text) != "mine" {
		t.Errorf("there are %v (%v), and main.go is %q", left, err, text)
	}
	// A directory with other things in it will do.
	if err := os.Rename(mine, filepath.Join(dir, "notes")); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := commandLine(t, "plugin", "new", "x", "--kind", "framework", "--dir", dir); code != 0 {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

func TestPluginNewRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"x"}, 2, "give --kind allocator"},
		{[]string{"x", "--kind", "scheduler"}, 2, "--kind scheduler: there are allocator, isolator and framework"},
		{[]string{"Fair_GPUs", "--kind", "allocator"}, 2, "lower-case letters and digits"},
		{[]string{"../x", "--kind", "allocator"}, 2, "lower-case letters and digits"},
		{[]string{"--kind", "allocator"}, 2, ""},
		{[]string{"x", "--kind", "allocator", "--sdk", filepath.Dir(dir)}, 1, "is no checkout of Mezzo"},
		{[]string{"x", "--kind", "allocator", "--module", "no module"}, 1, `"no module" cannot be the path of a Go module`},
	} {
		code, out, errOut := commandLine(t, append([]string{"plugin", "new", "--dir", dir}, test.args...)...)
		if code != test.code || out != "" || !strings.Contains(errOut, test.says) {
			t.Errorf("%v: exit %d, %q; want %d and %q\n%s", test.args, code, errOut, test.code, test.says, out)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("something was written")
	}
}

func TestPluginNewJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	_, out, errOut := commandLine(t, "plugin", "new", "x", "--kind", "isolator", "--dir", dir, "--sdk", "../..", "--json")
	var got begunPlugin
	if err := json.Unmarshal([]byte(out), &got); err != nil || errOut != "" {
		t.Fatalf("%v: %s%s", err, out, errOut)
	}
	if got.Kind != "isolator" || got.Name != "x" || got.Dir != dir || !slices.Contains(got.Files, filepath.Join(dir, "main.go")) || got.Next[0] != "cd "+dir {
		t.Errorf("%+v", got)
	}
}
