package scaffold

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// SDKModule is the module that holds Mezzo's SDK.
const SDKModule = "github.com/mezzo-os/mezzo"

// goVersion is the oldest Go that the SDK builds with.
const goVersion = "1.26.6"

// needed are the modules that the SDK's packages and the sources need. A module
// of Go lists them all, those that it does not import itself, too.
var needed = []string{
	"github.com/creack/pty", "github.com/fatih/color", "github.com/golang/protobuf", "github.com/hashicorp/go-hclog",
	"github.com/hashicorp/go-plugin", "github.com/hashicorp/yamux", "github.com/mattn/go-colorable", "github.com/mattn/go-isatty",
	"github.com/oklog/run", "github.com/opencontainers/runtime-spec", "golang.org/x/net", "golang.org/x/sys", "golang.org/x/text",
	"google.golang.org/genproto/googleapis/rpc", "google.golang.org/grpc", "google.golang.org/protobuf",
}

// SDK says where a module finds Mezzo's SDK: in a checkout, or published.
type SDK struct {
	// Version is a published version, such as v0.1.0. What else the module needs
	// `go mod tidy` finds out.
	Version string
	// Dir is the absolute path of a checkout; empty: there is none. GoMod and
	// GoSum are the files there: the module needs the same versions, and then
	// neither network nor `go mod tidy`.
	Dir          string
	GoMod, GoSum []byte
}

// module returns go.mod, and go.sum where it is known (it is nil otherwise).
func (p Plugin) module(sources map[string]string) (mod, sum []byte, err error) {
	if err := module.CheckImportPath(p.Module); err != nil {
		return nil, nil, fmt.Errorf("%q cannot be the path of a Go module: %w", p.Module, err)
	}
	f := &modfile.File{Syntax: &modfile.FileSyntax{}}
	if err := f.AddModuleStmt(p.Module); err != nil {
		return nil, nil, err
	}
	if p.SDK.Dir == "" {
		if err := module.Check(SDKModule, p.SDK.Version); err != nil {
			return nil, nil, fmt.Errorf("the version of the SDK: %w", err)
		}
		if err := f.AddGoStmt(goVersion); err != nil {
			return nil, nil, err
		}
		f.AddNewRequire(SDKModule, p.SDK.Version, false)
		return modfile.Format(f.Syntax), nil, nil
	}
	return p.fromCheckout(f, sources)
}

// fromCheckout writes a module that uses the SDK of a checkout.
func (p Plugin) fromCheckout(f *modfile.File, sources map[string]string) (mod, sum []byte, err error) {
	theirs, err := modfile.Parse(filepath.Join(p.SDK.Dir, "go.mod"), p.SDK.GoMod, nil)
	switch {
	case err != nil:
		return nil, nil, err
	case !filepath.IsAbs(p.SDK.Dir):
		return nil, nil, fmt.Errorf("the checkout %q: want an absolute path", p.SDK.Dir)
	case theirs.Module == nil || theirs.Module.Mod.Path != SDKModule:
		return nil, nil, fmt.Errorf("%s is no checkout of %s: its go.mod is of another module", p.SDK.Dir, SDKModule)
	case theirs.Go == nil:
		return nil, nil, fmt.Errorf("%s/go.mod names no version of Go", p.SDK.Dir)
	}
	if err := f.AddGoStmt(theirs.Go.Version); err != nil {
		return nil, nil, err
	}
	const unpublished = "v0.0.0" // the replacement has no version
	requires := []*modfile.Require{{Mod: module.Version{Path: SDKModule, Version: unpublished}}}
	for _, r := range theirs.Require {
		if slices.Contains(needed, r.Mod.Path) {
			requires = append(requires, &modfile.Require{Mod: r.Mod, Indirect: !imports(sources, r.Mod.Path)})
		}
	}
	f.SetRequireSeparateIndirect(requires)
	if err := f.AddReplace(SDKModule, "", p.SDK.Dir, ""); err != nil {
		return nil, nil, err
	}
	f.Cleanup()
	return modfile.Format(f.Syntax), sums(p.SDK.GoSum, requires), nil
}

// imports says whether one of the sources imports a package of a module.
func imports(sources map[string]string, path string) bool {
	for name, text := range sources {
		if strings.HasSuffix(name, ".go") && (strings.Contains(text, `"`+path+`"`) || strings.Contains(text, `"`+path+`/`)) {
			return true
		}
	}
	return false
}

// sums are the lines of a go.sum that are about these modules.
func sums(all []byte, requires []*modfile.Require) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(all) {
		for _, r := range requires {
			if rest, of := bytes.CutPrefix(line, []byte(r.Mod.Path+" "+r.Mod.Version)); of && (rest[0] == ' ' || rest[0] == '/') {
				out.Write(line)
				break
			}
		}
	}
	return out.Bytes()
}

func sorted(files map[string][]byte) []File {
	var out []File
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if files[path] != nil {
			out = append(out, File{path, files[path]})
		}
	}
	return out
}
