package scaffold_test

import (
	"bytes"
	"go/format"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/scaffold"
)

var kinds = []pluginv1.Kind{plugin.Allocator, plugin.Isolator, plugin.Framework}

// checkout is this repository.
func checkout(t *testing.T) scaffold.SDK {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return scaffold.SDK{Dir: dir, GoMod: read(t, filepath.Join(dir, "go.mod")), GoSum: read(t, filepath.Join(dir, "go.sum"))}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func files(t *testing.T, p scaffold.Plugin) map[string]string {
	t.Helper()
	list, err := scaffold.Files(p)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, f := range list {
		if i > 0 && list[i-1].Path >= f.Path {
			t.Errorf("%s comes after %s", f.Path, list[i-1].Path)
		}
		out[f.Path] = string(f.Data)
	}
	return out
}

func TestFilesAreThePluginsOwn(t *testing.T) {
	for _, kind := range kinds {
		for _, name := range []string{"x", "a-rather-long-name-of-a-plugin", "2nd"} {
			got := files(t, scaffold.Plugin{Kind: kind, Name: name, SDK: checkout(t)})
			for _, path := range []string{".gitignore", "Makefile", "README.md", "conformance_test.go", "go.mod", "go.sum", "main.go", "settings.go", name + ".hcl"} {
				if got[path] == "" {
					t.Errorf("%s %q has no %s; it has %v", plugin.KindName(kind), name, path, slices.Sorted(maps.Keys(got)))
				}
			}
			binary := plugin.BinaryName(kind, name)
			for _, path := range []string{"Makefile", "README.md", name + ".hcl", "go.mod"} {
				if !strings.Contains(got[path], binary) {
					t.Errorf("%s does not speak of %s:\n%s", path, binary, got[path])
				}
			}
			for path, text := range got {
				for _, stray := range []string{"plugin-name", "plugin_name", "plugin-kind"} {
					if strings.Contains(text, stray) {
						t.Errorf("%s %q: %s still speaks of %s", plugin.KindName(kind), name, path, stray)
					}
				}
				if filepath.Ext(path) != ".go" {
					continue
				}
				if formatted, err := format.Source([]byte(text)); err != nil || !bytes.Equal(formatted, []byte(text)) {
					t.Errorf("%s %q: %s is not formatted (%v)", plugin.KindName(kind), name, path, err)
				}
			}
		}
	}
}

// A module of a checkout needs what the checkout needs, as far as its packages
// are imported, and in the same versions.
func TestModuleOfACheckout(t *testing.T) {
	sdk := checkout(t)
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./sdk/...")
	list.Dir = sdk.Dir
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for path := range strings.FieldsSeq(string(out)) {
		if path != "golang.org/x/mod" { // which only the generator needs
			want = append(want, path)
		}
	}
	slices.Sort(want)
	want = slices.Compact(want)
	theirs, err := modfile.Parse("go.mod", sdk.GoMod, nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{scaffold.SDKModule: "v0.0.0"}
	for _, r := range theirs.Require {
		versions[r.Mod.Path] = r.Mod.Version
	}
	for _, kind := range kinds {
		got := files(t, scaffold.Plugin{Kind: kind, Name: "x", Module: "example.com/team/x", SDK: sdk})
		f, err := modfile.Parse("go.mod", []byte(got["go.mod"]), nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Module.Mod.Path != "example.com/team/x" || f.Go.Version != theirs.Go.Version || len(f.Replace) != 1 || f.Replace[0].New.Path != sdk.Dir {
			t.Errorf("go.mod is\n%s", got["go.mod"])
		}
		var needs []string
		for _, r := range f.Require {
			needs = append(needs, r.Mod.Path)
			if r.Mod.Version != versions[r.Mod.Path] {
				t.Errorf("it needs %s in version %s, the checkout in %s", r.Mod.Path, r.Mod.Version, versions[r.Mod.Path])
			}
			if r.Mod.Path != scaffold.SDKModule && !strings.Contains(got["go.sum"], r.Mod.Path+" "+r.Mod.Version+" h1:") {
				t.Errorf("go.sum has no checksum of %s", r.Mod.Path)
			}
		}
		slices.Sort(needs)
		if diff := cmp.Diff(want, needs); diff != "" {
			t.Errorf("the modules that it needs (-want +got):\n%s", diff)
		}
	}
}

func TestModuleOfAPublishedSDK(t *testing.T) {
	theirs, err := modfile.Parse("go.mod", checkout(t).GoMod, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := files(t, scaffold.Plugin{Kind: plugin.Allocator, Name: "x", SDK: scaffold.SDK{Version: "v0.1.0"}})
	want := "module mezzo-allocator-x\n\ngo " + theirs.Go.Version + "\n\nrequire " + scaffold.SDKModule + " v0.1.0\n"
	if diff := cmp.Diff(want, got["go.mod"]); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
	if sum, known := got["go.sum"]; known {
		t.Errorf("there is a go.sum: %q", sum)
	}
}

func TestWhatCannotBe(t *testing.T) {
	good := scaffold.SDK{Version: "v0.1.0"}
	for name, test := range map[string]struct {
		plugin scaffold.Plugin
		says   string
	}{
		"no kind":             {scaffold.Plugin{Name: "x", SDK: good}, "want allocator, isolator or framework"},
		"no name":             {scaffold.Plugin{Kind: plugin.Allocator, SDK: good}, `"" is not the name of a plugin`},
		"upper case":          {scaffold.Plugin{Kind: plugin.Allocator, Name: "Fair", SDK: good}, "lower-case letters"},
		"a path":              {scaffold.Plugin{Kind: plugin.Allocator, Name: "../x", SDK: good}, "lower-case letters"},
		"a hyphen at the end": {scaffold.Plugin{Kind: plugin.Allocator, Name: "x-", SDK: good}, "single hyphens between"},
		"a bad module":        {scaffold.Plugin{Kind: plugin.Allocator, Name: "x", Module: "a b", SDK: good}, `"a b" cannot be the path of a Go module`},
		"no SDK":              {scaffold.Plugin{Kind: plugin.Allocator, Name: "x"}, "the version of the SDK"},
		"another checkout":    {scaffold.Plugin{Kind: plugin.Allocator, Name: "x", SDK: scaffold.SDK{Dir: "/elsewhere", GoMod: []byte("module other\n")}}, "/elsewhere is no checkout of"},
		"a broken checkout":   {scaffold.Plugin{Kind: plugin.Allocator, Name: "x", SDK: scaffold.SDK{Dir: "/elsewhere", GoMod: []byte("modul\n")}}, "/elsewhere/go.mod:1"},
	} {
		if got, err := scaffold.Files(test.plugin); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %d files, %v; want that it says %s", name, len(got), err, test.says)
		}
	}
}
