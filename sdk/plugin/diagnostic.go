package plugin

import (
	"fmt"
	"strings"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Diagnostic is a complaint about one place of a plugin's configuration. The
// host shows it with file, line and column of what the operator wrote.
type Diagnostic struct {
	// Warning makes it advice; otherwise it is an error, and the plugin is not
	// used.
	Warning bool
	// Summary is a few words with no full stop: "unknown controller".
	Summary string
	// Detail is whole sentences: what is wrong, and what would be right.
	Detail string
	// Path leads to the place: attribute and block names from the top of the
	// config block; the index of a repeated block or a list element as a decimal
	// number. Empty: the config block as a whole.
	Path []string
}

// Errorf returns an error at path, which has dots between its steps ("" is the
// whole block): Errorf("unknown controller", "controllers.2", "%q is not …", c).
func Errorf(summary, path, format string, args ...any) Diagnostic {
	d := Diagnostic{Summary: summary, Detail: fmt.Sprintf(format, args...)}
	if path != "" {
		d.Path = strings.Split(path, ".")
	}
	return d
}

// Warningf is Errorf for advice.
func Warningf(summary, path, format string, args ...any) Diagnostic {
	d := Errorf(summary, path, format, args...)
	d.Warning = true
	return d
}

// String is for logs and tests: "error: controllers.2: unknown controller: …".
func (d Diagnostic) String() string {
	word := "error"
	if d.Warning {
		word = "warning"
	}
	parts := []string{word}
	if len(d.Path) > 0 {
		parts = append(parts, strings.Join(d.Path, "."))
	}
	parts = append(parts, d.Summary)
	if d.Detail != "" {
		parts = append(parts, d.Detail)
	}
	return strings.Join(parts, ": ")
}

// Failed says whether an error is among the diagnostics.
func Failed(ds []Diagnostic) bool {
	for _, d := range ds {
		if !d.Warning {
			return true
		}
	}
	return false
}

// Validator is what a configuration struct, or the struct of a block inside it,
// may implement. Validate is called after decoding and sees defaults filled in;
// paths are relative to the struct. It must have no effect: `mezzo config
// check` calls it too.
type Validator interface {
	Validate() []Diagnostic
}

func toProto(ds []Diagnostic) []*pluginv1.Diagnostic {
	out := make([]*pluginv1.Diagnostic, 0, len(ds))
	for _, d := range ds {
		severity := pluginv1.Severity_SEVERITY_ERROR
		if d.Warning {
			severity = pluginv1.Severity_SEVERITY_WARNING
		}
		out = append(out, &pluginv1.Diagnostic{Severity: severity, Summary: d.Summary, Detail: d.Detail, Path: d.Path})
	}
	return out
}
