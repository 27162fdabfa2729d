package command

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen is a terminal that is drawn again and again. While it is open, what the
// terminal showed before is kept aside.
type screen struct {
	out  io.Writer
	last []string // as it was drawn, uncut
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another buffer, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// openScreen returns nil when out is no terminal, or one that only writes.
func openScreen(out io.Writer) *screen {
	if terminalWidth(out) == 0 || os.Getenv("TERM") == "dumb" {
		return nil
	}
	_, _ = io.WriteString(out, enterScreen)
	return &screen{out: out}
}

// close gives the terminal back, with what was drawn last if keep is set.
func (s *screen) close(keep bool) {
	_, _ = io.WriteString(s.out, leaveScreen)
	if keep {
		for _, line := range s.last {
			_, _ = fmt.Fprintln(s.out, line)
		}
	}
}

// draw shows lines, as many as there is room for, each cut to the width. If there
// are more, the last line says how many.
func (s *screen) draw(lines []string) error {
	s.last = lines
	width, height := terminalSize(s.out)
	if height > 0 && len(lines) > height {
		hidden := len(lines) - height + 1
		lines = append(append([]string(nil), lines[:height-1]...), fmt.Sprintf("… %d more", hidden))
	}
	var text strings.Builder
	text.WriteString(home)
	for i, line := range lines {
		if i > 0 {
			text.WriteString("\r\n")
		}
		text.WriteString(cutLine(line, width) + clearLine)
	}
	text.WriteString(clearBelow)
	_, err := io.WriteString(s.out, text.String())
	return err
}

// cutLine cuts a line to a width, colours not counted; 0: it is not cut.
func cutLine(line string, width int) string {
	if width <= 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	var out strings.Builder
	room, colored := width, false
	for len(line) > 0 {
		if line[0] == '\x1b' {
			end := strings.IndexByte(line, 'm') + 1
			if end == 0 {
				break
			}
			out.WriteString(line[:end])
			line, colored = line[end:], true
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		if room--; room < 0 {
			break
		}
		out.WriteString(line[:size])
		line = line[size:]
	}
	if colored {
		out.WriteString(plainC)
	}
	return out.String()
}

// terminalSize is the size of the terminal that w is, or zeros.
func terminalSize(w io.Writer) (width, height int) {
	file, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// terminalWidth is the width of the terminal that w is, or 0 when it is none.
func terminalWidth(w io.Writer) int {
	width, _ := terminalSize(w)
	return width
}

// resizes tells when the terminal changes its size.
func resizes() (changed <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH)
	return signals, func() { signal.Stop(signals) }
}
