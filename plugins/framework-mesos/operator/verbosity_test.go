package operator_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror/mirrortest"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
)

// E.1 SET_LOGGING_LEVEL: the core logs more for so long, and so does the adapter.
func TestVerbosity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, own := &mirrortest.LogLevels{}, hclog.New(&hclog.LoggerOptions{Level: hclog.Warn})
		v := operator.NewVerbosity(core, own)
		defer v.Close()
		for _, c := range []struct {
			level    uint32
			duration time.Duration
			name     string
			own      hclog.Level
		}{{3, time.Minute, "trace", hclog.Trace}, {1, time.Nanosecond, "debug", hclog.Debug}, {1, 0, "debug", hclog.Debug}, {0, time.Minute, "", hclog.Warn}} {
			if failure := v.Set(context.Background(), c.level, int64(c.duration)); failure != nil {
				t.Fatal(failure.Text)
			}
			asked := core.Asked()
			q := asked[len(asked)-1]
			if got, failure := v.Level(context.Background()); failure != nil || got != c.level || q.GetLevel() != c.name || own.GetLevel() != c.own {
				t.Errorf("%d is %d, %v in the core and %v here: %v", c.level, got, q, own.GetLevel(), failure)
			}
			if wants := c.duration > 0 && c.level > 0; (q.GetDurationMs() > 0) != wants || wants && c.duration >= time.Millisecond && q.GetDurationMs() != uint64(c.duration.Milliseconds()) {
				t.Errorf("%v is %v", c.duration, q)
			}
			time.Sleep(2 * c.duration)
			synctest.Wait()
			if c.duration > 0 && own.GetLevel() != hclog.Warn {
				t.Errorf("after %v it logs from %v on", c.duration, own.GetLevel())
			}
		}
		if failure := v.Set(context.Background(), 4, 0); failure == nil || failure.Code != 400 {
			t.Errorf("level 4: %v", failure)
		}
	})
}
