package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/mitchellh/go-wordwrap"
)

// Format says how diagnostics are printed.
type Format struct {
	// Width wraps texts and shortens source lines; 0 does neither.
	Width int
	// Color uses VT100 escape sequences.
	Color bool
}

// secretPlace is the Extra of a diagnostic whose line holds a secret.
type secretPlace struct{}

// otherPlace is the Extra of a diagnostic about two places: it is the one that
// is not the subject.
type otherPlace struct{ rng hcl.Range }

// WriteDiagnostics prints diagnostics as HCL does, with the column, and with the
// words in question underlined:
//
//	Error: Unsupported argument
//
//	  on master.hcl line 7, column 3, in master:
//	   7:   offer_timeot = "5m"
//	        ^^^^^^^^^^^^
//
//	An argument named "offer_timeot" is not expected here. Did you mean "offer_timeout"?
//
// sources are the parsed files by name; see File.Sources. A line that holds a
// secret is not shown.
func WriteDiagnostics(w io.Writer, sources map[string]*hcl.File, diags hcl.Diagnostics, f Format) error {
	var out bytes.Buffer
	for _, diag := range diags {
		f.write(&out, sources, diag)
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (f Format) write(out *bytes.Buffer, sources map[string]*hcl.File, diag *hcl.Diagnostic) {
	word, color := "Error", "\x1b[31m"
	if diag.Severity == hcl.DiagWarning {
		word, color = "Warning", "\x1b[33m"
	}
	if f.Color {
		word = color + word + "\x1b[0m"
	}
	fmt.Fprintf(out, "%s: %s\n\n", word, diag.Summary)
	if diag.Subject != nil {
		_, secret := diag.Extra.(secretPlace)
		f.snippet(out, sources[diag.Subject.Filename], *diag.Subject, secret)
	}
	if other, ok := diag.Extra.(otherPlace); ok {
		f.snippet(out, sources[other.rng.Filename], other.rng, false)
	}
	if diag.Detail != "" {
		detail := diag.Detail
		if f.Width > 0 {
			detail = wordwrap.WrapString(detail, uint(f.Width))
		}
		fmt.Fprintf(out, "%s\n\n", detail)
	}
}

// snippet prints a place and its first line.
func (f Format) snippet(out *bytes.Buffer, file *hcl.File, at hcl.Range, secret bool) {
	fmt.Fprintf(out, "  on %s line %d, column %d%s:\n", at.Filename, at.Start.Line, at.Start.Column, inBlock(file, at))
	before, marked, after, ok := splitLine(file, at)
	switch {
	case secret:
		out.WriteString("  (the line holds a secret and is not shown)\n\n")
		return
	case !ok:
		out.WriteString("  (the source is not at hand)\n\n")
		return
	}
	number := fmt.Sprintf("%4d: ", at.Start.Line)
	if f.Width > 0 {
		before, marked, after = shorten(before, marked, after, max(20, f.Width-len(number)))
	}
	if f.Color {
		fmt.Fprintf(out, "%s%s\x1b[1;4m%s\x1b[0m%s\n\n", number, before, marked, after)
		return
	}
	indent := strings.Map(func(r rune) rune {
		if r == '\t' {
			return '\t'
		}
		return ' '
	}, number+before)
	fmt.Fprintf(out, "%s%s%s%s\n%s%s\n\n", number, before, marked, after,
		indent, strings.Repeat("^", max(1, utf8.RuneCountInString(marked))))
}

// inBlock is ", in master" for a place in the master block.
func inBlock(file *hcl.File, at hcl.Range) string {
	if file == nil {
		return ""
	}
	if nav, ok := file.Nav.(interface{ ContextString(offset int) string }); ok {
		if block := nav.ContextString(at.Start.Byte); block != "" {
			return ", in " + block
		}
	}
	return ""
}

// splitLine cuts the first line of a range into what stands before, in and
// after it.
func splitLine(file *hcl.File, at hcl.Range) (before, marked, after string, ok bool) {
	if file == nil || at.Start.Byte < 0 || at.Start.Byte > len(file.Bytes) || at.End.Byte < at.Start.Byte {
		return "", "", "", false
	}
	src := file.Bytes
	start := bytes.LastIndexByte(src[:at.Start.Byte], '\n') + 1
	end := len(src)
	if n := bytes.IndexByte(src[at.Start.Byte:], '\n'); n >= 0 {
		end = at.Start.Byte + n
	}
	stop := min(at.End.Byte, end)
	printable := func(b []byte) string {
		return strings.Map(func(r rune) rune {
			if r == utf8.RuneError || r < ' ' && r != '\t' || r == 0x7f {
				return '\uFFFD'
			}
			return r
		}, strings.TrimSuffix(string(b), "\r"))
	}
	return printable(src[start:at.Start.Byte]), printable(src[at.Start.Byte:stop]), printable(src[stop:end]), true
}

// shorten cuts a line to a width, keeping the beginning of what is marked.
func shorten(before, marked, after string, width int) (string, string, string) {
	b, m, a := []rune(before), []rune(marked), []rune(after)
	if len(b)+len(m)+len(a) <= width {
		return before, marked, after
	}
	if keep := width / 2; len(b) > keep {
		b = append([]rune("…"), b[len(b)-keep+1:]...)
	}
	if room := width - len(b); len(m) >= room {
		m, a = append(m[:room-1:room-1], '…'), nil
	}
	if room := width - len(b) - len(m); len(a) > room {
		a = append(a[:max(0, room-1):max(0, room-1)], '…')
		if room <= 0 {
			a = nil
		}
	}
	return string(b), string(m), string(a)
}

// DiagnosticText is what WriteDiagnostics prints of a file's diagnostics, plain
// and without a limit of width; empty when there are none.
func DiagnosticText(f *File, diags hcl.Diagnostics) string {
	var out bytes.Buffer
	_ = WriteDiagnostics(&out, f.Sources(), diags, Format{}) // into memory
	return out.String()
}

// Finding is a diagnostic for programs.
type Finding struct {
	Severity string `json:"severity"` // "error" or "warning"
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	// Where it is; empty for what has no place, such as a file that is missing.
	// Lines and columns count from 1, columns in characters.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// The other place, where two are at odds.
	OtherFile   string `json:"other_file,omitempty"`
	OtherLine   int    `json:"other_line,omitempty"`
	OtherColumn int    `json:"other_column,omitempty"`
}

// Findings are diagnostics for programs, in their order; never nil.
func Findings(diags hcl.Diagnostics) []Finding {
	out := []Finding{}
	for _, diag := range diags {
		f := Finding{Severity: "error", Summary: diag.Summary, Detail: diag.Detail}
		if diag.Severity == hcl.DiagWarning {
			f.Severity = "warning"
		}
		if at := diag.Subject; at != nil {
			f.File, f.Line, f.Column = at.Filename, at.Start.Line, at.Start.Column
		}
		if other, ok := diag.Extra.(otherPlace); ok {
			f.OtherFile, f.OtherLine, f.OtherColumn = other.rng.Filename, other.rng.Start.Line, other.rng.Start.Column
		}
		out = append(out, f)
	}
	return out
}
