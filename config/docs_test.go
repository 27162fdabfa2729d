package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/core/authorization"
)

// manual is docs/configuration.md by heading.
type manual map[string]section

type section struct {
	attributes map[string]string // the defaults by name, as the tables have them
	text       string
	examples   []example
}

type example struct{ language, text string }

var (
	tableRow = regexp.MustCompile("^\\| `([a-z_]+)` \\|[^|]*\\| ([^|]*) \\|")
	fence    = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$")
)

func readManual(t *testing.T) manual {
	t.Helper()
	src, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	m := manual{}
	for _, part := range regexp.MustCompile(`(?m)^##+ `).Split(string(src), -1)[1:] {
		heading, text, _ := strings.Cut(part, "\n")
		s := section{attributes: map[string]string{}, text: text}
		for line := range strings.Lines(text) {
			if row := tableRow.FindStringSubmatch(line); row != nil {
				s.attributes[row[1]] = row[2]
			}
		}
		for _, found := range fence.FindAllStringSubmatch(text, -1) {
			s.examples = append(s.examples, example{found[1], found[2]})
		}
		m[heading] = s
	}
	return m
}

// check compares the words of a section with those that the program knows.
func (m manual) check(t *testing.T, heading string, known []string) {
	t.Helper()
	s, ok := m[heading]
	if !ok {
		t.Errorf("docs/configuration.md has no section %q", heading)
		return
	}
	slices.Sort(known)
	known = slices.Compact(known)
	if diff := cmp.Diff(known, slices.Sorted(maps.Keys(s.attributes))); diff != "" {
		t.Errorf("docs/configuration.md, section %q (-known to the program +in the tables):\n%s", heading, diff)
	}
	var shown strings.Builder
	for _, e := range s.examples {
		shown.WriteString(e.text)
	}
	for _, name := range known {
		if !regexp.MustCompile(`(?m)^\s*` + name + `\s*=`).MatchString(shown.String()) {
			t.Errorf("docs/configuration.md, section %q: no example sets %s", heading, name)
		}
	}
}

func names(s ...*hcl.BodySchema) (attributes []string) {
	for _, s := range s {
		for _, a := range s.Attributes {
			attributes = append(attributes, a.Name)
		}
	}
	return attributes
}

// union is a section's words where it describes a block and one within it.
func union(outer, inner *hcl.BodySchema) *hcl.BodySchema {
	return &hcl.BodySchema{Attributes: slices.Concat(outer.Attributes, inner.Attributes), Blocks: slices.Concat(outer.Blocks, inner.Blocks)}
}

// TestManualKnowsEveryWord is that the manual has every attribute and block, and
// no other.
func TestManualKnowsEveryWord(t *testing.T) {
	m := readManual(t)
	for heading, s := range map[string]*hcl.BodySchema{
		"Top level": rootSchema, "master": masterSchema, "revocation": revocationSchema, "domain": domainSchema, "agent": agentSchema, "fetcher": fetcherSchema,
		"tls": tlsSchema, "authorization": union(authorizationSchema, ruleSchema), "telemetry": tracingSchema, "role": roleSchema, "Plugin blocks": pluginSchema, "The lock file": lockSchema,
	} {
		m.check(t, heading, names(s))
		for _, block := range s.Blocks {
			if !strings.Contains(m[heading].text, "`"+block.Type+"`") {
				t.Errorf("docs/configuration.md, section %q does not name the block %s", heading, block.Type)
			}
		}
	}
	for _, block := range rootSchema.Blocks {
		if _, ok := m[block.Type]; !ok && !strings.Contains(m["Plugin blocks"].text, "`"+block.Type+"`") {
			t.Errorf("docs/configuration.md does not describe the block %s", block.Type)
		}
	}
	// These two have sections with more than their own examples.
	all := manual{}
	for _, heading := range []string{"election", "registry"} {
		s := m[heading]
		s.examples = append(slices.Clone(m["election"].examples), m["registry"].examples...)
		all[heading] = s
	}
	all.check(t, "election", names(zookeeperSchema))
	all.check(t, "registry", names(zookeeperSchema, bboltSchema))
}

