package sim

import (
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"
)

// Config says what to simulate. Zero values take the default that their comment
// names.
type Config struct {
	// Seed decides everything that is left to chance.
	Seed uint64
	// Roll gives other chance to everything but what goes wrong when.
	Roll uint64
	// Agents and Frameworks are how many there are: 3 and 4.
	Agents, Frameworks int
	// Duration is how long faults happen, in virtual time: 60 s.
	Duration time.Duration
	// Faults is what goes wrong; the zero value: nothing does.
	Faults Faults
	// Wire has every message encoded and decoded on its way, as between real
	// processes; slower, and it shows what shares memory that it should not.
	Wire bool
	// Large is for thousands of agents: times are those of a real cluster, a
	// scheduler that has launched all its tasks wants no offers, the trace is not
	// kept and Report.Hash is 0.
	Large bool
	// AuditEvery is after how many steps of a master its books are audited: 1. What
	// is wrong in them stays so; this is for long runs.
	AuditEvery int
	// Log gets every line of the trace as it happens; may be nil.
	Log func(line string)

	plant plant
}

func (c Config) withDefaults() Config {
	if c.Agents <= 0 {
		c.Agents = 3
	}
	if c.Frameworks <= 0 {
		c.Frameworks = 4
	}
	if c.Duration <= 0 {
		c.Duration = time.Minute
	}
	if c.AuditEvery <= 0 {
		c.AuditEvery = 1
	}
	return c
}

// Report says what a run was like: whether it did anything worth checking.
type Report struct {
	Seed uint64
	// Steps are events of the world; Virtual is how long the run was in its own
	// time.
	Steps   uint64
	Virtual time.Duration
	// Hash is of the whole trace: two runs of one Config have the same.
	Hash uint64
	// Launched counts tasks that schedulers asked for; Started those whose
	// process ran; Refused those that were turned down or lost before that.
	Launched, Started, Ended, Refused int
	// Operations counts changes of resources that were asked for, Applied those that
	// an agent carried out.
	Operations, Applied int
	// Faults counts what went wrong, by name.
	Faults map[Fault]int

	// Settled is when all was healed, and everybody agreed.
	Settled time.Duration

	struck []int // the numbers of the faults that happened
}

// Failure is a violated invariant.
type Failure struct {
	Seed uint64
	At   time.Duration // virtual
	Step uint64
	// What was violated, and of whom.
	What     string
	Subjects []string
	// Trace are the last events that concern the subjects.
	Trace []string

	kind string // of what was violated, without whom it concerns
}

// Error tells everything that a person needs who wants to know what happened.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, at %v, step %d: %s", f.Seed, f.At, f.Step, f.What)
	if len(f.Trace) > 0 {
		fmt.Fprintf(&b, "\nthe last events concerning %s:", strings.Join(f.Subjects, ", "))
		for _, line := range f.Trace {
			b.WriteString("\n  ")
			b.WriteString(line)
		}
	}
	return b.String()
}

// Run simulates one cluster. The error is a *Failure.
func Run(cfg Config) (report *Report, err error) {
	cfg = cfg.withDefaults()
	w := newWorld(cfg)
	defer func() {
		if p := recover(); p != nil {
			w.fail(w.lastSubjects(), "panic: %v\n%s", p, debug.Stack())
			report, err = w.finish()
		}
	}()
	w.live()
	return w.finish()
}

// world is the whole of a simulated cluster.
type world struct {
	cfg     Config
	tempo   tempo
	rng     *rand.Rand
	now     time.Duration // since began
	queue   events
	seq     uint64
	step    uint64
	idle    int // steps since time last passed
	trace   trace
	failure *Failure
	report  Report

	weather    weather
	registry   records
	election   election
	leader     *master // that of the newest epoch, alive or not
	masters    []*master
	requests   uint64 // of operators, so far
	promises   map[string]*promise
	downs      map[string]bool // hosts that an operator wanted down
	hosts      []*host
	allocation allocation
	schedulers []*scheduler
	lives      map[taskKey]*life
	order      []taskKey // of lives, by launch
	deeds      map[deedKey]*deed
	deedOrder  []deedKey
	// healed: no fault happens any more. closing: nothing is launched either.
	healed, closing bool
	free            map[string]time.Duration // agents with something free, and since when
	links           uint64
	streams         uint64
}

