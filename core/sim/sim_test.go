package sim

import (
	"errors"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds  = flag.Int("seeds", defaultSeeds, "how many seeds TestSeeds runs")
	first  = flag.Uint64("first", 1, "the first seed that TestSeeds runs")
	only   = flag.Uint64("seed", 0, "run this seed alone, and print its trace")
	text   = flag.String("config", "", "run this Config alone, as a failure names it, and print its trace")
	budget = flag.Duration("shrink", time.Minute, "how long TestSeeds looks for a smaller run that fails as well")
	within = flag.Int("within", 100, "within how many seeds TestPlantedBugs must find each")
	every  = flag.Bool("every-fault", false, "TestSeeds has every kind of fault in every seed")
	audit  = flag.Int("audit", 3, "after how many steps of a master its books are audited")
	most   = flag.Uint64("failures", 5, "after how many failing seeds TestSeeds stops")
)

// configOf is the cluster of a seed: small ones mostly, with all faults, some
// with only a few, some with none.
func configOf(seed uint64) Config {
	cfg := Config{Seed: seed, Agents: 1 + int(seed%4), Frameworks: 2 + int(seed/4%4), Duration: 40 * time.Second, Faults: AllFaults(), Wire: seed%7 == 0}
	switch seed % 10 {
	case 0:
		cfg.Faults = Faults{}
	case 1:
		cfg.Faults = Faults{Every: time.Second, Only: []Fault{AgentCrash, IsolatorCrash, SlowDisk, HostReboot}}
	case 2:
		cfg.Faults = Faults{Every: time.Second, Only: []Fault{LinkCut, Partition, PartitionUp, PartitionDown, SlowNetwork}}
	case 3:
		cfg.Faults = Faults{Every: 1500 * time.Millisecond, Only: []Fault{MasterCrash, MasterFailover, MasterStop, ElectionStorm, RegistryFailure, LinkCut, SchedulerCut}}
	case 4:
		cfg.Faults = Faults{Every: time.Second, Only: []Fault{SchedulerCut, SchedulerFailover, AllocatorCrash, SessionCut, OperatorRole, OperatorKill, OperatorTeardown, OperatorService, OperatorGone}}
	case 5:
		cfg.Faults.Every = 500 * time.Millisecond
	}
	if *every {
		cfg.Faults = Faults{Every: time.Duration(500+250*(seed%8)) * time.Millisecond}
	}
	cfg.AuditEvery = *audit
	return cfg
}

