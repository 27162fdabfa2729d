package command

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// The values of --color.
var colorModes = []string{"auto", "always", "never"}

func (c *cli) addColorFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&c.color, "color", "auto", "colours in what is printed: auto (on a terminal, unless NO_COLOR is set), always or never")
}

// colored reports whether what is written to w has colours.
func (c *cli) colored(w io.Writer) bool {
	switch c.color {
	case "always":
		return true
	case "never":
		return false
	}
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && terminalWidth(w) > 0
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	bold   = "\x1b[1m"
	plainC = "\x1b[0m"
)

// paint colours a text.
func paint(color, text string) string {
	if color == "" || text == "" {
		return text
	}
	return color + text + plainC
}

// stateColor is the colour of a state, by its first word: good, on its way, bad.
func stateColor(state string) string {
	word, _, _ := strings.Cut(state, " ")
	switch strings.ToLower(strings.TrimRight(word, ",:")) {
	case "active", "running", "healthy", "leading", "registered", "connected", "finished":
		return green
	case "staging", "starting", "killing", "pending", "draining", "drained", "deactivated", "recovering", "restarting", "degraded", "standby", "withheld",
		"disconnected", "registering", "killed":
		return yellow
	case "failed", "lost", "error", "dropped", "unreachable", "gone", "gone_by_operator", "unhealthy", "unknown", "stopped", "down", "removed":
		return red
	case "completed":
		return dim
	}
	return ""
}
