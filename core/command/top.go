package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// What top can list, and sort by.
var (
	topViews = []string{"agents", "frameworks", "roles", "tasks"}
	topSorts = []string{"cpus", "mem", "cpus-used", "mem-used", "tasks", "name"}
)

// minInterval is how often agents may be asked at most.
const minInterval = 500 * time.Millisecond

func (c *cli) topCommand() *cobra.Command {
	t := &top{c: c, notice: notice{w: c.err, what: "the master"}}
	cmd := &cobra.Command{
		Use: "top", Short: "Show what is allocated and used, as it changes", Args: cobra.NoArgs,
		Long: `Shows what the cluster has, what of it is allocated and offered, and who has it: the
agents, frameworks, roles or tasks, those with most first. Used is what containers
really use, as their agents measure it: processors over the last interval, memory
now. At most 64 agents are asked for that, those with most allocated; what others
run has a dash.

It is drawn again at each change. Keys: a, f, r, t list agents, frameworks, roles or
tasks; c, m, n sort by processors, memory or name, C and M by what is used; the arrows
and the space bar scroll; q ends it. Where standard output is no terminal, it is
printed once, after one interval.`,
		Example: "  mezzo top\n  mezzo top --by tasks --sort mem-used\n  mezzo top --by roles --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !slices.Contains(topViews, t.view):
				return usage("--by %s: give one of %s", t.view, strings.Join(topViews, ", "))
			case !slices.Contains(topSorts, t.sort):
				return usage("--sort %s: give one of %s", t.sort, strings.Join(topSorts, ", "))
			case t.interval < minInterval:
				return usage("--interval %s: give %s at least", t.interval, minInterval)
			}
			return t.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.view, "by", "agents", "what to list: "+strings.Join(topViews, ", "))
	f.StringVar(&t.sort, "sort", "cpus", "what has most of comes first: "+strings.Join(topSorts, ", "))
	f.DurationVar(&t.interval, "interval", 2*time.Second, "how often agents are asked for what is used")
	f.BoolVar(&t.once, "once", false, "print it once, also on a terminal")
	if err := cmd.RegisterFlagCompletionFunc("by", fixed(topViews...)); err != nil {
		panic(err) // the flag is there
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOfValue(jsonList, topRow{}))
	return cmd
}

// top is one run of `mezzo top`.
type top struct {
	c          *cli
	view, sort string
	interval   time.Duration
	once       bool

	mirror mirror
	status *operatorv1.Status // nil: not known yet
	meter  meter
	lost   string // why there is no master; empty: there is one
	notice notice
	conn   *grpc.ClientConn
	screen *screen
	scroll int
	page   int // how many rows there is room for
}

func (t *top) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feed, err := t.c.watch(ctx, &operatorv1.WatchRequest{})
	if err != nil {
		return err
	}
	if t.c.json {
		t.once = true
	}
	var keys <-chan byte
	if !t.once {
		t.screen = openScreen(t.c.out)
	}
	if t.screen != nil {
		defer t.screen.close(false)
		if in, is := t.c.terminal(); is {
			restore, err := rawTerminal(in)
			if err != nil {
				return err
			}
			defer restore()
			keys = typed(ctx, in)
		}
	}
	err = t.loop(ctx, feed, keys)
	cancel()
	if keys != nil {
		for range keys { // until nobody reads the terminal any more
		}
	}
	return err
}

// keyPoll is how long after the end of a context keys are read at most.
const keyPoll = 50 // milliseconds