// TestSeeds runs many clusters through faults.
func TestSeeds(t *testing.T) {
	if *only != 0 || *text != "" {
		cfg := configOf(*only)
		if *text != "" {
			var err error
			if cfg, err = ParseConfig(*text); err != nil {
				t.Fatal(err)
			}
		}
		cfg.Log = func(line string) { fmt.Println(line) }
		report, err := Run(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", report)
		return
	}
	var next, steps, launched, started, ended, refused, operations, applied, done, failed atomic.Uint64
	next.Store(*first)
	var mu sync.Mutex
	var shrinking sync.Once // the first failure is enough to begin with
	faults := map[Fault]int{}
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= *first+uint64(*seeds) || failed.Load() >= *most {
					return
				}
				report, err := Run(configOf(seed))
				if err != nil {
					failed.Add(1)
					t.Errorf("%v\nrepeat it with: %s", err, again(configOf(seed)))
					shrinking.Do(func() { shrink(t, configOf(seed)) })
				}
				steps.Add(report.Steps)
				launched.Add(uint64(report.Launched))
				started.Add(uint64(report.Started))
				ended.Add(uint64(report.Ended))
				refused.Add(uint64(report.Refused))
				operations.Add(uint64(report.Operations))
				applied.Add(uint64(report.Applied))
				if n := done.Add(1); n%250 == 0 {
					t.Logf("%d seeds from %d on have been run, %d failed", n, *first, failed.Load())
				}
				mu.Lock()
				for f, n := range report.Faults {
					faults[f] += n
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	t.Logf("%d seeds: %d steps; %d tasks launched, %d started, %d ended, %d refused or lost before they started; %d operations asked for, %d carried out; faults: %v",
		*seeds, steps.Load(), launched.Load(), started.Load(), ended.Load(), refused.Load(), operations.Load(), applied.Load(), faults)
	if failed.Load() == 0 && (started.Load() < uint64(10**seeds) || started.Load() < launched.Load()/2) {
		t.Errorf("only %d of %d tasks were started: the simulator hardly tries anything", started.Load(), launched.Load())
	}
	if failed.Load() == 0 && applied.Load() < uint64(5**seeds) {
		t.Errorf("only %d of %d operations were carried out: the simulator hardly tries any", applied.Load(), operations.Load())
	}
}

func again(cfg Config) string {
	return fmt.Sprintf("go test -count=1 -run TestSeeds ./core/sim -args -config='%s'", cfg)
}

// shrink looks for a smaller run that fails like this one, and tells of it.
func shrink(t *testing.T, cfg Config) {
	end := time.Now().Add(*budget)
	small, failure, err := Shrink(cfg, func() bool { return time.Now().Before(end) })
	if err != nil {
		t.Errorf("%s does not fail any more: %v", cfg, err)
		return
	}
	t.Errorf("a smaller run that fails in the same way, with %d faults:\n%v\nrepeat it with: %s", len(small.Faults.Keep), failure, again(small))
}

// TestShrink: of a failing run a smaller one is found that fails in the same way,
// and can be repeated by its text.
func TestShrink(t *testing.T) {
	for _, p := range []plant{plantDropKills, plantLostCheckpoint} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			cfg := Config{Agents: 3, Frameworks: 3, Duration: 20 * time.Second, Faults: AllFaults(), AuditEvery: *audit, plant: p}
			var first *Failure
			for first == nil {
				cfg.Seed++
				_, err := Run(cfg)
				errors.As(err, &first)
			}
			tries := 0
			small, failure, err := Shrink(cfg, func() bool { tries++; return tries < shrinkRuns })
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("from %s\nto %s\n%v", cfg, small, failure)
			if failure.kind != first.kind {
				t.Errorf("it was %q, and the smaller run fails by %q", first.What, failure.What)
			}
			if small.Agents+small.Frameworks >= cfg.Agents+cfg.Frameworks && len(small.Faults.Keep) > 12 {
				t.Errorf("%s is hardly smaller", small)
			}
			read, err := ParseConfig(small.String())
			if err != nil {
				t.Fatal(err)
			}
			read.plant = p
			_, err = Run(read)
			var again *Failure
			if !errors.As(err, &again) || again.Error() != failure.Error() {
				t.Errorf("run again from its text, it fails by %v", err)
			}
		})
	}
}

// TestParseConfig: what is wrong in a text is named.
func TestParseConfig(t *testing.T) {
	for _, bad := range []string{"sed=1", "seed=x", "only=agent-crush", "keep=1,b", "duration=3"} {
		if _, err := ParseConfig(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestDeterminism runs seeds twice.
func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 6; seed++ {
		a, errA := Run(configOf(seed))
		b, errB := Run(configOf(seed))
		if a.Hash != b.Hash || a.Steps != b.Steps || (errA == nil) != (errB == nil) {
			t.Errorf("seed %d: two runs differ: %d steps and trace %x, %d steps and trace %x", seed, a.Steps, a.Hash, b.Steps, b.Hash)
		}
		other, _ := Run(configOf(seed + 40))
		if other.Hash == a.Hash {
			t.Errorf("seeds %d and %d have the same trace", seed, seed+40)
		}
	}
}

// TestPlantedBugs proves that the invariants find bugs.
func TestPlantedBugs(t *testing.T) {
	for p := plantNone + 1; p < plantCount; p++ {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= uint64(*within); seed++ {
				cfg := configOf(seed)
				cfg.plant = p
				if only := p.provoked(); only != nil && !*every {
					cfg.Faults = Faults{Every: time.Second, Only: only}
				}
				_, err := Run(cfg)
				var f *Failure
				if errors.As(err, &f) {
					t.Logf("found with the %d. seed, %d: %s", seed, cfg.Seed, f.What)
					if f.Seed != cfg.Seed || f.Step == 0 || len(f.Trace) == 0 {
						t.Errorf("the failure does not say where it was: %+v", f)
					}
					cfg.plant = plantNone
					if _, err := Run(cfg); err != nil {
						t.Errorf("without the planted bug it fails, too: %v", err)
					}
					return
				}
			}
			t.Errorf("not found within %d seeds", *within)
		})
	}
}
