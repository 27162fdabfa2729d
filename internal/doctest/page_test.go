package doctest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	page, err := Parse("p.md", strings.ReplaceAll(`# A page
<!-- commands: dev containerd -->

'''sh
one
two
'''

Prose.

'''text
out
'''

'''hcl
master {}
'''

'''sh terminal=2
stays
'''
'''text
ready …
'''
<!-- terminal 2: Ctrl-C -->
'''text
not of any command
'''
'''sh until
again
'''
'''text
'''
`, "'''", "```"))
	want := Page{Name: "p.md", Needs: []string{"dev", "containerd"}, Blocks: []Block{
		{Line: 4, Text: "one\ntwo\n", Output: "out\n", Shown: true},
		{Line: 19, Text: "stays\n", Terminal: "2", Output: "ready …\n", Shown: true},
		{Line: 25, Terminal: "2"},
		{Line: 29, Text: "again\n", Until: true, Shown: true},
	}}
	if diff := cmp.Diff(want, page); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, complaint := range map[string]string{
		"'''sh\none\n":                      "does not end",
		"'''sh sometimes\none\n'''":         "not understood",
		"'''sh terminal\none\n'''":          "not understood",
		"'''sh terminal=1\none\n'''":        "does not say what this prints",
		"'''sh until\none\n'''":             "does not say what this prints",
		"'''console\n$ one\n'''":            "is not run",
		"'''\n$ mezzo run -- true\n'''":     "is not run",
		"'''\nmezzo run -- true\n'''":       "is not run",
		"<!-- terminal 1, Ctrl-C -->":       "not understood",
		"'''sh\none\n'''\n<!-- commands: -": "not understood",
	} {
		_, err := Parse("p.md", strings.ReplaceAll(text, "'''", "```"))
		if err == nil || !strings.Contains(err.Error(), complaint) || !strings.HasPrefix(err.Error(), "p.md:") {
			t.Errorf("%q: %v, want an error with its place that says %q", text, err, complaint)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		shown, output string
		begin, want   bool
	}{
		{"one\n", "one\n", false, true},
		{"one\n", "one", false, true},
		{"one\n", "one\ntwo\n", false, false},
		{"one\n", "one\ntwo\n", true, true},
		{"one\n", "once\n", false, false},
		{"", "", false, true},
		{"", "one\n", false, false},
		{"a … c\n", "a b c\n", false, true},
		{"a … c\n", "a b\nb c\n", false, false},
		{"…\nlast\n", "last\n", false, true},
		{"…\nlast\n", "1\n2\nlast\n", false, true},
		{"first\n…\n", "first\n", false, true},
		{"ID   NAME\n1    a.b\n", "ID  NAME\n1     a.b  \n", false, true},
		{"1    a.b\n", "1 a.b\n", false, true},
		{"1    a.b\n", "1   aXb\n", false, false},
		{"a b\n", "a  b\n", false, false},
	} {
		if got := Match(c.shown, c.output, c.begin); got != c.want {
			t.Errorf("Match(%q, %q, %v) = %v", c.shown, c.output, c.begin, got)
		}
	}
}
