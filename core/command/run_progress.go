package command

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// progressLine says how far something is: on a terminal in one line that changes
// and is gone in the end, elsewhere in a line each time. Its methods may be called
// by one at a time.
type progressLine struct {
	w     io.Writer
	width func() int // of the terminal; 0: it is none
	shown bool
}

func newProgressLine(w io.Writer) *progressLine {
	return &progressLine{w: w, width: func() int {
		f, ok := w.(*os.File)
		if !ok || !term.IsTerminal(int(f.Fd())) {
			return 0
		}
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return width
		}
		return 80
	}}
}

// eraseLine goes to the line's begin, and makes it empty.
const eraseLine = "\r\x1b[K"

func (p *progressLine) show(text string) {
	text = "mezzo: " + text
	width := p.width()
	if width == 0 {
		fmt.Fprintln(p.w, text)
		return
	}
	// A line that is as long as the terminal is wide would begin another. What
	// changes is at the end.
	if letters := []rune(text); len(letters) >= width && width > 2 {
		head := width / 3
		text = string(letters[:head]) + "…" + string(letters[len(letters)-(width-2-head):])
	}
	fmt.Fprint(p.w, eraseLine+text)
	p.shown = true
}

// clear takes the line away, before something else is written.
func (p *progressLine) clear() {
	if p.shown {
		fmt.Fprint(p.w, eraseLine)
		p.shown = false
	}
}
