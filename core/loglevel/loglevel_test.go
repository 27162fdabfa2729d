package loglevel_test

import (
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/core/loglevel"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// In the bubble time passes when everybody waits for it.
func TestSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applied atomic.Int32
		s := loglevel.New("warn", func(l hclog.Level) { applied.Store(int32(l)) })
		defer s.Close()
		expect := func(when, level, configured string, until time.Duration) {
			t.Helper()
			synctest.Wait()
			m, got := s.Message(), hclog.Level(applied.Load())
			if m.GetLevel() != level || m.GetConfigured() != configured || got.String() != level {
				t.Fatalf("%s: %v, and %v is applied", when, m, got)
			}
			if left := m.GetUntil(); (left == nil) != (until == 0) || left != nil && time.Until(left.AsTime()) != until {
				t.Fatalf("%s: until %v, want in %v", when, left.AsTime(), until)
			}
		}
		set := func(level string, d time.Duration) {
			t.Helper()
			if err := s.Set(level, d); err != nil {
				t.Fatal(err)
			}
		}
		set("debug", time.Minute)
		expect("asked", "debug", "warn", time.Minute)
		time.Sleep(50 * time.Second)
		set("trace", time.Minute)
		time.Sleep(30 * time.Second)
		expect("after the first one's time", "trace", "warn", 30*time.Second)
		s.Configure("error")
		expect("configured meanwhile", "trace", "error", 30*time.Second)
		time.Sleep(30 * time.Second)
		expect("its time has passed", "error", "error", 0)
		set("debug", 0)
		time.Sleep(time.Hour)
		expect("for ever", "debug", "error", 0)
		set("", time.Minute)
		expect("taken back", "error", "error", 0)
		s.Configure("")
		expect("by default", "info", "info", 0)
	})
}

func TestSwitchRefuses(t *testing.T) {
	s := loglevel.New("info", func(hclog.Level) {})
	for _, c := range []struct {
		level string
		ms    uint64
		want  string
	}{{"loud", 0, `"loud"`}, {"off", 0, `"off"`}, {"debug", math.MaxUint64, "a year"}} {
		if _, err := s.Answer(&operatorv1.SetLogLevelRequest{Level: c.level, DurationMs: c.ms}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %d ms: %v", c.level, c.ms, err)
		}
	}
	if m := s.Message(); m.GetLevel() != "info" {
		t.Errorf("something was set: %v", m)
	}
}
