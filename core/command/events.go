package command

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// eventKinds are the kinds that --kind takes; the last only when they are named.
var eventKinds = []string{kindTask, kindAgent, kindFramework, kindOperation, kindPlugin, kindRole, kindMaintenance, kindOffer}

func (c *cli) eventsCommand() *cobra.Command {
	w := &eventWriter{cli: c, encoder: wirejson.NewEncoder()}
	cmd := &cobra.Command{
		Use: "events [ID…]", Short: "Tell what happens, as it happens",
		Long: `Prints a line for each thing that happens from now on, until Ctrl-C: tasks that
start, change their state and end, agents and frameworks that come and go,
operations on resources, plugins that die and come back, weights, quota and the
maintenance schedule. The time is that of this machine when it heard of it.

With IDs, only what happens to these objects, and to what belongs to them: tasks on
an agent, tasks of a framework. An ID may be its beginning or its end, a host name
or a framework's name. Offers are told with --kind offer, and changes of amounts
alone, such as what an agent has allocated, with --all.

When another master takes over, it goes on with that one, and tells what has changed
meanwhile. An object that changes several times in a tenth of a second is told once.`,
		Example: "  mezzo events\n  mezzo events --kind task,agent\n  mezzo events spark --json | jq .object.state",
		RunE: func(cmd *cobra.Command, args []string) error {
			w.ids = args
			for i, kind := range w.kinds {
				w.kinds[i] = strings.TrimSuffix(strings.ToLower(kind), "s")
				if !slices.Contains(eventKinds, w.kinds[i]) {
					return usage("--kind %s: give some of %s", kind, strings.Join(eventKinds, ", "))
				}
			}
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&w.kinds, "kind", nil, "only these kinds, of "+strings.Join(eventKinds, ", "))
	cmd.Flags().BoolVarP(&w.all, "all", "a", false, "every change, of amounts too")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOfValue(jsonLines, eventLine{}))
	return cmd
}

// eventWriter prints what a watch tells.
type eventWriter struct {
	cli     *cli
	encoder *wirejson.Encoder
	kinds   []string // empty: all but offers
	ids     []string
	all     bool
	mirror  mirror
}

// eventLine is an event in JSON.
type eventLine struct {
	Time   string          `json:"time"`
	Kind   string          `json:"kind"`
	ID     string          `json:"id"`
	Change string          `json:"change"` // added, changed, removed
	Text   string          `json:"text"`
	Object json.RawMessage `json:"object"`
}

func (w *eventWriter) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	notice := notice{w: w.cli.err, what: "the stream of events"}
	feed, err := w.cli.watch(ctx, &operatorv1.WatchRequest{Operations: true})
	if err != nil {
		return err
	}
	for h := range feed {
		switch {
		case h.over:
			return h.lost
		case h.lost != nil:
			notice.isLost(h.lost)
		case h.conn != nil:
			w.mirror.begin()
		default:
			began := !w.mirror.whole()
			if h.event.GetSnapshotEnd() != nil {
				notice.isBack()
			}
			for _, d := range w.mirror.apply(h.event) {
				if err := w.write(&d); err != nil {
					return err
				}
			}
			if began && w.mirror.whole() && terminalWidth(w.cli.err) > 0 {
				fmt.Fprintln(w.cli.err, "mezzo: listening; what happens from now on is told. Ctrl-C ends it")
			}
		}
	}
	return nil
}

// write prints an event that is wanted.
func (w *eventWriter) write(d *delta) error {
	if !w.wanted(d) {
		return nil
	}
	text := w.mirror.describe(d)
	if text == "" && w.all {
		text = "changed: " + amountsText(d)
	}
	if text == "" {
		return nil
	}
	now := time.Now()
	if w.cli.json {
		return w.writeJSON(d, now, text)
	}
	kind := fmt.Sprintf("%-9s", d.key.kind)
	if w.cli.colored(w.cli.out) {
		color := dim
		if c := stateColor(stateOf(d.new)); c != "" {
			color = c
		} else if d.new == nil {
			color = red
		}
		kind = paint(color, kind)
	}
	_, err := fmt.Fprintf(w.cli.out, "%s  %s  %s  %s\n", now.Format(time.TimeOnly), kind, d.key.id, oneLine(text))
	return err
}

func (w *eventWriter) writeJSON(d *delta, now time.Time, text string) error {
	object, err := w.encoder.Marshal(d.object())
	if err != nil {
		return fmt.Errorf("%s %s as JSON: %w", d.key.kind, d.key.id, err)
	}
	line, err := json.Marshal(eventLine{
		Time: now.UTC().Format(time.RFC3339Nano), Kind: d.key.kind, ID: d.key.id, Change: d.change(), Text: text, Object: object,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.cli.out, "%s\n", line)
	return err
}

func (d *delta) change() string {
	switch {
	case d.old == nil:
		return "added"
	case d.new == nil:
		return "removed"
	}
	return "changed"
}

func (w *eventWriter) wanted(d *delta) bool {
	switch {
	case len(w.kinds) > 0 && !slices.Contains(w.kinds, d.key.kind):
		return false
	case len(w.kinds) == 0 && d.key.kind == kindOffer:
		return false
	case len(w.ids) == 0:
		return true
	}
	for _, name := range w.mirror.names(d) {
		for _, id := range w.ids {
			if name == id || name != "" && (strings.HasPrefix(name, id) || strings.HasSuffix(name, "-"+id)) {
				return true
			}
		}
	}
	return false
}

// oneLine keeps what others wrote to one line, and free of control characters.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
