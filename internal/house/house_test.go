// Package house holds the tests that guard how the repository is built: who may
// import whom, and which packages must stay pure.
package house

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/mezzo-os/mezzo"

// pure packages decide and do no I/O: the simulator and every scenario test
// stand on it.
var pure = []string{"core/master/state", "core/agent/state", "core/agent/containerinfo", "core/secret", "core/ledger", "core/operation", "sdk/allocator/engine", "sdk/allocator/model"}

// heavy modules may not reach a plugin author through the SDK.
var heavy = []string{
	"github.com/hashicorp/hcl", "github.com/zclconf/go-cty", "go.etcd.io/bbolt", "github.com/spf13/cobra",
	"github.com/prometheus/", "github.com/containerd/", "github.com/go-zookeeper/", "go.opentelemetry.io/",
}

type pkg struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	GoFiles                            []string
}

func (p pkg) short() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,GoFiles", module+"/...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		imports := append(append(append([]string(nil), p.Imports...), p.TestImports...), p.XTestImports...)
		for _, imported := range imports {
			own := strings.HasPrefix(imported, module+"/")
			short := strings.TrimPrefix(imported, module+"/")
			from := p.short()
			switch {
			case short == "internal/recorded" && !slices.Contains(p.Imports, imported): // of tests, whatever they test
			case own && below(from, "plugins") && !below(short, "sdk") && !below(short, "plugins"):
				t.Errorf("%s imports %s: plugins see the sdk and nothing else of Mezzo", from, short)
			case own && below(from, "plugins") && below(short, "plugins") && !below(short, "plugins/internal") && plugin(from) != plugin(short):
				t.Errorf("%s imports %s: plugins do not see each other, only what they share in plugins/internal", from, short)
			case own && below(from, "sdk") && !below(short, "sdk"):
				t.Errorf("%s imports %s: the sdk sees only itself", from, short)
			case own && below(from, "core") && below(short, "plugins"):
				t.Errorf("%s imports %s: the core never sees a plugin", from, short)
			}
		}
		if below(p.short(), "sdk") {
			for _, imported := range p.Imports {
				for _, h := range heavy {
					if strings.HasPrefix(imported, h) {
						t.Errorf("%s imports %s: the sdk stays light for plugin authors", p.short(), imported)
					}
				}
			}
		}
	}
}

// plugin is the plugin that a package below plugins/ belongs to.
func plugin(short string) string { return strings.Join(strings.SplitN(short, "/", 3)[:2], "/") }

func TestPurePackages(t *testing.T) {
	found := 0
	for _, p := range packages(t) {
		if !isPure(p.short()) {
			continue
		}
		found++
		for _, imported := range p.Imports {
			switch {
			case imported == "net", strings.HasPrefix(imported, "net/"), imported == "os", strings.HasPrefix(imported, "os/"),
				imported == "syscall", imported == "io/fs", imported == "golang.org/x/sys/unix",
				strings.HasPrefix(imported, "google.golang.org/grpc"):
				t.Errorf("%s imports %s: it must do no I/O", p.short(), imported)
			}
		}
		for _, name := range p.GoFiles {
			checkPureFile(t, filepath.Join(p.Dir, name))
		}
	}
	if found < len(pure) {
		t.Errorf("found %d of the %d pure packages %v", found, len(pure), pure)
	}
}

func isPure(short string) bool {
	for _, p := range pure {
		if short == p {
			return true
		}
	}
	return false
}

// checkPureFile reports every use of the clock, of a goroutine and of global
// randomness.
func checkPureFile(t *testing.T, path string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s: a pure package starts no goroutine", fset.Position(n.Pos()))
		case *ast.SelectorExpr:
			id, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			call := id.Name + "." + n.Sel.Name
			switch call {
			case "time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker", "time.AfterFunc", "time.Tick",
				"rand.Int", "rand.Intn", "rand.IntN", "rand.Float64", "rand.Shuffle", "rand.Perm", "rand.Read":
				t.Errorf("%s: %s: a pure package takes time and chance as inputs", fset.Position(n.Pos()), call)
			}
		}
		return true
	})
}
