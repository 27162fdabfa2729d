// Package plugin is the ground that every Mezzo plugin stands on, whatever its
// kind. A plugin is a program of its own; a Mezzo process (the host) starts it,
// asks what it is, gives it its configuration, uses the service of its kind,
// and ends it.
//
// Most authors never call this package: sdk/allocator, sdk/isolator and
// sdk/framework each offer a Serve that does. What an author does use are
// configuration structs (see SchemaOf), Diagnostic, Health and Environment.
//
// Life cycle, as the plugin sees it: the host starts the process; Serve shakes
// hands; the host calls Describe, then Configure once; Definition.Configure
// runs; then the kind's own service is called; at the end Definition.Shutdown
// runs and the process exits. A plugin must expect SIGKILL at any moment, and
// it ends by itself, at once, when its host is gone. A program that it starts
// and that is to outlive it must not inherit its stderr, which nobody reads then.
//
// Example, a whole plugin without a kind package:
//
//	type Config struct {
//		Window time.Duration `hcl:"window" default:"1h" help:"How far back usage counts."`
//	}
//
//	func main() {
//		plugin.Serve(plugin.Definition{
//			Name: "fair", Version: "1.0.0", Kind: plugin.Allocator,
//			Summary:   "Shares by usage.",
//			NewConfig: func() any { return new(Config) },
//			Configure: func(ctx context.Context, cfg any, env plugin.Environment) []plugin.Diagnostic {
//				window = cfg.(*Config).Window
//				return nil
//			},
//			Register: func(s grpc.ServiceRegistrar) { allocatorv1.RegisterAllocatorServer(s, impl) },
//		})
//	}
package plugin

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// The kinds of plugin.
const (
	Allocator = pluginv1.Kind_KIND_ALLOCATOR
	Isolator  = pluginv1.Kind_KIND_ISOLATOR
	Framework = pluginv1.Kind_KIND_FRAMEWORK
)

// Definition is all that the host and its operator need to know of a plugin,
// and the functions that they drive it by.
type Definition struct {
	// Name is what HCL uses: "drf" in `allocator "drf"`; see ValidName. The
	// binary is called mezzo-<kind>-<name>.
	Name string
	// Version is the plugin's own version, for people. Required.
	Version string
	Kind    pluginv1.Kind
	// ContractVersions are the versions of the kind's contract that the plugin
	// serves. Empty: version 1.
	ContractVersions []uint32
	// Summary is one sentence for lists and the manual.
	Summary string
	// Capabilities name the optional parts of the contract that are served.
	// "companion:NAME" says that the plugin runs the program NAME, installed
	// beside its own binary; the host verifies it with the plugin.
	Capabilities []string

	// NewConfig returns a pointer to a new configuration struct; see SchemaOf.
	// Nil: the plugin has no settings.
	NewConfig func() any
	// Configure is called once, with what NewConfig returned, filled in and
	// valid (its Validate, if it has one, found no error). With an error among
	// the diagnostics the plugin is not used. Nil: nothing is to be done. ctx
	// ends with the host's patience; it is not for use after Configure.
	Configure func(ctx context.Context, config any, env Environment) []Diagnostic
	// Register registers the services of the plugin's kind. It is called once,
	// before Configure; the services are called only after it. Required.
	Register func(s grpc.ServiceRegistrar)
	// Metrics are the plugin's own numbers, which the host shows with its own; see
	// sdk/metric. Nil: it has none.
	Metrics *metric.Set
	// Shutdown finishes what was begun, within ctx. Nil: nothing is to be done.
	// It is not called when the process is killed or loses its host.
	Shutdown func(ctx context.Context)
}

// MaxMessageSize is the largest message, in bytes, on either end of a plugin
// connection. Nothing should depend on a message being anywhere near it.
const MaxMessageSize = 64 << 20

// CompanionPrefix is how a capability begins that names a companion program.
const CompanionPrefix = "companion:"

// KindName returns the word that HCL, binaries and logs use for a kind:
// "allocator", "isolator" or "framework"; "unknown" for any other.
func KindName(k pluginv1.Kind) string {
	switch k {
	case Allocator:
		return "allocator"
	case Isolator:
		return "isolator"
	case Framework:
		return "framework"
	}
	return "unknown"
}

// KindOf is the reverse of KindName; false when the word names no kind.
func KindOf(word string) (pluginv1.Kind, bool) {
	for _, k := range []pluginv1.Kind{Allocator, Isolator, Framework} {
		if KindName(k) == word {
			return k, true
		}
	}
	return pluginv1.Kind_KIND_UNSPECIFIED, false
}

// BinaryName returns the file name of a plugin: mezzo-<kind>-<name>.
func BinaryName(k pluginv1.Kind, name string) string {
	return "mezzo-" + KindName(k) + "-" + name
}

var validName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// NameForm says in words which names ValidName accepts.
const NameForm = "lower-case letters and digits, and single hyphens between them"

// ValidName reports whether a plugin may be called so: "drf", "my-policy".
func ValidName(name string) bool { return validName.MatchString(name) }

// versions returns the contract versions served, never empty.
func (d Definition) versions() []uint32 {
	if len(d.ContractVersions) == 0 {
		return []uint32{1}
	}
	return d.ContractVersions
}

// describe checks the definition and turns it into what the host is told.
func (d Definition) describe() (*pluginv1.Description, error) {
	switch {
	case !ValidName(d.Name):
		return nil, fmt.Errorf("plugin definition: name %q: want %s", d.Name, NameForm)
	case KindName(d.Kind) == "unknown":
		return nil, fmt.Errorf("plugin definition %q: kind %v: want Allocator, Isolator or Framework", d.Name, d.Kind)
	case d.Version == "":
		return nil, fmt.Errorf("plugin definition %q: no version", d.Name)
	case d.Register == nil:
		return nil, fmt.Errorf("plugin definition %q: Register is nil, so it would serve nothing", d.Name)
	}
	for _, c := range d.Capabilities {
		if n, ok := strings.CutPrefix(c, CompanionPrefix); ok && (n == "" || strings.ContainsAny(n, "/\\,= ") || strings.HasPrefix(n, ".")) {
			return nil, fmt.Errorf("plugin definition %q: companion %q: want the bare name of a file beside the plugin", d.Name, n)
		}
	}
	if d.Metrics != nil {
		if err := d.Metrics.Err(); err != nil {
			return nil, fmt.Errorf("plugin definition %q: %w", d.Name, err)
		}
	}
	out := &pluginv1.Description{
		Name:             d.Name,
		Version:          d.Version,
		Kind:             d.Kind,
		ContractVersions: d.versions(),
		Capabilities:     d.Capabilities,
		Summary:          d.Summary,
		Schema:           &pluginv1.Schema{},
	}
	if d.NewConfig != nil {
		schema, err := SchemaOf(d.NewConfig())
		if err != nil {
			return nil, fmt.Errorf("plugin definition %q: %w", d.Name, err)
		}
		out.Schema = schema
	}
	return out, nil
}
