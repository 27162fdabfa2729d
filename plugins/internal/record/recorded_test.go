package record

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/mezzo-os/mezzo/internal/recorded"
)

// TestRecorded is that shims of earlier builds, which outlive the plugin that
// started them, are understood: each key means what it meant, in the form that it
// had. A key that is given another name is not found in what they wrote.
func TestRecorded(t *testing.T) {
	keys := constants(t)
	recorded.Check(t, recorded.Kind{Name: "record", Write: func(t *testing.T, dir string) {
		r := Record{{"key_of_later", "is left alone"}}
		for _, name := range slices.Sorted(maps.Keys(keys)) {
			r.Add(keys[name], name)
		}
		r.AddInt(Rows, -24)
		r.Add(Env, "TWICE=1")
		r.Add(Mount, Words("/with space", "new\nline", `quote"`, "", "\x00\xff"))
		if err := Write(filepath.Join(dir, ConfigFile), r, true); err != nil {
			t.Fatal(err)
		}
	}, Read: func(t *testing.T, dir string) any {
		r, err := Read(filepath.Join(dir, "config"))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]any{}
		for _, key := range keys {
			if r.Has(key) {
				out[key] = r.All(key)
			}
		}
		last := r.All(Mount)
		words, err := ParseWords(last[len(last)-1])
		if err != nil {
			t.Fatal(err)
		}
		out["words"] = words
		rows := r.All(Rows)
		out["number"], _ = strconv.Atoi(rows[len(rows)-1])
		out["files"] = []string{WallsFile, ConfigFile, ShimFile, StatusFile, DeadlinesFile, ControlSocket, GuestSocket}
		return out
	}})
}

// constants are the keys by their names in this package: the block that names the
// files comes after them.
func constants(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "record.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, d := range file.Decls {
		block, is := d.(*ast.GenDecl)
		if !is || block.Tok != token.CONST {
			continue
		}
		for _, s := range block.Specs {
			v := s.(*ast.ValueSpec)
			text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out[v.Names[0].Name] = text
		}
		break
	}
	if len(out) < 50 {
		t.Fatalf("only %d keys were found", len(out))
	}
	return out
}
