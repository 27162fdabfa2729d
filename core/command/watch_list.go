package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

const (
	// redrawAfter is how soon after one drawing there may be another.
	redrawAfter = 250 * time.Millisecond
	// askAfter is how soon after one question there may be another, and that it is
	// asked so much more slowly than it is answered.
	askAfter, askShare = 500 * time.Millisecond, 4
	// askAgain is how often it is asked though nothing is heard: agents tell
	// masters not all that is listed of them.
	askAgain = 15 * time.Second
)

// listWatch is a list that is shown again and again.
type listWatch[T proto.Message] struct {
	c      *cli
	l      *list[T]
	title  string
	args   []string
	mirror mirror
	screen *screen // nil: it is no terminal
	// shown are the items by their keys; without a kind, as they were answered.
	shown   map[objectKey]proto.Message
	items   []T    // as they are answered, in order
	known   bool   // there has been an answer
	partial string // why it had not all; empty: it had
	widths  []int
	lost    string // why there is no master; empty: there is one
	notice  notice
	conn    *grpc.ClientConn
	answers chan answered[T]
	asked   bool // an answer is awaited
	stale   bool // something has changed since it was asked for
	encoder *wirejson.Encoder
}

// answered is what a question was answered with.
type answered[T proto.Message] struct {
	items []T
	err   error
	took  time.Duration
}

func watchList[T proto.Message](ctx context.Context, c *cli, l *list[T], title string, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed, err := c.watch(ctx, &operatorv1.WatchRequest{})
	if err != nil {
		return err
	}
	w := &listWatch[T]{
		c: c, l: l, notice: notice{w: c.err, what: "the stream of changes"}, title: strings.Join(append([]string{title}, args...), " "), args: args,
		answers: make(chan answered[T], 1), encoder: wirejson.NewEncoder(), shown: map[objectKey]proto.Message{},
	}
	if !c.json {
		w.screen = openScreen(c.out)
	}
	if w.screen != nil {
		defer w.screen.close(true)
	}
	return w.run(ctx, feed)
}

// run shows what changes until the feed ends.
func (w *listWatch[T]) run(ctx context.Context, feed <-chan heard) error {
	sizes, stop := resizes()
	defer stop()
	every := time.NewTicker(time.Second)
	defer every.Stop()
	var due <-chan time.Time // of the next question or drawing
	next, asked := time.Now(), time.Now()
	for {
		var err error
		select {
		case h, open := <-feed:
			if !open {
				return nil
			}
			var changed bool
			if changed, err = w.hear(h); changed && w.asked {
				w.stale = true
			} else if changed && due == nil {
				due = time.After(time.Until(next))
			}
		case <-due:
			due = nil
			if w.l.kind == "" {
				w.ask(ctx)
				asked = time.Now()
			} else {
				next = time.Now().Add(redrawAfter)
				err = w.draw()
			}
		case a := <-w.answers:
			next = time.Now().Add(max(askAfter, askShare*a.took))
			if err = w.answered(a); w.stale {
				due = time.After(time.Until(next))
			}
		case <-every.C:
			if w.l.kind == "" && due == nil && !w.asked && time.Since(asked) > cmp.Or(w.l.again, askAgain) {
				due = time.After(0)
			}
			err = w.draw() // ages
		case <-sizes:
			err = w.draw()
		}
		if err != nil {
			return err
		}
	}
}

// hear takes over what a watch tells. It returns whether there is something new to
// draw, or to ask for.
func (w *listWatch[T]) hear(h heard) (changed bool, err error) {
	switch {
	case h.over:
		return false, h.lost
	case h.lost != nil:
		w.lost = h.lost.Error()
		if w.screen == nil {
			w.notice.isLost(h.lost)
		}
		return false, w.draw()
	case h.conn != nil:
		w.conn = h.conn
		w.mirror.begin()
		return false, nil
	}
	began := !w.mirror.whole()
	deltas := w.mirror.apply(h.event)
	if h.event.GetSnapshotEnd() != nil {
		w.lost, changed = "", true
		w.notice.isBack()
		if began && w.l.kind != "" {
			deltas = difference(nil, w.mirror.objects)
		}
	}
	if w.l.kind == "" {
		return changed || len(deltas) > 0, nil
	}
	deltas = slices.DeleteFunc(deltas, func(d delta) bool { return d.key.kind != w.l.kind })
	if began && w.l.compare != nil {
		slices.SortStableFunc(deltas, func(a, b delta) int { return w.l.compare(a.new.(T), b.new.(T)) })
	}
	if w.screen == nil {
		return false, w.tell(deltas)
	}
	return changed || len(deltas) > 0, nil
}

// ask asks for the items, on a goroutine of its own.
func (w *listWatch[T]) ask(ctx context.Context) {
	w.asked, w.stale = true, false
	conn, args := w.conn, w.args
	go func() {
		ctx, cancel := context.WithTimeout(ctx, queryTimeout)
		defer cancel()
		began := time.Now()
		items, err := w.l.fetch(ctx, operatorv1.NewOperatorClient(conn), args)
		w.answers <- answered[T]{items, plain(err), time.Since(began)}
	}()
}

