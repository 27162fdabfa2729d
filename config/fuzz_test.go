package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// FuzzLoad is that no text makes loading, resolving, decoding or printing
// panic, and that every error says something.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*.hcl", "testdata/*.json", "testdata/plugin/*.hcl", "testdata/plugin/*.json", "examples/*.hcl"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src, filepath.Ext(name) == ".json")
		}
	}
	schema := testSchema()
	complaint := []*pluginv1.Diagnostic{{Path: []string{"rule", "1", "order"}}, {Path: []string{"labels", "k"}}, {Path: []string{"words", "-1"}}}
	f.Fuzz(func(t *testing.T, src []byte, isJSON bool) {
		name := "main.hcl"
		if isJSON {
			name = "main.json"
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, src, 0o600); err != nil {
			t.Fatal(err)
		}
		file, diags := Load([]string{path})
		if !diags.HasErrors() {
			_, more := file.ForAgent(Defaults{})
			diags = append(diags, more...)
			master, more := file.ForMaster(Defaults{DataDir: "/d"})
			diags = append(diags, more...)
			if (master == nil) != more.HasErrors() {
				t.Errorf("master %v with %v", master, more)
			}
		}
		for _, p := range file.plugins() {
			_, more := DecodePlugin(*p, schema)
			diags = append(diags, more...)
			diags = append(diags, PluginDiagnostics(*p, schema, complaint)...)
		}
		for _, diag := range diags {
			if diag.Summary == "" {
				t.Errorf("a diagnostic without a summary: %+v", diag)
			}
		}
		for _, format := range []Format{{}, {Width: 10}, {Color: true}} {
			if err := WriteDiagnostics(&bytes.Buffer{}, file.Sources(), diags, format); err != nil {
				t.Error(err)
			}
		}
	})
}
