package command

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// helpWidth is how wide a help text may be.
const helpWidth = 84

// fitHelp breaks the help texts of a verb, and of those below it, for a terminal:
// paragraphs that have a line which is too long. What is indented has a layout of
// its own.
func fitHelp(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		fitHelp(child)
	}
	var out, paragraph []string
	end := func() {
		if slices.ContainsFunc(paragraph, func(line string) bool { return utf8.RuneCountInString(line) > helpWidth }) {
			paragraph = wrapped(strings.Join(paragraph, " "))
		}
		out, paragraph = append(out, paragraph...), nil
	}
	for _, line := range strings.Split(cmd.Long, "\n") {
		if line == "" || line[0] == ' ' {
			end()
			out = append(out, line)
		} else {
			paragraph = append(paragraph, line)
		}
	}
	end()
	cmd.Long = strings.Join(out, "\n")
}

// wrapped breaks a text between words.
func wrapped(line string) []string {
	var out []string
	now := ""
	for _, word := range strings.Fields(line) {
		if now != "" && utf8.RuneCountInString(now)+1+utf8.RuneCountInString(word) > helpWidth {
			out, now = append(out, now), ""
		}
		if now != "" {
			now += " "
		}
		now += word
	}
	return append(out, now)
}

// helpCommand is `mezzo help`. Cobra's own exits with 0 for what is not there.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [VERB…]", Short: "Help about a verb, or one of the topics below",
		Long:    "Prints the help of a verb, as its --help does, or of a topic.",
		Example: "  mezzo help run\n  mezzo help agent drain\n  mezzo help exit-codes",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if about == nil || err != nil {
				about = cmd.Root()
				rest = args
			}
			if len(rest) > 0 {
				return noVerb(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			about, rest, err := cmd.Root().Find(args)
			if about == nil || err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var words []string
			for _, child := range about.Commands() {
				if (child.IsAvailableCommand() || child.IsAdditionalHelpTopicCommand()) && strings.HasPrefix(child.Name(), typed) {
					words = append(words, described(child.Name(), "%s", child.Short))
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// topics are pages of the help that belong to no verb.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: "exit-codes", Short: "What the exit status of mezzo says",
			Long: `  0    It was done. Of a list: also when there is nothing in it.
  1    It was not done, or not all of it; standard error says why, and what to do.
       config check: there are errors. reload: nothing, or not all, was changed.
       plugin verify: a check failed. auth can: it is denied.
  2    The command line makes no sense; nothing was tried.
  130  Ctrl-C, or SIGTERM, ended it. What a master was asked to do goes on there.
       Verbs that only show, such as events and --watch, end so with 0.

mezzo run exits with the status of its command: of the first, by index, that is not
0. Besides:

  124  --timeout was over; the command was ended.
  125  Mezzo failed: there is no cluster, or the task could not be started.
  128+N  signal N ended the command: 137 is SIGKILL.
  130  Ctrl-C; the command was ended.

mezzo exec and mezzo attach exit with the status of the command, or 128+N; with 1
when there is no such task, or no way to it.`,
		},
		{
			Use: "json", Short: "What --json prints, and what will not change about it",
			Long: `With --json a verb prints on standard output nothing but JSON:

  - a list verb: one list of objects, [] when there are none; with --watch, and
    mezzo events: an object a line, with time, id, change (added, changed or
    removed) and the object as the list has it;
  - a verb that shows one thing: one object;
  - an order: an object a line, whose done says in words what was done;
  - config check: one list of what is wrong, [] when nothing is.

run, logs, exec and attach print what tasks write, and nothing else. master, agent
and dev log; log_json in their configuration has them log JSON.

Names are in snake_case. 64-bit integers are numbers, ids and enumerated values
are strings, times are RFC 3339 in UTC. A field that is not set is left out: its
value is 0, "", false, or an empty list. Resources are objects by name: scalars as
numbers (memory and disk in MiB), ranges and sets as text.

Fields keep their names, types and meanings as long as the first number of the
version is the same. New ones may come: programs leave out what they do not know.
GET /v1/agents and the like on the master's http address answer the same.
Progress, warnings and errors go to standard error, in words; the exit status says
whether it was done.`,
		},
		{
			Use: "names", Short: "How agents, frameworks and tasks are named on the command line",
			Long: `An agent is named by its id, the beginning or the end of it, or its host name; a
framework by its id, the beginning or the end of it, or its name; a task by its id,
or the beginning of it, with --framework where several frameworks have such a task.
The id goes before all, then names and ends, then beginnings. A name that means
several does nothing: they are listed, and one has to be said.

  mezzo agent drain 9f6c2a1e-1-S3
  mezzo agent drain S3
  mezzo agent drain node7

Roles, volumes, images and machines are named in full. Tab completes them all,
once the shell has read mezzo completion.`,
		},
		{
			Use: "environment", Short: "Variables of the environment that mezzo looks at",
			Long: `  MEZZO_ADDRESS    The rpc address of a master, or several, by commas, or
                   zk://HOST:PORT,.../PATH; before the default, after --address.
  MEZZO_TLS_CA     The files of --tls-ca, --tls-cert and --tls-key.
  MEZZO_TLS_CERT
  MEZZO_TLS_KEY
  NO_COLOR         When it is set and not empty, nothing has colours, but for
                   --color always.
  TERM             With "dumb" neither.`,
		},
	}
}
