package command

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// verbs are all that a user sees, with their groups.
func verbs(t *testing.T) []*cobra.Command {
	t.Helper()
	var out []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		out = append(out, cmd)
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(newCLI().root())
	return out
}

// Every verb says what it is, in short and at length, with examples, and of every
// flag what it does. What the examples write are verbs and flags that there are.
func TestHelpIsWhole(t *testing.T) {
	all := verbs(t)
	if len(all) < 50 {
		t.Fatalf("only %d verbs were found", len(all))
	}
	for _, cmd := range all {
		name := cmd.CommandPath()
		if cmd.Short == "" || cmd.Long == "" {
			t.Errorf("%s: Short or Long is missing", name)
		}
		if cmd.Example == "" && cmd.Runnable() && !cmd.HasSubCommands() {
			t.Errorf("%s: it has no example", name)
		}
		if len(cmd.Short) > 90 || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is one line without a full stop, of 90 letters at most: %q", name, cmd.Short)
		}
		for _, line := range strings.Split(cmd.Long, "\n") {
			if len([]rune(line)) > helpWidth {
				t.Errorf("%s: a line of its help is wider than %d: %q", name, helpWidth, line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if len(f.Usage) < 5 {
				t.Errorf("%s --%s: its usage is missing", name, f.Name)
			}
		})
		for _, line := range strings.Split(cmd.Example, "\n") {
			checkExample(t, cmd, line)
		}
	}
}

// checkExample checks each mezzo command of an example's line.
func checkExample(t *testing.T, of *cobra.Command, line string) {
	t.Helper()
	if line != "" && !strings.HasPrefix(line, "  ") {
		t.Errorf("%s: an example's line begins with two spaces: %q", of.CommandPath(), line)
	}
	for _, part := range strings.Split(line, " | ") {
		part, _, _ = strings.Cut(part, " #")
		part, _, _ = strings.Cut(part, " > ")
		words := shellWords(part)
		if len(words) == 0 || words[0] != "mezzo" {
			continue
		}
		root := newCLI().root()
		root.InitDefaultCompletionCmd()
		cmd, rest, err := root.Find(words[1:])
		if err != nil || !cmd.Runnable() && cmd != root {
			t.Errorf("%s: the example %q is no verb: %v", of.CommandPath(), part, err)
			continue
		}
		if err := cmd.ParseFlags(rest); err != nil {
			t.Errorf("%s: the example %q: %v", of.CommandPath(), part, err)
			continue
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			t.Errorf("%s: the example %q: %v", of.CommandPath(), part, err)
		}
	}
}

// shellWords splits as a shell does, with quotes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, begun = r, true
		case quote == 0 && r == ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}
