package command

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// table prints aligned columns. On a terminal the widest columns are shortened
// until a row fits its width, but never the first, whose ids people copy;
// elsewhere nothing is cut.
type table struct {
	header []string
	rows   [][]string
}

func newTable(header ...string) *table { return &table{header: header} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

const columnGap = 2

// minColumn is the width below which a column is never shortened.
const minColumn = 8

// write prints the table in plain text.
func (t *table) write(w io.Writer) error { return t.render(w, terminalWidth(w), false) }

// print prints the table, with colours where they are wanted.
func (c *cli) print(t *table) error { return t.render(c.out, terminalWidth(c.out), c.colored(c.out)) }

// stateColumns are the columns whose cells are states.
var stateColumns = []string{"STATE", "MODE"}

// render prints the table for a width; 0: nothing is cut.
func (t *table) render(w io.Writer, width int, color bool) error {
	widths := t.widths()
	if width > 0 {
		shrink(widths, width)
	}
	for r, row := range append([][]string{t.header}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			short := shorten(cell, widths[i])
			pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(short)+columnGap, 0))
			if i == len(row)-1 {
				pad = ""
			}
			if color && r > 0 && slices.Contains(stateColumns, t.header[i]) {
				short = paint(stateColor(cell), short)
			}
			line.WriteString(short + pad)
		}
		text := strings.TrimRight(line.String(), " ")
		if color && r == 0 {
			text = paint(bold, text)
		}
		if _, err := fmt.Fprintln(w, text); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) widths() []int {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// shrink takes from the widest column until the row fits the limit.
func shrink(widths []int, limit int) {
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for total > limit {
		widest := 0
		for i := 1; i < len(widths); i++ {
			if widest == 0 || widths[i] > widths[widest] {
				widest = i
			}
		}
		if widest == 0 || widths[widest] <= minColumn {
			return
		}
		widths[widest]--
		total--
	}
}

func shorten(cell string, width int) string {
	if utf8.RuneCountInString(cell) <= width {
		return cell
	}
	return string([]rune(cell)[:width-1]) + "…"
}

// terminalWidth is the width of the terminal that w is, or 0 when it is none.
func terminalWidth(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