// typed sends what is typed, until the input or ctx ends.
func typed(ctx context.Context, in *os.File) <-chan byte {
	keys := make(chan byte)
	go func() {
		defer close(keys)
		buffer := make([]byte, 16)
		for ctx.Err() == nil {
			// A read would wait, and take a key that is meant for who comes next.
			waiting := []unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}
			if n, err := unix.Poll(waiting, keyPoll); n == 0 || errors.Is(err, unix.EINTR) {
				continue
			}
			n, err := in.Read(buffer)
			for _, b := range buffer[:n] {
				select {
				case keys <- b:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return keys
}

// loop draws until it is ended, or prints once.
func (t *top) loop(ctx context.Context, feed <-chan heard, keys <-chan byte) error {
	sizes, stop := resizes()
	defer stop()
	every := time.NewTicker(t.interval)
	defer every.Stop()
	samples := make(chan sample, 1)
	var due <-chan time.Time
	sampling, taken := false, 0
	measure := func() {
		if !sampling && t.conn != nil && t.mirror.whole() {
			sampling = true
			agents := objectsOf[*operatorv1.Agent](&t.mirror, kindAgent, nil)
			conn := t.conn
			go func() { samples <- t.c.sample(ctx, conn, agents) }()
		}
	}
	for {
		draw := false
		select {
		case h, open := <-feed:
			if !open {
				return nil
			}
			first := !t.mirror.whole()
			if err := t.hear(h); err != nil {
				return err
			}
			if first && t.mirror.whole() {
				measure()
			}
			if due == nil {
				due = time.After(redrawAfter)
			}
		case <-due:
			due, draw = nil, true
		case <-every.C:
			measure()
		case s := <-samples:
			sampling, draw = false, true
			if s.status != nil {
				t.status = s.status
				t.meter.take(s)
				taken++
			}
			if t.screen == nil && t.status != nil && (taken > 1 || len(s.measured) == 0) {
				return t.print()
			}
		case key, open := <-keys:
			if !open || !t.press(key) {
				return nil
			}
			draw = true
		case <-sizes:
			draw = true
		}
		if draw && t.screen != nil && t.status != nil {
			if err := t.draw(); err != nil {
				return err
			}
		}
	}
}

func (t *top) hear(h heard) error {
	switch {
	case h.over:
		return h.lost
	case h.lost != nil:
		t.lost, t.conn = h.lost.Error(), nil
		if t.screen == nil {
			t.notice.isLost(h.lost)
		}
	case h.conn != nil:
		t.conn = h.conn
		t.mirror.begin()
	default:
		t.mirror.apply(h.event)
		if h.event.GetSnapshotEnd() != nil {
			t.lost = ""
			t.notice.isBack()
		}
	}
	return nil
}

// press does what a key means; false: it ends.
func (t *top) press(key byte) bool {
	const ctrlC, ctrlD = 3, 4
	views := map[byte]string{'a': "agents", 'f': "frameworks", 'r': "roles", 't': "tasks"}
	sorts := map[byte]string{'c': "cpus", 'm': "mem", 'n': "name", 'C': "cpus-used", 'M': "mem-used"}
	switch {
	case key == 'q' || key == ctrlC || key == ctrlD:
		return false
	case views[key] != "":
		t.view, t.scroll = views[key], 0
	case sorts[key] != "":
		t.sort, t.scroll = sorts[key], 0
	case key == 'B' || key == 'j': // the arrow is escape, '[', 'B'
		t.scroll++
	case key == 'A' || key == 'k':
		t.scroll--
	case key == ' ':
		t.scroll += max(t.page, 1)
	}
	return true
}

func (t *top) print() error {
	rows := t.rows()
	if t.c.json {
		return t.c.printValue(rows)
	}
	color := t.c.colored(t.c.out)
	lines := append(t.head(terminalWidth(t.c.out), color), t.table(rows).lines(terminalWidth(t.c.out), color)...)
	_, err := fmt.Fprintln(t.c.out, strings.Join(lines, "\n"))
	return err
}

func (t *top) draw() error {
	width, height := terminalSize(t.c.out)
	color := t.c.colored(t.c.out)
	lines := t.head(width, color)
	rows := t.table(t.rows()).lines(width, color)
	foot := "a agents  f frameworks  r roles  t tasks   c C cpus  m M mem  n name   q quit"
	t.page = max(height-len(lines)-2, 1)
	t.scroll = max(min(t.scroll, len(rows)-1-t.page), 0)
	lines = append(lines, rows[0])
	body := rows[1+t.scroll : min(1+t.scroll+t.page, len(rows))]
	lines = append(lines, body...)
	if hidden := len(rows) - 1 - len(body); hidden > 0 {
		foot = fmt.Sprintf("%d more (arrows, space)   ", hidden) + foot
	}
	for len(lines) < height-1 {
		lines = append(lines, "")
	}
	if color {
		foot = paint(dim, foot)
	}
	return t.screen.draw(append(lines, foot))
}
