package config

import (
	"fmt"
	"regexp"

	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

var (
	// The plugin's own, then those of its companion programs by name; see
	// docs/decisions/002-companion-checksum.md.
	checksumForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}(,[A-Za-z0-9_][A-Za-z0-9._-]*=sha256:[0-9a-f]{64})*$`)
	pluginSchema = schema(pluginAttributes, "config")
)

// plugins reads the plugin blocks of a kind, in the order written.
func (d *decoder) plugins(blocks hcl.Blocks, kind string) (list []Plugin) {
	for _, block := range blocks {
		if block.Type != kind {
			continue
		}
		list = append(list, d.plugin(block))
	}
	d.distinct(list, nil)
	return list
}

// allocator reads the one allocator; nil when none is written.
func (d *decoder) allocator(blocks hcl.Blocks) *Plugin {
	var first *Plugin
	for _, block := range blocks {
		if block.Type != KindAllocator {
			continue
		}
		p := d.plugin(block)
		if first != nil {
			d.add(duplicate(p.DefRange, first.DefRange, "allocator block", "A master has exactly one allocator."))
			continue
		}
		first = &p
	}
	return first
}

func (d *decoder) plugin(block *hcl.Block) Plugin {
	p := Plugin{Kind: block.Type, Name: block.Labels[0], Body: hcl.EmptyBody(), DefRange: block.DefRange}
	if !plugin.ValidName(p.Name) {
		d.add(invalid(block.LabelRanges[0], "Bad plugin name", "%q is not the name of a plugin: %s.", p.Name, plugin.NameForm))
	}
	s, blocks := d.content(block.Body, pluginSchema)
	s.path("path", &p.Path)
	s.oneOf("log_level", &p.LogLevel, logLevels...)
	if rng, ok := s.text("checksum", &p.Checksum); ok {
		p.ChecksumRange = rng
		if !checksumForm.MatchString(p.Checksum) {
			d.add(badChecksum(rng, p.Checksum))
		}
	}
	if config := d.single(blocks, "config"); config != nil {
		p.Body, p.ConfigRange = config.Body, config.DefRange
	}
	return p
}

func badChecksum(rng hcl.Range, text string) *hcl.Diagnostic {
	return invalid(rng, "Bad checksum", `%q is not a checksum; it must be "sha256:" and 64 hexadecimal digits in lower case, as sha256sum prints them.`, text)
}

// distinct complains about plugins that stand twice among both lists together,
// unless they stand twice in the first alone. A plugin's kind and name are its
// one identity in logs, metrics and checkpoints.
func (d *decoder) distinct(list, more []Plugin) {
	seen := map[string]hcl.Range{}
	for i, p := range append(list[:len(list):len(list)], more...) {
		first, again := seen[p.ID()]
		switch {
		case !again:
			seen[p.ID()] = p.DefRange
		case more == nil || i >= len(list):
			d.add(duplicate(p.DefRange, first, fmt.Sprintf("%s %q", p.Kind, p.Name), "One process runs a plugin once."))
		}
	}
}