// began is when every simulated world begins.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(cfg Config) *world {
	w := &world{
		cfg: cfg, tempo: tempoOf(cfg), rng: chanceOf(cfg.Seed, cfg.Roll<<32), lives: map[taskKey]*life{}, deeds: map[deedKey]*deed{}, free: map[string]time.Duration{},
		promises: map[string]*promise{}, downs: map[string]bool{},
		report: Report{Seed: cfg.Seed, Faults: map[Fault]int{}},
	}
	w.trace.hash = fnv.New64a()
	w.registry = records{store: newStore(), ended: map[string]bool{}, gone: map[string]bool{}}
	return w
}

// chanceOf is one of the streams of chance of a seed.
func chanceOf(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 0x6d657a7a6f+stream))
}

func (w *world) time() time.Time { return began.Add(w.now) }

func (w *world) finish() (*Report, error) {
	w.report.Steps, w.report.Virtual, w.report.Hash = w.step, w.now, w.trace.hash.Sum64()
	if w.cfg.Large {
		w.report.Hash = 0
	}
	if w.failure != nil {
		return &w.report, w.failure
	}
	return &w.report, nil
}

// fail ends the run. Only the first failure counts.
func (w *world) fail(subjects []string, format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.failure = &Failure{
		Seed: w.cfg.Seed, At: w.now, Step: w.step, What: fmt.Sprintf(format, args...),
		kind: format, Subjects: subjects, Trace: w.trace.about(w.concerned(subjects), 80),
	}
	w.note(subjects, "FAILED: %s", w.failure.What)
}

// concerned are the subjects whose lines tell how it came to a failure: of a
// task, its own and those of its host as a whole; else all of the subjects.
func (w *world) concerned(subjects []string) []string {
	var out []string
	for _, key := range w.order {
		for _, s := range subjects {
			if s != key.id {
				continue
			}
			out = append(out, s)
			if l := w.lives[key]; l.started != "" {
				out = append(out, l.started+" itself")
			}
		}
	}
	if len(out) == 0 {
		return subjects
	}
	return out
}

// trace is what happened.
type trace struct {
	lines []line
	hash  hash.Hash64
}

type line struct {
	at       time.Duration
	step     uint64
	subjects []string
	text     string
}

func (l *line) String() string {
	return fmt.Sprintf("%12.6fs %6d  %s", l.at.Seconds(), l.step, l.text)
}

// note adds a line about the subjects to the trace.
func (w *world) note(subjects []string, format string, args ...any) {
	if w.cfg.Large && w.cfg.Log == nil && w.failure == nil {
		return
	}
	l := line{w.now, w.step, subjects, fmt.Sprintf(format, args...)}
	w.trace.lines = append(w.trace.lines, l)
	fmt.Fprintf(w.trace.hash, "%d %s\n", l.at, l.text)
	if w.cfg.Log != nil {
		w.cfg.Log(l.String())
	}
}

// about returns the last n lines that name one of the subjects.
func (t *trace) about(subjects []string, n int) []string {
	var out []string
	for i := len(t.lines) - 1; i >= 0 && len(out) < n; i-- {
		l := &t.lines[i]
		if l.concerns(subjects) {
			out = append(out, l.String())
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// everybody is the subject of what concerns the whole cluster.
const everybody = "*"

func (l *line) concerns(subjects []string) bool {
	for _, s := range l.subjects {
		if s == everybody {
			return true
		}
		for _, wanted := range subjects {
			if s == wanted {
				return true
			}
		}
	}
	return false
}

func (w *world) lastSubjects() []string {
	if n := len(w.trace.lines); n > 0 {
		return w.trace.lines[n-1].subjects
	}
	return nil
}