// TestManualTables is that the tables of the core's blocks are those of the schema.
func TestManualTables(t *testing.T) {
	const page = "../docs/configuration.md"
	src, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(src)
	for _, at := range []struct {
		heading    string
		attributes [][]attribute // of each of its tables
	}{
		{"Top level", [][]attribute{topAttributes}},
		{"master", [][]attribute{masterAttributes}},
		{"revocation", [][]attribute{revocationAttributes}},
		{"domain", [][]attribute{domainAttributes}},
		{"agent", [][]attribute{agentAttributes}},
		{"fetcher", [][]attribute{fetcherAttributes}},
		{"secrets", [][]attribute{secretsAttributes}},
		{"tls", [][]attribute{tlsAttributes}},
		{"authorization", [][]attribute{authorizationAttributes, ruleAttributes}},
		{"telemetry", [][]attribute{tracingAttributes}},
		{"election", [][]attribute{zookeeperAttributes}},
		{"registry", [][]attribute{bboltAttributes, registryZookeeperAttributes}},
		{"role", [][]attribute{roleAttributes}},
		{"Plugin blocks", [][]attribute{pluginAttributes}},
		{"The lock file", [][]attribute{lockAttributes}},
	} {
		before, rest, ok := strings.Cut(text, "\n## "+at.heading+"\n")
		if !ok {
			t.Errorf("%s has no section %q", page, at.heading)
			continue
		}
		section, after, more := strings.Cut(rest, "\n## ")
		const head = "| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n"
		parts := strings.Split(section, head)
		if len(parts) != len(at.attributes)+1 {
			t.Errorf("%s, section %q: %d tables of attributes, want %d", page, at.heading, len(parts)-1, len(at.attributes))
			continue
		}
		for i, attributes := range at.attributes {
			var rows strings.Builder
			for _, a := range attributes {
				fmt.Fprintf(&rows, "| `%s` | %s | %s | %s |\n", a.name, a.kind, a.standard, a.meaning)
			}
			_, prose, _ := strings.Cut(parts[i+1], "\n\n")
			parts[i+1] = rows.String() + "\n" + prose
		}
		text = before + "\n## " + at.heading + "\n" + strings.Join(parts, head)
		if more {
			text += "\n## " + after
		}
	}
	text = withActions(text)
	switch {
	case *update:
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	case text != string(src):
		t.Errorf("%s is not what the schema says; go test ./config -run TestManualTables -update writes it:\n%s", page, cmp.Diff(string(src), text))
	}
}

// withActions is the manual with the table of actions that there are.
func withActions(manual string) string {
	const head = "| Allows to | Action | Has |\n|---|---|---|\n"
	before, rest, _ := strings.Cut(manual, head)
	_, after, _ := strings.Cut(rest, "\n\n")
	var rows strings.Builder
	for _, a := range authorization.Actions {
		var has []string
		for _, part := range []struct {
			name string
			has  bool
		}{{"role", a.Role}, {"user", a.User}, {"owner", a.Owner}} {
			if part.has {
				has = append(has, part.name)
			}
		}
		fmt.Fprintf(&rows, "| %s | `%s` | %s |\n", a.Meaning, a.Name, strings.Join(has, ", "))
	}
	return before + head + rows.String() + "\n" + after
}