func (w *listWatch[T]) answered(a answered[T]) error {
	w.asked = false
	if a.err != nil && len(a.items) == 0 {
		return nil // when the master is lost, the watch says so; then it is asked again
	}
	before := w.partial
	w.known, w.partial = true, ""
	if a.err != nil {
		w.partial = a.err.Error()
	}
	if w.screen == nil && w.partial != before && w.partial != "" {
		fmt.Fprintf(w.c.err, "mezzo: %s\n", w.partial)
	}
	now := map[objectKey]proto.Message{}
	for _, item := range a.items {
		now[objectKey{id: w.l.key(item)}] = item
	}
	deltas := difference(w.shown, now)
	w.items, w.shown = a.items, now
	if w.screen == nil {
		return w.tell(deltas)
	}
	return w.draw()
}

// draw draws the screen, if there is one.
func (w *listWatch[T]) draw() error {
	if w.screen == nil || !w.mirror.whole() {
		return nil
	}
	items := w.items
	if w.l.kind != "" {
		items = nil
		for _, item := range objectsOf(&w.mirror, w.l.kind, w.l.compare) {
			if w.l.keep(item) && w.l.shown(item) {
				items = append(items, item)
			}
		}
	} else if !w.known {
		return nil
	}
	color := w.c.colored(w.c.out)
	style := func(code, text string) string {
		if !color {
			return text
		}
		return paint(code, text)
	}
	lines := []string{style(dim, fmt.Sprintf("%s, at %s; Ctrl-C ends it", w.title, time.Now().Format(time.TimeOnly)))}
	if w.lost != "" {
		lines = append(lines, style(red, "No master answers; this is what was known last: "+oneLine(w.lost)))
	}
	if w.partial != "" {
		lines = append(lines, style(red, oneLine(w.partial)))
	}
	var text bytes.Buffer
	if err := w.l.write(&text, items, terminalWidth(w.c.out), color); err != nil {
		return err
	}
	return w.screen.draw(append(lines, strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")...))
}

// tell prints a line for each change of what is, or was, listed.
func (w *listWatch[T]) tell(deltas []delta) error {
	t := newTable(w.l.header...)
	var rows []delta
	for _, d := range deltas {
		if w.wanted(&d) {
			rows = append(rows, d)
			t.row(w.cells(&d)...)
		}
	}
	if w.c.json {
		return w.tellJSON(rows)
	}
	if len(rows) == 0 {
		return nil
	}
	// Columns only grow, so that what fits under the header stays there.
	first := w.widths == nil
	widths := t.widths()
	for i := range w.widths {
		widths[i] = max(widths[i], w.widths[i])
	}
	w.widths = widths
	if first {
		fmt.Fprintln(w.c.out, t.line(t.header, widths, false))
	}
	color := w.c.colored(w.c.out)
	for _, row := range t.rows {
		if _, err := fmt.Fprintln(w.c.out, t.line(row, widths, color)); err != nil {
			return err
		}
	}
	return nil
}

// ageColumns are the columns that change by themselves.
var ageColumns = []string{"AGE", "SINCE", "USED"}

// wanted reports whether a change is to be told: of what is meant and listed, or
// was; and in text only if what is shown of it differs, apart from ages.
func (w *listWatch[T]) wanted(d *delta) bool {
	if !w.l.keep(d.object().(T)) {
		return false
	}
	old, wasThere := d.old.(T)
	object, isThere := d.new.(T)
	if !(wasThere && w.l.shown(old) || isThere && w.l.shown(object)) {
		return false
	}
	if w.c.json || !wasThere || !isThere {
		return true
	}
	before, after := w.l.row(old), w.l.row(object)
	for i, title := range w.l.header {
		if before[i] != after[i] && !slices.Contains(ageColumns, title) {
			return true
		}
	}
	return false
}

// cells are a change as a row.
func (w *listWatch[T]) cells(d *delta) []string {
	row := w.l.row(d.object().(T))
	if d.new != nil {
		return row
	}
	at := max(slices.IndexFunc(w.l.header, func(title string) bool { return slices.Contains(stateColumns, title) }), 1)
	for i := range row {
		switch {
		case i == at:
			row[i] = "removed"
			if task, ok := d.old.(*operatorv1.Task); ok && !taskEnded(task) && w.mirror.isAway(task.AgentId) {
				row[i] = "not known"
			}
		case i > at:
			row[i] = ""
		}
	}
	return row
}

// changeLine is a change of a list in JSON.
type changeLine struct {
	Time   string          `json:"time"`
	ID     string          `json:"id"`
	Change string          `json:"change"` // added, changed, removed
	Object json.RawMessage `json:"object"`
}

func (w *listWatch[T]) tellJSON(rows []delta) error {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	for _, d := range rows {
		object, err := w.encoder.Marshal(d.object())
		if err != nil {
			return err
		}
		line, err := json.Marshal(changeLine{now, w.l.key(d.object().(T)), d.change(), object})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w.c.out, "%s\n", line); err != nil {
			return err
		}
	}
	return nil
}
