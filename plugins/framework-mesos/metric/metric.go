// Package metric tells the numbers of a master or an agent under the names that
// Mesos gives them, at /metrics/snapshot. Every name that tools read is there from
// the first answer on, as 0 when there is nothing to count.
package metric

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// defaultTimeout bounds an answer when the client says nothing.
const defaultTimeout = 10 * time.Second

// Numbers are metrics by name.
type Numbers map[string]float64

// Source collects numbers. What it cannot learn within ctx it leaves at 0.
type Source interface {
	Numbers(ctx context.Context) Numbers
}

// List returns the numbers as the operator API tells them, sorted by name.
func List(ctx context.Context, from Source) []*mezzov1.Metric {
	numbers := from.Numbers(ctx)
	out := make([]*mezzov1.Metric, 0, len(numbers))
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		out = append(out, &mezzov1.Metric{Name: proto.String(name), Value: proto.Float64(numbers[name])})
	}
	return out
}

// Register has a server tell the numbers at /metrics/snapshot.
func Register(s *transport.Server, from Source) {
	s.Handle("metrics", "/snapshot", transport.Endpoint{Realm: transport.ReadOnly, Serve: func(w http.ResponseWriter, r *http.Request) {
		if failure := transport.MayView(r); failure != nil {
			failure.Write(w)
			return
		}
		timeout := defaultTimeout
		if text := r.URL.Query().Get("timeout"); text != "" {
			var err error
			if timeout, err = legacy.ParseDuration(text); err != nil {
				transport.Fail(w, http.StatusBadRequest, "Invalid timeout '"+text+"': "+err.Error()+".\n")
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		numbers := from.Numbers(ctx)
		legacy.Answer(w, r, func(j *legacy.JSON) {
			j.Object(func() {
				for _, name := range slices.Sorted(maps.Keys(numbers)) {
					j.Key(name).Float(numbers[name])
				}
			})
		})
	}})
}

// zeros puts names in that a tool may ask for before there is anything to count.
// Braces hold alternatives: "a_{b,c}".
func (n Numbers) zeros(names string) {
	for name := range strings.FieldsSeq(names) {
		for _, one := range alternatives(name) {
			n[one] += 0
		}
	}
}

func alternatives(name string) []string {
	before, rest, found := strings.Cut(name, "{")
	if !found {
		return []string{name}
	}
	inner, after, _ := strings.Cut(rest, "}")
	var out []string
	for one := range strings.SplitSeq(inner, ",") {
		out = append(out, alternatives(before+one+after)...)
	}
	return out
}

// quantiles are those that a timer tells.
var quantiles = []struct {
	name string
	of   float64
}{{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"p9999", 0.9999}}

// timer tells a distribution of seconds in milliseconds: its mean under the name
// itself. Quantiles are as exact as its buckets.
func (n Numbers) timer(name string, m *operatorv1.Metric) {
	const ms = 1000
	n[name], n[name+"/count"] = 0, float64(m.GetCount())
	if m.GetCount() > 0 {
		n[name] = m.GetValue() / float64(m.GetCount()) * ms
	}
	n[name+"/min"], n[name+"/max"] = quantile(m, 0)*ms, quantile(m, 1)*ms
	for _, q := range quantiles {
		n[name+"/"+q.name] = quantile(m, q.of) * ms
	}
}

// quantile is the value that a share of what was observed does not exceed, as if
// values lay evenly within each bucket.
func quantile(m *operatorv1.Metric, of float64) float64 {
	rank := of * float64(m.GetCount())
	below, lower := 0.0, 0.0
	for _, b := range m.GetBuckets() {
		upper, within := b.GetUpperBound(), float64(b.GetCount())
		if within > below && within >= rank {
			if math.IsInf(upper, 1) {
				return lower
			}
			return lower + (upper-lower)*max(0, rank-below)/(within-below)
		}
		below, lower = within, upper
	}
	return lower // above the last bucket, or nothing was observed
}

// system tells the numbers of the machine.
func (n Numbers) system() {
	for _, x := range legacy.System() {
		name := strings.TrimPrefix(x.Name, "avg_")
		n["system/"+name] = x.Value
	}
}

// resources sums up resources by name, those that may be revoked apart.
type resources struct{ plain, revocable map[string]float64 }

func newResources() resources {
	return resources{plain: map[string]float64{}, revocable: map[string]float64{}}
}

func (r resources) add(list []*mezzov1.Resource) {
	for _, x := range list {
		if x.GetType() != mezzov1.Value_SCALAR {
			continue
		}
		if x.GetRevocable() != nil {
			r.revocable[x.GetName()] += x.GetScalar().GetValue()
		} else {
			r.plain[x.GetName()] += x.GetScalar().GetValue()
		}
	}
}

// shares tells what there is and how much of it is used, under a prefix.
func (n Numbers) shares(prefix string, total, used resources) {
	for _, name := range []string{"cpus", "gpus", "mem", "disk"} {
		n.share(prefix+name, total.plain[name], used.plain[name])
		n.share(prefix+name+"_revocable", total.revocable[name], used.revocable[name])
	}
}

func (n Numbers) share(name string, total, used float64) {
	n[name+"_total"], n[name+"_used"], n[name+"_percent"] = round(total), round(used), 0
	if total > 0 {
		n[name+"_percent"] = math.Round(used/total*1e6) / 1e6
	}
}

func round(v float64) float64 { return math.Round(v*1000) / 1000 }

// old is a word as Mesos spelt it in its metrics: agents were slaves.
func old(word string) string { return strings.ReplaceAll(word, "agent", "slave") }
