package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

var (
	benchLaunches = flag.Int("bench-launches", 0, "how many tasks TestContainerdFigures launches one by one with each way")
	benchTogether = flag.Int("bench-together", 0, "how many containers TestContainerdFigures has beside each other")
)

// stopwatch is a framework that launches with the next offer, and notes when.
type stopwatch struct {
	mu       sync.Mutex
	waiting  []*mezzov1.TaskInfo
	launched time.Time
	at       map[string]time.Time // RUNNING
	ended    map[string]bool
}

func (s *stopwatch) offers(f *framework.Scheduler, offers []*mezzov1.Offer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range offers {
		if len(s.waiting) == 0 {
			_ = f.Decline(context.Background(), refuse(0), o.GetId())
			continue
		}
		s.launched = time.Now()
		_ = f.Launch(context.Background(), o, s.waiting...)
		s.waiting = nil
	}
}

func (s *stopwatch) update(_ *framework.Scheduler, u *mezzov1.TaskStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch id := u.GetTaskId().GetValue(); {
	case runs(u):
		s.at[id] = time.Now()
	case ended(u.GetState()):
		s.ended[id] = true
	}
}

// run launches tasks and returns how long it was until all of them ran.
func (s *stopwatch) run(t *testing.T, tasks ...*mezzov1.TaskInfo) (took time.Duration) {
	t.Helper()
	s.mu.Lock()
	s.waiting = tasks
	s.mu.Unlock()
	for until := time.Now().Add(10 * time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		all := true
		for _, task := range tasks {
			at, ok := s.at[task.GetTaskId().GetValue()]
			all, took = all && ok, max(took, at.Sub(s.launched))
		}
		s.mu.Unlock()
		if all {
			return took
		}
		if time.Now().After(until) {
			t.Fatal("some tasks do not run")
		}
	}
}

// TestContainerdFigures measures, when it is asked to, how long a launch takes
// with containerd, with cgroups, and with `ctr run` alone, in turns; and what
// many containers take.
func TestContainerdFigures(t *testing.T) {
	if *benchLaunches == 0 && *benchTogether == 0 {
		t.Skip("give -bench-launches or -bench-together")
	}
	resources := smallAgent
	c := startContainerdWith(t, strings.Replace(strings.Replace(resources, "cpus:4", "cpus:1000", 1), "mem:2048", "mem:100000", 1))
	s := &stopwatch{at: map[string]time.Time{}, ended: map[string]bool{}}
	runScheduler(t, c.fields["rpc"], &mezzov1.FrameworkInfo{}, framework.Callbacks{Offers: s.offers, Update: s.update})
	took := map[string][]time.Duration{}
	for i := range *benchLaunches {
		n := strconv.Itoa(i)
		took["containerd"] = append(took["containerd"], s.run(t, imageTask("i"+n, "sleep 0.1")))
		took["cgroups"] = append(took["cgroups"], s.run(t, shellTask("h"+n, "sleep 0.1")))
		began := time.Now()
		ctr := exec.Command("ctr", "-a", c.daemon.Address, "-n", c.daemon.Namespace, "run", "-d", testImage, "ctr"+n, "sleep", "0.1")
		if out, err := ctr.CombinedOutput(); err != nil {
			t.Fatalf("ctr: %v\n%s", err, out)
		}
		took["ctr run"] = append(took["ctr run"], time.Since(began))
	}
	for _, way := range []string{"cgroups", "containerd", "ctr run"} {
		if all := took[way]; len(all) > 0 {
			slices.Sort(all)
			fmt.Printf("%-12s median %6.1f ms, nine of ten %6.1f ms, of %d launches\n", way,
				float64(all[len(all)/2])/1e6, float64(all[len(all)*9/10])/1e6, len(all))
		}
	}
	if *benchTogether == 0 {
		return
	}
	var tasks []*mezzov1.TaskInfo
	for i := range *benchTogether {
		task := imageTask("many"+strconv.Itoa(i), "sleep 1000")
		task.Resources = resource.MustParse("cpus:0.1;mem:32").ToProto()
		tasks = append(tasks, task)
	}
	fmt.Printf("%d containers together run after %.1f s\n", *benchTogether, s.run(t, tasks...).Seconds())
	for _, program := range []string{"containerd-shim", "mezzo-shim", "mezzo-init"} {
		count, kib := proportional(program)
		if count > 0 {
			fmt.Printf("%-16s %4d processes, PSS %.1f MiB each\n", program, count, float64(kib)/1024/float64(count))
		}
	}
}

// proportional adds up the memory of all processes of a program.
func proportional(program string) (count, kib int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if first, _, _ := strings.Cut(string(text), "\x00"); err != nil || !strings.HasPrefix(filepath.Base(first), program) && !(program == "mezzo-init" && first == "/dev/.mezzo/init") {
			continue
		}
		rollup, err := os.ReadFile(filepath.Join(filepath.Dir(path), "smaps_rollup"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(rollup)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
				n, _ := strconv.Atoi(fields[1])
				count, kib = count+1, kib+n
			}
		}
	}
	return count, kib
}
