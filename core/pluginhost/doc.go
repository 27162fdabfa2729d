// Package pluginhost runs plugins: it finds a plugin's binary, verifies it,
// launches it, asks what it is, agrees on a contract version, configures it,
// watches it, and starts it again when it dies.
//
// Terms. A *plugin* is one block of the operator's configuration, such as
// `allocator "drf"`. An *Instance* is a plugin under supervision, for as long
// as the operator wants it. A *Generation* is one process of it, numbered from
// 1; when the process dies the instance starts the next.
//
// Life cycle. Host.Start takes a plugin through every step once. When a step
// fails, nothing is left running and the error, a *Error, names plugin, file,
// what happened and what to do. When all succeed, the instance is supervised:
// a process that exits, hangs or breaks its contract is replaced, after a pause
// that doubles from half a second to a minute, until Instance.Stop. The state
// at every moment is in Instance.Status.
//
// A plugin is replaced without a pause by an instance beside it: Host.Start with
// Spec.Replaces, and Instance.Stop of the one that is not wanted any more. So
// two processes may run under one identity for a while.
//
// The user of a plugin opens its streams in Spec.OnUp, once a generation, and
// gives up what it held in Spec.OnDown:
//
//	host, err := pluginhost.New(pluginhost.Options{Logger: log, DataDir: dir})
//	instance, err := host.Start(ctx, pluginhost.Spec{
//		Kind: plugin.Allocator, Name: "drf", Path: "/usr/lib/mezzo/plugins/mezzo-allocator-drf",
//		Configure: decodeHCL, MapDiagnostics: placeInHCL,
//		OnUp: func(ctx context.Context, g *pluginhost.Generation) {
//			stream, err := allocatorv1.NewAllocatorClient(g.Conn).Allocate(ctx)
//			…
//		},
//	})
//	defer host.Close(ctx)
package pluginhost
