package pluginhost

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// answers is a plugin's client whose Metrics takes so long.
type answers struct {
	pluginv1.PluginClient
	takes time.Duration
	err   error
	calls int
}

func (a *answers) Metrics(ctx context.Context, _ *pluginv1.MetricsRequest, _ ...grpc.CallOption) (*pluginv1.MetricsResponse, error) {
	a.calls++
	select {
	case <-time.After(a.takes):
		if a.err != nil {
			return nil, a.err
		}
		return &pluginv1.MetricsResponse{Families: []*pluginv1.MetricFamily{{Name: "x"}}}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func asked(a *answers) *Generation {
	return &Generation{ctx: context.Background(), process: &process{base: a}}
}

// Many who ask at once are one call.
func TestNumbersAreAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{takes: time.Second / 2}
		g := asked(a)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if got, err := g.numbers.get(g, time.Second); err != nil || len(got) != 1 {
					t.Errorf("%v %v", got, err)
				}
			})
		}
		all.Wait()
		if a.calls != 1 {
			t.Errorf("%d calls", a.calls)
		}
		if g.numbers.get(g, time.Second); a.calls != 2 {
			t.Errorf("%d calls after another", a.calls)
		}
	})
}

// A process that serves none is not asked again.
func TestNumbersThatAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{err: status.Error(codes.Unimplemented, "no")}
		g := asked(a)
		for range 3 {
			if _, err := g.numbers.get(g, time.Second); err != errNoMetrics {
				t.Errorf("error %v", err)
			}
		}
		if a.calls != 1 {
			t.Errorf("%d calls", a.calls)
		}
	})
}

// One that is late is left alone, longer each time, and asked as ever when it is
// in time again.
func TestNumbersThatAreLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{takes: time.Hour}
		g := asked(a)
		ask := func(calls int, code codes.Code) {
			t.Helper()
			if _, err := g.numbers.get(g, time.Second); status.Code(err) != code || a.calls != calls {
				t.Errorf("%d calls, %v; want %d, %v", a.calls, err, calls, code)
			}
		}
		began := time.Now()
		ask(1, codes.DeadlineExceeded)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		time.Sleep(9 * time.Second)
		ask(1, codes.DeadlineExceeded)
		time.Sleep(time.Second)
		ask(2, codes.DeadlineExceeded)
		time.Sleep(19 * time.Second)
		ask(2, codes.DeadlineExceeded)
		a.takes = 0
		time.Sleep(time.Second)
		ask(3, codes.OK)
		ask(4, codes.OK)
		a.takes = time.Hour
		ask(5, codes.DeadlineExceeded)
		time.Sleep(10 * time.Second)
		ask(6, codes.DeadlineExceeded)
		if got := latePause(1000, time.Second); got != 5*time.Minute {
			t.Errorf("the longest pause is %v", got)
		}
	})
}
