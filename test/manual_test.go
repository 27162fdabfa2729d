package test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the plugins' tables of docs/configuration.md (with TestManualPluginTables)")

// The tables of plugins' settings in the manual are what the plugins say of
// themselves: each stands between two comments, the first of which is the command
// that prints it.
func TestManualPluginTables(t *testing.T) {
	t.Parallel()
	const page = "../docs/configuration.md"
	src, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	place := regexp.MustCompile(`(?s)<!-- mezzo plugin inspect --markdown (mezzo-[a-z0-9-]+) -->\n.*?<!-- end -->`)
	text := place.ReplaceAllStringFunc(string(src), func(now string) string {
		name := place.FindStringSubmatch(now)[1]
		seen[name] = true
		r := mezzo(t, nil, "plugin", "inspect", "--markdown", filepath.Join(bin, "plugins", name))
		if r.code != 0 || r.stderr != "" {
			t.Errorf("plugin inspect of %s: %+v", name, r)
			return now
		}
		first, _, _ := strings.Cut(now, "\n")
		return first + "\n\n" + r.stdout + "\n<!-- end -->"
	})
	folders, err := filepath.Glob("../plugins/*-*")
	if err != nil || len(folders) == 0 {
		t.Fatalf("no plugins: %v", err)
	}
	for _, folder := range folders {
		if name := "mezzo-" + filepath.Base(folder); !seen[name] {
			t.Errorf("%s has no settings of %s", page, name)
		}
	}
	switch {
	case t.Failed() || text == string(src):
	case *update:
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the plugins say; make generate writes it:\n%s", page, cmp.Diff(string(src), text))
	}
}

// Tab completes in bash, also where the package bash-completion is not installed.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	script := `set -u; PATH=$1:$PATH; source <(mezzo completion bash)
COMP_LINE=$2; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_WORDS=(); COMP_CWORD=0
__start_mezzo && printf '%s\n' "${COMPREPLY[@]}"`
	for typed, want := range map[string]string{
		"mezzo agent dra":             "drain",
		"mezzo help agent dra":        "drain",
		"mezzo top --by ":             "agents",
		"mezzo run --instan":          "--instances",
		"mezzo completion b":          "bash",
		"mezzo plugin new --kind all": "allocator",
	} {
		cmd := exec.Command("bash", "--norc", "-c", script, "bash", bin, typed)
		text, err := cmd.Output() // beside it, that it is not really completing
		if first, _, _ := strings.Cut(string(text), "\n"); err != nil || strings.TrimSpace(first) != want {
			t.Errorf("%q is completed with %s, %v; want %s", typed, text, err, want)
		}
	}
}
