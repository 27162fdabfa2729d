// Package packaging_test holds what is packaged to the program that it is for.
package packaging_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/metric/metrictest"
)

// sections are those of docs/metrics.md that have metrics.
var sections = []string{"Master", "Agent", "Allocators", "Isolators", "Framework adapters", "Both"}

// TestMetricNames is that alerts and dashboard name no metric that there is not:
// docs/metrics.md has all, which tests of master and agent see to.
func TestMetricNames(t *testing.T) {
	documented, err := metrictest.Documented("../docs/metrics.md", sections...)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\bmezzo_[a-z_]+`)
	for file, least := range map[string]int{"prometheus/alerts.yml": 20, "grafana/mezzo.json": 25} {
		text := read(t, file)
		used := map[string]bool{}
		for _, found := range name.FindAllString(text, -1) {
			metric := found
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, is := strings.CutSuffix(found, suffix); is && documented[base].Type == "histogram" {
					metric = base
				}
			}
			used[metric] = true
			if m, known := documented[metric]; !known {
				t.Errorf("%s: there is no metric %s", file, found)
			} else if m.Type == "histogram" && metric == found {
				t.Errorf("%s: %s is a histogram, and has no value of its own", file, found)
			}
		}
		if len(used) < least {
			t.Errorf("%s uses %d metrics; it was looked at wrongly", file, len(used))
		}
	}
}

// TestCountersAreRated is that what only grows is shown, and alerted upon, as a
// rate or an increase.
func TestCountersAreRated(t *testing.T) {
	bare := regexp.MustCompile(`mezzo_[a-z_]+_total(\{[^}]*\})?([^\[{a-z_]|$)`)
	for _, expr := range append(expressions(t), alerts(t)...) {
		if found := bare.FindString(expr); found != "" {
			t.Errorf("%q is no rate in %s", found, expr)
		}
	}
}

// selector is a metric with matchers.
var selector = regexp.MustCompile(`(mezzo_[a-z_]+)\{([^}]*)\}`)

// TestLabels is that selectors name labels that their metrics have.
func TestLabels(t *testing.T) {
	documented, err := metrictest.Documented("../docs/metrics.md", sections...)
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range append(expressions(t), alerts(t)...) {
		for _, found := range selector.FindAllStringSubmatch(expr, -1) {
			metric := strings.TrimSuffix(found[1], "_bucket")
			for matcher := range strings.SplitSeq(found[2], ",") {
				label := strings.TrimSpace(strings.FieldsFunc(matcher, func(r rune) bool { return strings.ContainsRune("=!~", r) })[0])
				if !strings.Contains(","+documented[metric].Labels+",", ","+label+",") {
					t.Errorf("%s has no label %s: %s", metric, label, expr)
				}
			}
		}
	}
}

// TestDockerfile is that what the image is made of is there: the files that are
// copied, the target that is made, and the program where it is started.
func TestDockerfile(t *testing.T) {
	text, stages := read(t, "Dockerfile"), map[string]bool{}
	if ignored := read(t, "../.dockerignore"); !strings.Contains(ignored, ".git\n") {
		t.Error(".dockerignore does not leave the history out")
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 4 && words[0] == "FROM" && words[2] == "AS":
			stages[words[3]] = true
		case len(words) > 2 && words[0] == "COPY":
			from := ""
			sources := words[1 : len(words)-1]
			for strings.HasPrefix(sources[0], "--") {
				if stage, is := strings.CutPrefix(sources[0], "--from="); is {
					from = stage
				}
				sources = sources[1:]
			}
			if from != "" {
				if !stages[from] {
					t.Errorf("there is no stage %s: %s", from, line)
				}
				continue
			}
			for _, path := range sources {
				if _, err := os.Stat("../" + path); err != nil {
					t.Errorf("%s: %v", strings.TrimSpace(line), err)
				}
			}
		}
	}
	for _, part := range []string{"\nUSER mezzo\n", "make install VERSION=${VERSION} PREFIX=/usr DESTDIR=/out", `ENTRYPOINT ["/usr/bin/mezzo"]`} {
		if !strings.Contains(text, part) {
			t.Errorf("the Dockerfile has no %q", part)
		}
	}
	if makefile := read(t, "../Makefile"); !strings.Contains(makefile, "\ninstall: build") || !strings.Contains(makefile, "$(DESTDIR)$(PREFIX)/bin/mezzo") {
		t.Error("make install does not install mezzo into DESTDIR and PREFIX any more")
	}
}

// expressions are those of the dashboard.
func expressions(t *testing.T) (list []string) {
	t.Helper()
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/mezzo.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range dashboard.Panels {
		if seen[p.ID] || p.Title == "" || (p.Type != "row" && len(p.Targets) == 0) {
			t.Errorf("panel %d %q is not whole, or there twice", p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, target := range p.Targets {
			list = append(list, target.Expr)
		}
	}
	return list
}

func alerts(t *testing.T) (list []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindAllStringSubmatch(read(t, "prometheus/alerts.yml"), -1) {
		list = append(list, found[1])
	}
	if len(list) < 20 {
		t.Errorf("%d alerts were found", len(list))
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
