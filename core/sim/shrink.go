package sim

import (
	"slices"
	"time"
)

// Shrink looks for a smaller Config that fails in the same way as cfg: with fewer
// faults, frameworks and agents, in less time. It tries one after the other for
// as long as more says so, and returns the smallest that it has found, with its
// failure; an error when cfg does not fail. The order of what it tries depends on
// cfg alone.
func Shrink(cfg Config, more func() bool) (Config, *Failure, error) {
	cfg = cfg.withDefaults()
	cfg.Log, cfg.AuditEvery = nil, 1
	report, err := Run(cfg)
	if err == nil {
		return cfg, nil, errNoFailure
	}
	s := &shrinker{more: more, best: cfg, failure: err.(*Failure)}
	s.keep(report)
	for s.progress = true; s.progress && more(); {
		s.progress = false
		s.fewerFaults()
		s.fewerParts()
	}
	return s.best, s.failure, nil
}

type shrinker struct {
	more     func() bool
	best     Config
	failure  *Failure
	progress bool
}

// rolls is how often a smaller world is tried with other chance: what happens in
// it is not what happened in the larger one.
const rolls = 12

// keep names the faults of a failing run, and leaves out those that had not come
// yet.
func (s *shrinker) keep(report *Report) {
	next := s.best
	next.Faults.Keep = append([]int{}, report.struck...)
	if next.Faults.Every > 0 {
		s.try(next)
	}
}

// try takes a Config if it fails in the same way.
func (s *shrinker) try(cfg Config) bool {
	report, err := Run(cfg)
	if err == nil || err.(*Failure).kind != s.failure.kind {
		return false
	}
	s.best, s.failure, s.progress = cfg, err.(*Failure), true
	if cfg.Faults.Keep != nil {
		s.best.Faults.Keep = append([]int{}, report.struck...)
	}
	return true
}

// tryRolls tries a Config with chance of several kinds.
func (s *shrinker) tryRolls(cfg Config) bool {
	for n := range uint64(rolls) {
		if !s.more() {
			return false
		}
		cfg.Roll = s.best.Roll + n
		if s.try(cfg) {
			return true
		}
	}
	return false
}

// fewerFaults leaves faults out: half of them, a quarter at a time, and so on.
func (s *shrinker) fewerFaults() {
	for size := (len(s.best.Faults.Keep) + 1) / 2; size > 0; size /= 2 {
		for from := 0; from < len(s.best.Faults.Keep) && s.more(); {
			next := s.best
			all := s.best.Faults.Keep
			next.Faults.Keep = slices.Delete(slices.Clone(all), from, min(from+size, len(all)))
			if !s.try(next) {
				from += size
			}
		}
	}
}

// fewerParts makes the world smaller, and the run shorter.
func (s *shrinker) fewerParts() {
	for s.best.Frameworks > 1 && s.smaller(func(c *Config) { c.Frameworks-- }) {
	}
	for s.best.Agents > 1 && s.smaller(func(c *Config) { c.Agents-- }) {
	}
	if s.best.Wire {
		s.smaller(func(c *Config) { c.Wire = false })
	}
	for s.best.Duration > 2*time.Second && s.smaller(func(c *Config) { c.Duration = (c.Duration / 2).Round(time.Second) }) {
	}
	if len(s.best.Faults.Keep) > 1 {
		// What is left may not need all of them, if it goes another way.
		for i := len(s.best.Faults.Keep) - 1; i >= 0 && s.more(); i-- {
			if i < len(s.best.Faults.Keep) {
				s.smaller(func(c *Config) { c.Faults.Keep = slices.Delete(slices.Clone(c.Faults.Keep), i, i+1) })
			}
		}
	}
}

func (s *shrinker) smaller(change func(*Config)) bool {
	next := s.best
	change(&next)
	return s.tryRolls(next)
}
