// Package adapter is what a master and an agent share of running framework
// adapters: a Set starts them in the plugin host, has each serve, supervises and
// reloads them, and knows where they listen; a Shelf keeps what they store.
//
// Terms. An adapter *serves* from its answer to Serve until its process is gone
// or is being stopped. A *Source* is the process of an adapter that a call comes
// from.
//
// Life cycle: New, Start with the blocks of the configuration, Reload whenever
// that has changed. The plugin host stops what runs.
//
//	set := adapter.New(adapter.Options{
//		Host: host, Side: framework.Master, Register: func(s grpc.ServiceRegistrar, from *adapter.Source) {
//			schedulerv1.RegisterSchedulerServer(s, …)
//		},
//		Up:   func(name string, serving *frameworkv1.ServeResponse) { … },
//		Down: func(name string) { … },
//	})
//	err := set.Start(ctx, config.Frameworks, config.PluginDir)
package adapter
