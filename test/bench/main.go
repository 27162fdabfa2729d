// Command bench measures Mezzo and prints tables: what Mesos needs for the
// same, the budget, what was measured, and whether the budget is met. `make
// bench` builds the binaries and runs it; docs/performance.md says what each
// figure means.
//
//	go run ./test/bench -only engine,cycles -sizes 10000x200
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mezzo-os/mezzo/test/bench/calibrate"
)

// size is how many agents and frameworks there are.
type size struct{ agents, frameworks int }

func (s size) String() string { return fmt.Sprintf("%d x %d", s.agents, s.frameworks) }

// bench is one run.
type bench struct {
	out    io.Writer
	bin    string
	dir    string // of everything that the run writes
	sizes  []size // asked for; none: what each section has
	all    bool   // every size of Mesos's table, through a master too
	quick  bool
	laps   int     // of each workload through a master
	only   string  // workloads
	agents int     // of the registration
	scale  float64 // this machine's calibration by that of Mesos's figures
	failed int     // sections that could not be measured

	verdicts []outcome
	cluster  map[result]float64 // milliseconds through a master
}

// sections, in the order in which they run: those that want an idle machine
// come first.
var sections = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"launch", (*bench).launch},
	{"agent", (*bench).agent},
	{"engine", (*bench).engine},
	{"cycles", (*bench).cycles},
	{"boundary", (*bench).boundary},
	{"swap", (*bench).swap},
	{"tasks", (*bench).tasks},
	{"register", (*bench).register},
	{"failover", (*bench).failover},
	{"mesos", (*bench).mesosAPI},
	{"ui", (*bench).pages},
	{"roles", (*bench).roles},
	{"steady", (*bench).steady},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	b := &bench{out: os.Stdout, cluster: map[result]float64{}}
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	sizes := flag.String("sizes", "", "agents x frameworks of the allocation workloads, such as 10000x200,1000x50; all: every size of Mesos's table, which takes hours; empty: all in the engine alone, some through a master")
	only := flag.String("only", strings.Join(names, ","), "the sections to run, of "+strings.Join(names, ", "))
	limit := flag.Duration("limit", 20*time.Minute, "the most time for all of it")
	flag.BoolVar(&b.quick, "quick", false, "few rounds, for a first look")
	flag.IntVar(&b.laps, "rounds", 5, "rounds of each workload through a master")
	flag.StringVar(&b.only, "workloads", "a1,a2,b,c1,c2,d,e", "the allocation workloads to run, of sections engine and cycles")
	flag.IntVar(&b.agents, "agents", fullAgents, "the new agents of section register")
	flag.StringVar(&b.bin, "bin", "bin", "where mezzo lies, and plugins/ beside it")
	flag.Parse()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := b.prepare(*sizes); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	defer os.RemoveAll(b.dir)
	for _, name := range strings.Split(*only, ",") {
		if !slices.Contains(names, name) {
			fmt.Fprintf(os.Stderr, "bench: -only: there is no section %q; there are %s\n", name, strings.Join(names, ", "))
			return 2
		}
	}
	if err := b.introduce(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	for _, s := range sections {
		if !slices.Contains(strings.Split(*only, ","), s.name) {
			continue
		}
		if err := s.run(b, ctx); err != nil {
			b.failed++
			fmt.Fprintf(b.out, "%s: %v\n", s.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	b.summary()
	if b.failed > 0 {
		return 1
	}
	return 0
}

// summary repeats what has a budget.
func (b *bench) summary() {
	if len(b.verdicts) == 0 {
		return
	}
	met := 0
	t := b.table("Budgets", "", "budget", "measured", "")
	for _, v := range b.verdicts {
		if v.verdict == "met" {
			met++
		}
		t.row(v.name, number(v.budget), number(v.measured), v.verdict)
	}
	t.title = fmt.Sprintf("Budgets: %d of %d met", met, len(b.verdicts))
	t.print()
}

func (b *bench) prepare(sizes string) (err error) {
	if b.all = sizes == "all"; b.all {
		sizes = ""
	}
	for _, text := range strings.FieldsFunc(sizes, func(r rune) bool { return r == ',' }) {
		var s size
		if _, err := fmt.Sscanf(text, "%dx%d", &s.agents, &s.frameworks); err != nil || s.agents < 100 || s.frameworks < 1 {
			return fmt.Errorf("-sizes: %q: want agents x frameworks, at least 100x1", text)
		}
		b.sizes = append(b.sizes, s)
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	for _, name := range []string{"mezzo", "plugins/mezzo-allocator-drf", "plugins/mezzo-allocator-priority", "plugins/mezzo-isolator-cgroups", "plugins/mezzo-shim", "plugins/mezzo-framework-mesos"} {
		if _, err := os.Stat(filepath.Join(b.bin, name)); err != nil {
			return fmt.Errorf("%w; run make build first", err)
		}
	}
	b.dir, err = os.MkdirTemp("", "mezzo-bench-")
	return err
}

// introduce says on what the figures were got.
func (b *bench) introduce() error {
	rounds := 3
	if b.quick {
		rounds = 1
	}
	total, err := calibrate.Run(rounds)
	if err != nil {
		return err
	}
	b.scale = total / calibrate.Baseline
	fmt.Fprintf(b.out, "%s, %d processors, load average %s\n", time.Now().Format("2006-01-02 15:04"), processors(), load())
	fmt.Fprintf(b.out, "calibration %.2f processor seconds; Mesos's figures, got at %.2f, are times %.2f\n", total, calibrate.Baseline, b.scale)
	return nil
}

// load is the load average of the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
