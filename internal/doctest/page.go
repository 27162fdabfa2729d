// Package doctest runs the commands that a page of documentation shows, and
// compares what they print with what the page says that they print.
//
// A page is plain Markdown. Its blocks of `sh` run in their order, in one shell,
// in one directory, on a machine that has only what the page has started on it.
// A block of `text` that follows, with nothing but prose between, is what the
// commands print; `…` stands for any text in a line, a line of `…` alone for any
// number of lines, and two spaces or more for any number of spaces.
//
//	```sh                 runs to its end, and no command of it may fail
//	```sh until           again and again, until it prints what the page says
//	```sh terminal=2      stays in the foreground of a terminal of its own. What
//	                      it prints must begin as the page says. What runs in
//	                      that terminal already is ended by Ctrl-C first
//	<!-- terminal 2: Ctrl-C -->   ends it
//	<!-- commands: WORDS -->      what the page needs to be there; see [Page.Needs]
package doctest

import (
	"fmt"
	"regexp"
	"strings"
)

// Page is the commands of a page.
type Page struct {
	Name   string
	Needs  []string // the words of its `commands` comment
	Blocks []Block
}

// Block is one piece of a page that does something.
type Block struct {
	Line     int    // where it begins
	Text     string // the commands; empty when it only ends what runs in a terminal
	Terminal string // where it stays; empty for the page's shell
	Until    bool
	Output   string // what it prints, when the page says it
	Shown    bool   // whether the page says it
}

var (
	fence     = regexp.MustCompile("^```([a-z]*) *(.*)$")
	needs     = regexp.MustCompile(`^<!-- commands: ([a-z ]+) -->$`)
	interrupt = regexp.MustCompile(`^<!-- terminal ([a-z0-9]+): Ctrl-C -->$`)
)

// Parse reads a page.
func Parse(name, markdown string) (Page, error) {
	p := Page{Name: name}
	var language, words string
	var text strings.Builder
	begin, inside := 0, false
	for n, line := range strings.Split(markdown, "\n") {
		if inside {
			if line != "```" {
				text.WriteString(line + "\n")
				continue
			}
			inside = false
			if err := p.add(language, words, begin, text.String()); err != nil {
				return Page{}, fmt.Errorf("%s:%d: %w", name, begin, err)
			}
			continue
		}
		if found := fence.FindStringSubmatch(line); found != nil {
			inside, begin, language, words = true, n+1, found[1], found[2]
			text.Reset()
		} else if found := needs.FindStringSubmatch(line); found != nil {
			p.Needs = append(p.Needs, strings.Fields(found[1])...)
		} else if found := interrupt.FindStringSubmatch(line); found != nil {
			p.Blocks = append(p.Blocks, Block{Line: n + 1, Terminal: found[1]})
		} else if strings.HasPrefix(line, "<!-- terminal") || strings.HasPrefix(line, "<!-- commands") {
			return Page{}, fmt.Errorf("%s:%d: not understood: %s", name, n+1, line)
		}
	}
	if inside {
		return Page{}, fmt.Errorf("%s:%d: this block does not end", name, begin)
	}
	for _, b := range p.Blocks {
		if b.Text != "" && !b.Shown && (b.Terminal != "" || b.Until) {
			return Page{}, fmt.Errorf("%s:%d: the page does not say what this prints: a block of text is missing after it", name, b.Line)
		}
	}
	return p, nil
}

func (p *Page) add(language, words string, line int, text string) error {
	switch language {
	case "sh":
		b := Block{Line: line, Text: text}
		for _, word := range strings.Fields(words) {
			key, value, _ := strings.Cut(word, "=")
			switch {
			case word == "until":
				b.Until = true
			case key == "terminal" && value != "":
				b.Terminal = value
			default:
				return fmt.Errorf("%q is not understood; it can be until or terminal=NAME", word)
			}
		}
		p.Blocks = append(p.Blocks, b)
	case "text":
		if n := len(p.Blocks) - 1; n >= 0 && !p.Blocks[n].Shown && p.Blocks[n].Text != "" {
			p.Blocks[n].Output, p.Blocks[n].Shown = text, true
		}
	case "console", "bash", "shell":
		return fmt.Errorf("a block of %s is not run: commands stand in blocks of sh, and what they print in blocks of text", language)
	case "":
		for command := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimPrefix(command, "$ "), "mezzo ") {
				return fmt.Errorf("a command in a block without a language is not run: commands stand in blocks of sh: %s", strings.TrimSpace(command))
			}
		}
	}
	return nil
}

var (
	dots   = regexp.MustCompile(`…`)
	spaces = regexp.MustCompile(`  +`)
)

// Match says whether output is what the page shows; with begin, whether it
// begins so.
func Match(shown, output string, begin bool) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for line := range strings.Lines(shown) {
		line = strings.TrimRight(line, " \n")
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := dots.Split(line, -1)
		for i, part := range parts {
			words := spaces.Split(part, -1)
			for j, word := range words {
				words[j] = regexp.QuoteMeta(word)
			}
			parts[i] = strings.Join(words, ` +`)
		}
		pattern.WriteString(strings.Join(parts, `.*?`) + ` *\n`)
	}
	if !begin {
		pattern.WriteString(`\z`)
	}
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	return regexp.MustCompile(pattern.String()).MatchString(output)
}
