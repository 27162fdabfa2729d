// Package metric is for a plugin's own numbers: what it counts, the host shows
// at its /metrics, labelled with the plugin. What the host can see from outside
// (calls, their duration and errors, processor, memory, restarts) it counts by
// itself.
//
// An author declares what there is once, and gives the set to the definition of
// the plugin; from then on anybody may count, from any goroutine:
//
//	var (
//		metrics  = metric.NewSet()
//		lookups  = metrics.Counter("lookups_total", "Lookups in the price list, by what came of them.", "outcome")
//		duration = metrics.Histogram("lookup_seconds", "How long lookups took.", metric.Exponential(0.001, 4, 8))
//	)
//
//	lookups.Inc("found")
//	duration.Observe(time.Since(began).Seconds())
//
// An isolator "price" shows them as mezzo_isolator_lookups_total{plugin="isolator/price",outcome="found"}
// and so on. Names, labels and bounds follow the contract, mezzo.plugin.v1; a
// plugin whose families break it says so when it is started by hand, and does
// not serve.
package metric
