package command

import (
	"slices"
	"strings"
	"testing"
)

func TestShrinkLeavesIdsWhole(t *testing.T) {
	for _, c := range []struct {
		name         string
		widths, want []int
		limit        int
	}{
		{"fits", []int{10, 10}, []int{10, 10}, 22},
		{"takes from the widest", []int{30, 20, 12}, []int{30, 12, 12}, 58},
		{"never the first column", []int{40, 12}, []int{40, 8}, 30},
		{"one column", []int{40}, []int{40}, 30},
	} {
		got := slices.Clone(c.widths)
		shrink(got, c.limit)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v at %d became %v, want %v", c.name, c.widths, c.limit, got, c.want)
		}
	}
}

// Where a table does not fit, columns without anything go first; of ids the end
// stays; and no line is wider than the terminal.
func TestTableOnANarrowTerminal(t *testing.T) {
	tab := newTable("ID", "STATE", "AGENT", "RESERVED", "MESSAGE")
	tab.row("web.1", "RUNNING", "0123456789abcdef-S0", "-", "")
	tab.row("web.22", "FAILED", "0123456789abcdef-S1", "", "")
	for width, want := range map[int][]string{
		0: {
			"ID      STATE    AGENT                RESERVED  MESSAGE", "web.1   RUNNING  0123456789abcdef-S0  -", "web.22  FAILED   0123456789abcdef-S1",
		},
		30: {"ID      STATE    AGENT", "web.1   RUNNING  …789abcdef-S0", "web.22  FAILED   …789abcdef-S1"},
		12: {"ID      STAT", "web.1   RUNN", "web.22  FAIL"},
	} {
		if got := tab.lines(width, false); !slices.Equal(got, want) {
			t.Errorf("at %d:\n%s", width, strings.Join(got, "\n"))
		}
	}
	if got := tab.lines(12, true)[2]; got != "web.22  \x1b[31mFAIL\x1b[0m" {
		t.Errorf("in colours, cut: %q", got)
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{{"naïve", 5, "naïve"}, {"naïveté", 5, "naïv…"}, {"", 3, ""}} {
		if got := shorten(c.in, c.width); got != c.want {
			t.Errorf("shorten(%q, %d) = %q, want %q", c.in, c.width, got, c.want)
		}
	}
}

func TestQuoteIsSafeForAShell(t *testing.T) {
	for in, want := range map[string]string{
		"--rpc": "--rpc", "127.0.0.1:0": "127.0.0.1:0", "": "''", "cpus:4;mem:1": "'cpus:4;mem:1'", "it's": `'it'\''s'`, "a b": "'a b'",
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
