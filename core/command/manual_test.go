package command

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/command-line.md anew")

const referencePage = "../../docs/command-line.md"

// docs/command-line.md is what the verbs say of themselves. Its difference in a
// review is what changes for users and, under "With --json", for programs.
func TestReference(t *testing.T) {
	want := reference(newCLI().root())
	if *update {
		if err := os.WriteFile(referencePage, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: go test ./core/command -run TestReference -update, and look at what changes for users", referencePage)
	}
}

// What the environment says is nobody's documentation.
func TestReferenceIsTheSameEverywhere(t *testing.T) {
	here := reference(newCLI().root())
	for _, name := range []string{"MEZZO_ADDRESS", "MEZZO_TLS_CA", "MEZZO_TLS_CERT", "MEZZO_TLS_KEY"} {
		t.Setenv(name, "elsewhere:1")
	}
	if !bytes.Equal(here, reference(newCLI().root())) {
		t.Error("the page differs with MEZZO_ADDRESS set")
	}
}

// Every verb has a page that man can read: no line is lost, none is taken for a
// request.
func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	out, errOut, code := invoke(t, "man", dir)
	if code != 0 || !strings.Contains(out, "manual pages are in") {
		t.Fatalf("%d: %s%s", code, out, errOut)
	}
	root := newCLI().root()
	for _, cmd := range visible(root) {
		if cmd.IsAdditionalHelpTopicCommand() {
			continue
		}
		page := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1")
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			request, _, _ := strings.Cut(line, " ")
			if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.Contains(" .TH .SH .TP .nf .fi .nh .ad ", " "+request+" ") {
				t.Errorf("%s: %q", page, line)
			}
		}
		for _, want := range []string{".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", escaped(cmd.Short)} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s: %q is missing", page, want)
			}
		}
	}
	if groff, err := exec.LookPath("groff"); err == nil {
		if text, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-Wbreak", "-z", filepath.Join(dir, "mezzo-run.1")).CombinedOutput(); err != nil || len(text) > 0 {
			t.Errorf("groff says: %v %s", err, text)
		}
	}
}
