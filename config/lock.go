package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// LockEntry pins the binary of one plugin.
type LockEntry struct {
	Kind, Name string
	Path       string // the binary whose checksum was taken, for people
	Checksum   string // as in Plugin
	// Range is where the checksum stands; WriteLock ignores it.
	Range hcl.Range
}

// lockSchema is what a plugin block of a lock file holds.
var lockSchema = schema(lockAttributes)

// ReadLock reads a lock file.
func ReadLock(path string) ([]LockEntry, hcl.Diagnostics) {
	return (&File{sources: map[string]*hcl.File{}}).readLock(path)
}

func (f *File) readLock(path string) ([]LockEntry, hcl.Diagnostics) {
	parsed, diags := f.parse(path)
	if parsed == nil || diags.HasErrors() {
		return nil, diags
	}
	d := &decoder{diags: diags}
	root := &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "plugin", LabelNames: []string{"kind", "name"}}}}
	_, blocks := d.content(parsed.Body, root)
	var entries []LockEntry
	for _, block := range blocks {
		e := LockEntry{Kind: block.Labels[0], Name: block.Labels[1], Range: block.DefRange}
		if kinds := []string{KindAllocator, KindIsolator, KindFramework}; !slices.Contains(kinds, e.Kind) {
			d.add(invalid(block.LabelRanges[0], "Unknown kind of plugin", "%q is not a kind of plugin.%s", e.Kind, suggest(e.Kind, kinds)))
		}
		s, _ := d.content(block.Body, lockSchema)
		s.text("path", &e.Path)
		rng, ok := s.text("checksum", &e.Checksum)
		switch {
		case !ok:
			continue
		case !checksumForm.MatchString(e.Checksum):
			d.add(badChecksum(rng, e.Checksum))
			continue
		}
		e.Range = rng
		entries = append(entries, e)
	}
	return entries, d.diags
}

// applyLock gives every plugin the checksum that a lock file pins. The lock file
// and the plugin's block must not disagree, nor must two lock files.
func (f *File) applyLock(entries []LockEntry) hcl.Diagnostics {
	d := &decoder{}
	pinned := map[string]LockEntry{}
	for _, e := range entries {
		id := Plugin{Kind: e.Kind, Name: e.Name}.ID()
		first, again := pinned[id]
		switch {
		case !again:
			pinned[id] = e
		case first.Checksum != e.Checksum:
			d.add(conflict(e.Kind, e.Name, e.Range, first.Range))
		}
	}
	for _, p := range f.plugins() {
		e, ok := pinned[p.ID()]
		switch {
		case !ok:
		case p.Checksum == "":
			p.Checksum, p.ChecksumRange = e.Checksum, e.Range
		case p.Checksum != e.Checksum:
			d.add(conflict(p.Kind, p.Name, p.ChecksumRange, e.Range))
		}
	}
	f.pinned = pinned
	return d.diags
}

func conflict(kind, name string, here, there hcl.Range) *hcl.Diagnostic {
	diag := invalid(here, "Checksums disagree",
		"%s %q has another checksum at %s. Keep the right one; `mezzo plugin lock` writes those of the binaries that are installed.",
		kind, name, place(there))
	diag.Extra = otherPlace{there}
	return diag
}

// plugins gives every plugin that was written.
func (f *File) plugins() (list []*Plugin) {
	if f.allocator != nil {
		list = append(list, f.allocator)
	}
	for _, plugins := range [][]Plugin{f.isolators, f.frameworks, f.master.frameworks, f.agent.frameworks} {
		for i := range plugins {
			list = append(list, &plugins[i])
		}
	}
	return list
}

// byDefault is the plugin that runs when none is written, pinned like others.
func (f *File) byDefault(kind, name string) Plugin {
	p := Plugin{Kind: kind, Name: name, Body: hcl.EmptyBody()}
	if e, ok := f.pinned[p.ID()]; ok {
		p.Checksum, p.ChecksumRange = e.Checksum, e.Range
	}
	return p
}

// WriteLock writes a lock file, sorted by kind and name. The file appears whole
// or not at all.
func WriteLock(path string, entries []LockEntry) error {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b LockEntry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	file := hclwrite.NewEmptyFile()
	body := file.Body()
	body.AppendUnstructuredTokens(hclwrite.Tokens{{
		Type:  '#',
		Bytes: []byte("# Written by `mezzo plugin lock`: the checksums of the plugins' binaries.\n"),
	}})
	for _, e := range entries {
		body.AppendNewline()
		block := body.AppendNewBlock("plugin", []string{e.Kind, e.Name}).Body()
		if e.Path != "" {
			block.SetAttributeValue("path", cty.StringVal(e.Path))
		}
		block.SetAttributeValue("checksum", cty.StringVal(e.Checksum))
	}
	if err := replaceFile(path, file.Bytes()); err != nil {
		return fmt.Errorf("lock file %s was not written: %w", path, err)
	}
	return nil
}

// replaceFile puts the content in place of a file in one step.
func replaceFile(path string, content []byte) (err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".mezzo.lock-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = temp.Sync()
	}
	if closed := temp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}
