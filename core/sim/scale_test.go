package sim

import (
	"flag"
	"runtime"
	"syscall"
	"testing"
	"time"
)

var (
	scaleAgents     = flag.Int("scale-agents", defaultAgents, "how many agents TestScale has")
	scaleFrameworks = flag.Int("scale-frameworks", 10, "how many frameworks TestScale has")
	scaleFaults     = flag.Duration("scale-faults", time.Second, "the mean time between two faults of TestScale; 0: none happens")
)

// TestScale runs a large cluster through faults, with the times of a real one.
// What is dear to check is checked now and then.
func TestScale(t *testing.T) {
	cfg := Config{
		Seed: 1, Agents: *scaleAgents, Frameworks: *scaleFrameworks, Duration: time.Minute, Faults: Faults{Every: *scaleFaults},
		Large: true, AuditEvery: 50 * *scaleAgents,
	}
	began := time.Now()
	report, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("%d agents, %d frameworks: %v of virtual time in %v (processor: %v), %d steps (%.0f/s); at most %d MiB resident; %d tasks launched, %d started, %d ended; faults: %v",
		cfg.Agents, cfg.Frameworks, report.Virtual, took.Round(time.Second), time.Duration(use.Utime.Nano()+use.Stime.Nano()).Round(time.Second),
		report.Steps, float64(report.Steps)/took.Seconds(), use.Maxrss>>10, report.Launched, report.Started, report.Ended, report.Faults)
	if report.Started < 5**scaleFrameworks {
		t.Errorf("only %d tasks were started", report.Started)
	}
	runtime.KeepAlive(report)
}
