package plugintest

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Outcome is how a check ended.
type Outcome string

// The outcomes of a check.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped" // it could not be made; Evidence says why
)

// Check is one rule of a contract, and whether the plugin keeps it.
type Check struct {
	// Name is a word or two with dashes, unique in a report: "over-commit".
	Name string `json:"name"`
	// Rule is the sentence that is checked.
	Rule    string  `json:"rule"`
	Outcome Outcome `json:"outcome"`
	// Evidence is, line by line, what went wrong and what led to it.
	Evidence []string `json:"evidence,omitempty"`
	// Milliseconds is how long the check took.
	Milliseconds int64 `json:"milliseconds"`
}

// Report is what a suite found.
type Report struct {
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	Version string  `json:"version"`
	Checks  []Check `json:"checks"`
}

// OK says whether no check failed.
func (r *Report) OK() bool { return r.Count(Failed) == 0 }

// Count returns how many checks ended so.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, c := range r.Checks {
		if c.Outcome == o {
			n++
		}
	}
	return n
}

// Check returns the check of this name; nil if there is none.
func (r *Report) Check(name string) *Check {
	for i := range r.Checks {
		if r.Checks[i].Name == name {
			return &r.Checks[i]
		}
	}
	return nil
}

// Write prints the report for people: one line a check, evidence under those
// that failed, the reason under those that were skipped.
func (r *Report) Write(w io.Writer) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %q, version %s\n\n", r.Kind, r.Name, r.Version)
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	for i := range r.Checks {
		r.Checks[i].write(&out, width)
	}
	fmt.Fprintf(&out, "\n%d checks: %d passed, %d failed, %d skipped\n", len(r.Checks), r.Count(Passed), r.Count(Failed), r.Count(Skipped))
	_, err := io.WriteString(w, out.String())
	return err
}

// WriteFailed prints the checks that failed as Write does, and nothing at all
// when none did.
func (r *Report) WriteFailed(w io.Writer) error {
	var out strings.Builder
	width := 0
	for _, c := range r.Checks {
		if c.Outcome == Failed {
			width = max(width, len(c.Name))
		}
	}
	for i := range r.Checks {
		if r.Checks[i].Outcome == Failed {
			r.Checks[i].write(&out, width)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// write prints a check, its name as wide as others are.
func (c *Check) write(out *strings.Builder, width int) {
	word := map[Outcome]string{Passed: "ok", Failed: "FAIL", Skipped: "skip"}[c.Outcome]
	fmt.Fprintf(out, "%-4s  %-*s  %s\n", word, width, c.Name, c.Rule)
	for _, line := range c.Evidence {
		fmt.Fprintf(out, "      %-*s    %s\n", width, "", line)
	}
}

// verdict is a check in the making.
type verdict struct {
	Check
	ran bool
	// By is the violations of this rule that were seen, in whatever scenario:
	// evidence by the scenario's name.
	by map[string][]string
}

// maxEvidence is how many lines a failed check shows.
const maxEvidence = 24

func (v *verdict) fail(lines ...string) {
	v.Outcome = Failed
	v.Evidence = append(v.Evidence, lines...)
	if len(v.Evidence) > maxEvidence {
		v.Evidence = v.Evidence[:maxEvidence]
	}
}

func milliseconds(d time.Duration) int64 { return d.Milliseconds() }
