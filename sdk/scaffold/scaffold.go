// Package scaffold writes the beginnings of plugins: small, whole Go modules that
// build, pass their tests and the conformance suite, and do something useful.
// `mezzo plugin new` is its command line.
//
// The sources are those of the programs in the folders beside this file, which
// the repository builds and tests like any other; only the names are others.
package scaffold

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

//go:embed allocator isolator framework common
var sources embed.FS

// What stands in the sources in place of the plugin's own.
const (
	sourceName = "plugin-name"
	sourceWord = "plugin_name"
	sourceKind = "plugin-kind"
)

// Plugin is what is to be begun.
type Plugin struct {
	Kind pluginv1.Kind
	// Name is what HCL is to use; see plugin.ValidName.
	Name string
	// Module is the path of the Go module; empty: the name of the binary.
	Module string
	// SDK is where the module finds Mezzo's.
	SDK SDK
}

// File is one file of a module.
type File struct {
	Path string // relative, with slashes
	Data []byte
}

// Files returns the files of the module, in the order of their paths. An error
// says which part of the plugin cannot be so.
func Files(p Plugin) ([]File, error) {
	kind := plugin.KindName(p.Kind)
	if kind == "unknown" {
		return nil, fmt.Errorf("a plugin of no kind: want allocator, isolator or framework")
	}
	if !plugin.ValidName(p.Name) {
		return nil, fmt.Errorf("%q is not the name of a plugin: %s", p.Name, plugin.NameForm)
	}
	if p.Module == "" {
		p.Module = plugin.BinaryName(p.Kind, p.Name)
	}
	names := strings.NewReplacer(sourceName, p.Name, sourceWord, strings.ReplaceAll(p.Name, "-", "_"), sourceKind, kind)
	own, err := read(kind)
	if err != nil {
		return nil, err
	}
	common, err := read("common")
	if err != nil {
		return nil, err
	}
	own[".gitignore"] = common["gitignore"]
	own["Makefile"] = common["Makefile"]
	own["README.md"] += common["README.md"]
	files := map[string][]byte{}
	for name, text := range own {
		files[names.Replace(name)] = []byte(names.Replace(text))
	}
	if files["go.mod"], files["go.sum"], err = p.module(own); err != nil {
		return nil, err
	}
	return sorted(files), nil
}

// read returns the files of one folder of the sources.
func read(folder string) (map[string]string, error) {
	entries, err := fs.ReadDir(sources, folder)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, entry := range entries {
		text, err := fs.ReadFile(sources, path.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		files[entry.Name()] = string(text)
	}
	return files, nil
}
