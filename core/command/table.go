package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// table prints aligned columns. On a terminal where a row does not fit, columns
// with nothing in them are left out, and the widest are shortened, but never the
// first, whose ids people copy; elsewhere nothing is cut.
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

// idColumns are the columns with ids of other objects, whose ends tell them apart.
var idColumns = []string{"AGENT", "HOST", "FRAMEWORK"}

// stateColumns are the columns whose cells are states.
var stateColumns = []string{"STATE", "MODE"}

// render prints the table for a width; 0: nothing is cut.
func (t *table) render(w io.Writer, width int, color bool) error {
	for _, line := range t.lines(width, color) {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// lines are the header and the rows.
func (t *table) lines(width int, color bool) []string {
	widths := t.widths()
	if width > 0 && total(widths) > width {
		t = t.compact()
		widths = t.widths()
		shrink(widths, width)
	}
	head := t.line(t.header, widths, false)
	if color {
		head = paint(bold, head)
	}
	lines := []string{cutLine(head, width)}
	for _, row := range t.rows {
		lines = append(lines, cutLine(t.line(row, widths, color), width))
	}
	return lines
}

// compact is the table without the columns in which no row has anything.
func (t *table) compact() *table {
	out := &table{rows: make([][]string, len(t.rows))}
	for i, title := range t.header {
		filled := i == 0 || slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != "" && row[i] != "-" })
		if !filled {
			continue
		}
		out.header = append(out.header, title)
		for r, row := range t.rows {
			out.rows[r] = append(out.rows[r], row[i])
		}
	}
	return out
}

func (t *table) line(row []string, widths []int, color bool) string {
	var line strings.Builder
	for i, cell := range row {
		short := shorten(cell, widths[i])
		if slices.Contains(idColumns, t.header[i]) {
			short = shortenFront(cell, widths[i])
		}
		pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(short)+columnGap, 0))
		if color && slices.Contains(stateColumns, t.header[i]) {
			short = paint(stateColor(cell), short)
		}
		line.WriteString(short + pad)
	}
	return strings.TrimRight(line.String(), " ")
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
	for left := total(widths) - limit; left > 0; left-- {
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
	}
}

// total is how wide a row is.
func total(widths []int) int {
	sum := columnGap * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

func shorten(cell string, width int) string {
	if utf8.RuneCountInString(cell) <= width {
		return cell
	}
	return string([]rune(cell)[:width-1]) + "…"
}

// shortenFront takes from the beginning.
func shortenFront(cell string, width int) string {
	runes := []rune(cell)
	if len(runes) <= width {
		return cell
	}
	return "…" + string(runes[len(runes)-width+1:])
}
