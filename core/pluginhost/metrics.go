package pluginhost

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Numbers are what a plugin tells by mezzo.plugin.v1.Plugin/Metrics: its own
// word, which nobody has checked yet. They are shared, and not to be changed.
type Numbers struct {
	// Plugin is its identity, "allocator/drf"; Generation is the process.
	Plugin     string
	Generation uint64
	// Logger is named like the plugin.
	Logger   hclog.Logger
	Families []*pluginv1.MetricFamily
	// Err is why there are none; nil.
	Err error
}

// Numbers asks the plugins that run for their own metrics, all at once, and
// returns within Options.MetricsTimeout what they told, ordered by kind and
// name. Those that do not serve metrics are not in it. Of two with one identity
// the one that is to be replaced is asked.
func (h *Host) Numbers() []Numbers {
	var out []*Numbers
	var asked sync.WaitGroup
	last := ""
	for _, i := range h.Instances() {
		g := i.Current()
		if g == nil || i.spec.ID() == last {
			continue
		}
		last = i.spec.ID()
		n := &Numbers{Plugin: last, Generation: g.Number, Logger: i.logger}
		out = append(out, n)
		asked.Go(func() { n.Families, n.Err = g.numbers.get(g, h.options.MetricsTimeout) })
	}
	asked.Wait()
	var told []Numbers
	for _, n := range out {
		if !errors.Is(n.Err, errNoMetrics) {
			told = append(told, *n)
		}
	}
	return told
}

// errNoMetrics says that a process does not serve metrics.
var errNoMetrics = errors.New("it serves no metrics")

// errLate says that a process is left alone for a while.
var errLate = status.Error(codes.DeadlineExceeded, "it was too late lately")

// numbers asks one process. There is one call at a time, whose answer is for all
// who asked meanwhile: so many who ask cost no more than one, and a plugin that
// asks its host for metrics while it is asked itself gets no further than that.
// One that hangs is asked ever less often: each call may leave something behind
// in it.
type numbers struct {
	mu   sync.Mutex
	none bool // it does not serve them
	call *numbersCall

	late  int       // calls in a row that were not answered in time
	until time.Time // it is not asked before
}

// latePause is how long a process is left alone that was late so many times in a
// row, from 1.
func latePause(late int, timeout time.Duration) time.Duration {
	return min(10*timeout<<min(late-1, 10), 300*timeout)
}

type numbersCall struct {
	done     chan struct{} // closed when what follows is there
	families []*pluginv1.MetricFamily
	err      error
}

func (n *numbers) get(g *Generation, timeout time.Duration) ([]*pluginv1.MetricFamily, error) {
	n.mu.Lock()
	switch {
	case n.none:
		n.mu.Unlock()
		return nil, errNoMetrics
	case time.Now().Before(n.until):
		n.mu.Unlock()
		return nil, errLate
	}
	call := n.call
	if call != nil {
		n.mu.Unlock()
		<-call.done
		return call.families, call.err
	}
	call = &numbersCall{done: make(chan struct{})}
	n.call = call
	n.mu.Unlock()

	ctx, cancel := context.WithTimeout(g.ctx, timeout)
	defer cancel()
	answer, err := g.process.base.Metrics(ctx, &pluginv1.MetricsRequest{}, grpc.MaxCallRecvMsgSize(metric.MaxAnswer))
	call.families, call.err = answer.GetFamilies(), err
	n.mu.Lock()
	defer n.mu.Unlock()
	switch status.Code(err) {
	case codes.Unimplemented:
		n.none, call.err = true, errNoMetrics
	case codes.DeadlineExceeded:
		n.late++
		n.until = time.Now().Add(latePause(n.late, timeout))
	default:
		n.late = 0
	}
	n.call = nil
	close(call.done)
	return call.families, call.err
}
