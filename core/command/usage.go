package command

import (
	"errors"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// parsing is what strconv says of itself in the complaint about a flag.
var parsing = regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": `)

// explainUsage has a verb, and those below it, say what is wrong with arguments:
// which verb may be meant, or how it is called.
func explainUsage(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		explainUsage(child)
	}
	check := cmd.Args
	if check == nil {
		return
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		var told *exitError
		if err == nil || errors.As(err, &told) {
			return err
		}
		if !cmd.HasSubCommands() || len(args) == 0 {
			if len(args) > 0 && len(arguments(cmd)) == 0 {
				return usage("%s takes no arguments, but there is %q", cmd.CommandPath(), args[0])
			}
			return usage("%s: it is called as %s", cmd.CommandPath(), useLine(cmd))
		}
		return noVerb(cmd, args[0])
	}
}

// noVerb says that a verb has no such verb below it, and which may be meant.
func noVerb(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usage("%s has no verb %q; %s is meant, perhaps", cmd.CommandPath(), name, strings.Join(near, " or "))
	}
	return usage("%s has no verb %q", cmd.CommandPath(), name)
}

// arguments are the names of a verb's arguments.
func arguments(cmd *cobra.Command) []string {
	names, _ := argumentNames(cmd.Use)
	return names
}