// TestManualShowsPluginSettings is that an example sets every setting of the plugins
// that come with Mezzo. Their tables are written from what they say of themselves:
// see TestManualPluginTables in package test.
func TestManualShowsPluginSettings(t *testing.T) {
	m := readManual(t)
	block := regexp.MustCompile("(?m)^Block `([a-z0-9_]+)`")
	plugins := 0
	for heading, s := range m {
		if !strings.Contains(s.text, "<!-- mezzo plugin inspect --markdown ") {
			continue
		}
		plugins++
		m.check(t, heading, slices.Collect(maps.Keys(s.attributes)))
		for _, found := range block.FindAllStringSubmatch(s.text, -1) {
			if !regexp.MustCompile(`(?m)^\s*` + found[1] + ` .*\{$`).MatchString(s.text) {
				t.Errorf("docs/configuration.md, section %q has no example with the block %s", heading, found[1])
			}
		}
	}
	if plugins < 5 {
		t.Errorf("only %d plugins were found", plugins)
	}
}

// TestManualDefaults writes every default that a table shows into a file: it must
// resolve to what an empty file does.
func TestManualDefaults(t *testing.T) {
	m := readManual(t)
	literal := regexp.MustCompile("^`([^`]*)`$")
	body := func(heading string) string {
		var out strings.Builder
		for name, value := range m[heading].attributes {
			if found := literal.FindStringSubmatch(value); found != nil {
				fmt.Fprintf(&out, "%s = %s\n", name, found[1])
			}
		}
		return out.String()
	}
	written := load(t, ".hcl", fmt.Sprintf("data_dir = \"/d\"\n%smaster {\n%srevocation {\n%s}\n}\nagent {\n%sfetcher {\n%s}\n}\n",
		body("Top level"), body("master"), body("revocation"), body("agent"), body("fetcher")))
	empty := load(t, ".hcl", "data_dir = \"/d\"\nmaster {\n}\nagent {\n}\n")
	places := cmp.Options{cmpopts.IgnoreTypes(hcl.Range{}), cmpopts.IgnoreFields(Master{}, "Files"), cmpopts.IgnoreFields(Agent{}, "Files"), cmpopts.IgnoreFields(Plugin{}, "Body")}
	if diff := cmp.Diff(empty.master, written.master, places); diff != "" {
		t.Errorf("master (-default +as the manual has it):\n%s", diff)
	}
	if diff := cmp.Diff(empty.agent, written.agent, places); diff != "" {
		t.Errorf("agent (-default +as the manual has it):\n%s", diff)
	}
	if got := len(m["master"].attributes) + len(m["agent"].attributes); got < 24 {
		t.Errorf("only %d attributes were found in the tables", got)
	}
}

type resolved struct {
	master *Master
	agent  *Agent
}

// load resolves a text, which must be without fault.
func load(t *testing.T, ending, text string) (r resolved) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manual"+ending)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, diags := Load([]string{path})
	defaults := Defaults{Executable: "/usr/bin/mezzo", DataDir: "/d"}
	if !diags.HasErrors() && (file.HasMaster() || !file.HasAgent()) {
		master, more := file.ForMaster(defaults)
		r.master, diags = master, append(diags, more...)
	}
	if !diags.HasErrors() && (file.HasAgent() || !file.HasMaster()) {
		agent, more := file.ForAgent(defaults)
		r.agent, diags = agent, append(diags, more...)
	}
	for _, diag := range diags {
		t.Errorf("%s\n%s", diag, text)
	}
	return r
}

// TestManualExamples is that every example of the manual works.
func TestManualExamples(t *testing.T) {
	t.Setenv("HOSTNAME", "h1")
	count := 0
	for heading, s := range readManual(t) {
		for _, e := range s.examples {
			switch {
			case e.language == "json":
				load(t, ".json", e.text)
			case e.language != "hcl":
				continue
			case heading == "The lock file":
				path := filepath.Join(t.TempDir(), LockName)
				if err := os.WriteFile(path, []byte(e.text), 0o600); err != nil {
					t.Fatal(err)
				}
				if entries, diags := ReadLock(path); diags.HasErrors() || len(entries) == 0 {
					t.Errorf("the lock file has %d entries: %v", len(entries), diags)
				}
			default:
				load(t, ".hcl", e.text)
			}
			count++
		}
	}
	if count < 12 {
		t.Errorf("only %d examples were found", count)
	}
}
