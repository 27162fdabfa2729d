// Package loglevel changes how much a process logs, for a while.
package loglevel

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// Longest is the longest time after which a level goes back by itself.
const Longest = 365 * 24 * time.Hour

// Switch is the log level of a process: what its configuration says, or what
// somebody asked for since. Safe for concurrent use.
//
//	s := loglevel.New("info", func(l hclog.Level) { logger.SetLevel(l) })
//	defer s.Close()
//	s.Set("debug", 10*time.Minute) // and then it is "info" again
type Switch struct {
	apply func(hclog.Level)

	mu         sync.Mutex
	configured hclog.Level
	asked      hclog.Level // NoLevel: nobody asked for another
	until      time.Time
	revert     *time.Timer
	changes    int // so that a timer that was late changes nothing
}

// New makes the switch of a process that logs as its configuration says. apply
// is called with the lock held whenever the level changes; it must not call back.
func New(configured string, apply func(hclog.Level)) *Switch {
	return &Switch{apply: apply, configured: level(configured)}
}

// level is a level by its name; as the configuration's default, when it is empty.
func level(name string) hclog.Level {
	if l := hclog.LevelFromString(name); l != hclog.NoLevel {
		return l
	}
	return hclog.Info
}

// Configure says that the configuration has another level. It counts at once,
// unless somebody asked for one.
func (s *Switch) Configure(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configured = level(name)
	if s.asked == hclog.NoLevel {
		s.apply(s.configured)
	}
}

// Set has another level count, for a while when d is not 0. Empty: the
// configuration's counts again.
func (s *Switch) Set(name string, d time.Duration) error {
	var asked hclog.Level
	switch name {
	case "":
	case "trace", "debug", "info", "warn", "error":
		asked = hclog.LevelFromString(name)
	default:
		return fmt.Errorf("log level %q: it is one of trace, debug, info, warn, error; or empty, for what the configuration says", name)
	}
	if d < 0 || d > Longest {
		return fmt.Errorf("log level for %v: it is from 0, for as long as the process runs, to a year", d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(asked)
	if asked != hclog.NoLevel && d > 0 {
		s.until = time.Now().Add(d)
		change := s.changes
		s.revert = time.AfterFunc(d, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.changes == change {
				s.set(hclog.NoLevel)
			}
		})
	}
	return nil
}

// set is called with the lock held.
func (s *Switch) set(asked hclog.Level) {
	s.stop()
	s.asked = asked
	s.apply(s.now())
}

// stop drops what was to come. The lock is held.
func (s *Switch) stop() {
	s.changes++
	if s.revert != nil {
		s.revert.Stop()
	}
	s.revert, s.until = nil, time.Time{}
}

// now is the level that counts. The lock is held.
func (s *Switch) now() hclog.Level {
	if s.asked != hclog.NoLevel {
		return s.asked
	}
	return s.configured
}

// Close drops what was to come.
func (s *Switch) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
}

// Message is how it stands now.
func (s *Switch) Message() *operatorv1.LogLevel {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &operatorv1.LogLevel{Level: s.now().String(), Configured: s.configured.String()}
	if !s.until.IsZero() {
		out.Until = timestamppb.New(s.until)
	}
	return out
}

// Answer carries out a request, and says how it stands then. Its error is for
// who asked.
func (s *Switch) Answer(q *operatorv1.SetLogLevelRequest) (*operatorv1.LogLevel, error) {
	d := Longest + 1 // too long
	if ms := q.GetDurationMs(); ms <= uint64(Longest/time.Millisecond) {
		d = time.Duration(ms) * time.Millisecond
	}
	if err := s.Set(q.GetLevel(), d); err != nil {
		return nil, err
	}
	return s.Message(), nil
}

// Until says in the log how long a level counts.
func Until(l *operatorv1.LogLevel) string {
	if l.GetUntil() == nil {
		return "it is set again"
	}
	return l.GetUntil().AsTime().Format(time.RFC3339)
}
