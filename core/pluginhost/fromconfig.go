package pluginhost

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// FromConfig returns the Spec of a plugin block. The caller adds the callbacks.
// Errors about the plugin's configuration hold hcl.Diagnostics (errors.As), for
// config.WriteDiagnostics to show with the operator's lines.
func FromConfig(p config.Plugin, pluginDir string) Spec {
	kind, _ := plugin.KindOf(p.Kind) // package config knows no other
	spec := Spec{
		Kind:     kind,
		Name:     p.Name,
		Path:     p.Binary(pluginDir),
		Checksum: p.Checksum,
		LogLevel: p.LogLevel,
		Configure: func(schema *pluginv1.Schema) ([]byte, error) {
			data, diags := config.DecodePlugin(p, schema)
			if diags.HasErrors() {
				return nil, diags
			}
			return data, nil
		},
		MapDiagnostics: func(schema *pluginv1.Schema, complaints []*pluginv1.Diagnostic) error {
			return config.PluginDiagnostics(p, schema, complaints)
		},
	}
	if (p.DefRange != hcl.Range{}) {
		spec.Place = p.DefRange.String()
	}
	return spec
}

// Differs says why what a configuration's block describes is not what the
// instance runs; empty: it is. path and checksum are those of the Spec that it
// was started with, given is what Configure was told last: it is compared, not
// what is written, since a comment is no change, and a file that the
// configuration reads may be one.
func (i *Instance) Differs(block config.Plugin, pluginDir, path, checksum string, given []byte) string {
	next := block.Binary(pluginDir)
	generation := i.Current()
	switch {
	case next != path:
		return "another file: " + next
	case block.Checksum != checksum:
		return "another checksum"
	case generation == nil:
		return "it does not run now"
	}
	if sum, err := Checksum(next); err != nil || sum != generation.Checksum {
		return "the file is another"
	}
	config, diags := config.DecodePlugin(block, generation.Description.GetSchema())
	if diags.HasErrors() || !bytes.Equal(config, given) {
		return "another config"
	}
	return ""
}
