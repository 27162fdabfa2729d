package isolator

import (
	"context"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Definition is what the host and its operator need to know of an isolator.
type Definition struct {
	// Name is what HCL uses: "cgroups" in `isolator "cgroups"`.
	Name string
	// Version is the plugin's own, for people.
	Version string
	// Summary is one sentence for lists and the manual.
	Summary string
	// Companions are programs that the isolator runs, installed beside it.
	Companions []string
	// NewConfig returns a pointer to a new configuration struct; see
	// plugin.SchemaOf. Nil: the plugin has no settings.
	NewConfig func() any
	// Configure is called once, before any container. With an error among the
	// diagnostics the plugin is not used.
	Configure func(ctx context.Context, config any, env plugin.Environment) []plugin.Diagnostic
	// Metrics are the plugin's own; see sdk/metric. Nil: it has none.
	Metrics *metric.Set
	// Shutdown is called when the host ends the plugin in good order.
	// Containers live on.
	Shutdown func(ctx context.Context)
}

// Plugin returns the plugin that serves i, for plugin.Serve, or for
// plugin.StartLocal in a test.
func Plugin(d Definition, i Isolator) plugin.Definition {
	capabilities := Capabilities(i)
	for _, c := range d.Companions {
		capabilities = append(capabilities, plugin.CompanionPrefix+c)
	}
	return plugin.Definition{
		Name: d.Name, Version: d.Version, Kind: plugin.Isolator, Summary: d.Summary,
		ContractVersions: []uint32{ContractVersion},
		Capabilities:     capabilities,
		NewConfig:        d.NewConfig,
		Configure:        d.Configure,
		Metrics:          d.Metrics,
		Shutdown:         d.Shutdown,
		Register: func(s grpc.ServiceRegistrar) {
			isolatorv1.RegisterIsolatorServer(s, NewServer(d.Name, i))
		},
	}
}

// Serve runs the plugin and returns when the host has ended it.
func Serve(d Definition, i Isolator) { plugin.Serve(Plugin(d, i)) }
