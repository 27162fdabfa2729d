package command

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (c *cli) manCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages of all verbs into a directory", Args: cobra.ExactArgs(1),
		Long: `Writes a manual page for man(1) of each verb into DIR, which is made if it is not
there: mezzo.1, mezzo-run.1, mezzo-agent-drain.1 and so on. make install and the
Debian package have them already.`,
		Example: "  mezzo man ~/.local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			pages := manualPages(cmd.Root())
			for _, p := range pages {
				if err := os.WriteFile(filepath.Join(args[0], p.name), p.text, 0o644); err != nil {
					return err
				}
			}
			return c.done("%d manual pages are in %s", len(pages), args[0])
		},
	}
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// visible lists a verb and those below it, in the order of the help.
func visible(cmd *cobra.Command) []*cobra.Command {
	if cmd.Hidden || cmd.Name() == "help" {
		return nil
	}
	out := []*cobra.Command{cmd}
	for _, child := range cmd.Commands() {
		out = append(out, visible(child)...)
	}
	return out
}

// everywhere are the flags of every verb, or of every one that speaks to a
// cluster. They are told once. Their defaults may come from the environment.
var everywhere = []string{"address", "tls-ca", "tls-cert", "tls-key", "color"}

// ownFlags are the flags of a verb alone.
func ownFlags(cmd *cobra.Command) []*pflag.Flag {
	var out []*pflag.Flag
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" && f.Name != "json" && !slices.Contains(everywhere, f.Name) {
			out = append(out, f)
		}
	})
	return out
}

// commonFlags are those of every verb, as some verb has them.
func commonFlags(root *cobra.Command) []*pflag.Flag {
	status, _, err := root.Find([]string{"status"})
	if err != nil {
		panic(err) // it is there
	}
	var out []*pflag.Flag
	for _, name := range append([]string{"json"}, everywhere...) {
		f := status.Flag(name)
		if f == nil {
			f = root.PersistentFlags().Lookup(name)
		}
		out = append(out, f)
	}
	return out
}

// flagText is a flag as it is written, and what it does.
func flagText(f *pflag.Flag) (written, meaning string) {
	value, usage := pflag.UnquoteUsage(f)
	written = "--" + f.Name
	if f.Shorthand != "" {
		written = "-" + f.Shorthand + ", " + written
	}
	if value != "" {
		written += " " + value
	}
	switch f.DefValue {
	case "", "[]", "false", "0", "0s":
	default:
		if !slices.Contains(everywhere, f.Name) && !strings.Contains(usage, "(default") {
			usage += " (default " + f.DefValue + ")"
		}
	}
	return written, usage
}

// manualPage is a page for man.
type manualPage struct {
	name string
	text []byte
}

func manualPages(root *cobra.Command) []manualPage {
	var pages []manualPage
	for _, cmd := range visible(root) {
		if cmd.IsAdditionalHelpTopicCommand() {
			continue // they are sections of the first page
		}
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		w := &roff{}
		fmt.Fprintf(&w.buf, ".TH %q 1 \"\" \"mezzo %s\" \"Mezzo\"\n.nh\n.ad l\n", strings.ToUpper(name), Version())
		w.section("NAME")
		w.line(name + " - " + cmd.Short)
		w.section("SYNOPSIS")
		w.bold(useLine(cmd))
		w.section("DESCRIPTION")
		w.verbatim(cmd.Long)
		if flags := ownFlags(cmd); len(flags) > 0 {
			w.section("OPTIONS")
			w.flags(flags)
		}
		if cmd.Example != "" {
			w.section("EXAMPLES")
			w.verbatim(cmd.Example)
		}
		if cmd == root {
			w.section("OPTIONS OF EVERY VERB")
			w.flags(commonFlags(root))
			w.section("VERBS")
			for _, child := range root.Commands() {
				if visible(child) != nil && !child.IsAdditionalHelpTopicCommand() {
					w.item(child.CommandPath(), child.Short)
				}
			}
			for _, topic := range topics() {
				w.section(strings.ToUpper(strings.ReplaceAll(topic.Name(), "-", " ")))
				w.verbatim(topic.Long)
			}
		} else if shape, ok := shapeOfVerb(cmd); ok {
			w.section("JSON")
			w.line("With --json: " + shape.form + ", with " + fieldList(shape, "", "") + ".")
		}
		w.section("SEE ALSO")
		w.line(strings.Join(seeAlso(cmd), ", "))
		pages = append(pages, manualPage{name + ".1", w.buf.Bytes()})
	}
	return pages
}

// useLine is how a verb is called, without its flags.
func useLine(cmd *cobra.Command) string {
	use := cmd.Use
	if cmd.HasParent() {
		use = cmd.Parent().CommandPath() + " " + use
	}
	if cmd.HasSubCommands() && !cmd.HasParent() {
		use += " VERB"
	}
	return use
}

func seeAlso(cmd *cobra.Command) []string {
	var out []string
	add := func(other *cobra.Command) {
		if visible(other) != nil && !other.IsAdditionalHelpTopicCommand() {
			out = append(out, strings.ReplaceAll(other.CommandPath(), " ", "-")+"(1)")
		}
	}
	if cmd.HasParent() {
		add(cmd.Parent())
	}
	for _, child := range cmd.Commands() {
		add(child)
	}
	return out
}

func fieldList(s jsonShape, before, after string) string {
	var out []string
	for _, field := range s.fields {
		name, kind, _ := strings.Cut(field, " ")
		out = append(out, before+name+after+" ("+kind+")")
	}
	return strings.Join(out, ", ")
}

// roff writes what man reads.
type roff struct{ buf bytes.Buffer }

// escaped is text that is only text.
func escaped(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	var out strings.Builder
	for _, r := range line {
		if r < 0x80 {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(&out, `\[u%04X]`, r)
		}
	}
	return out.String()
}

func (w *roff) section(title string) { fmt.Fprintf(&w.buf, ".SH %s\n", escaped(title)) }
func (w *roff) line(text string)     { fmt.Fprintf(&w.buf, "%s\n", escaped(text)) }
func (w *roff) bold(text string)     { fmt.Fprintf(&w.buf, "\\fB%s\\fR\n", escaped(text)) }
func (w *roff) item(name, text string) {
	fmt.Fprintf(&w.buf, ".TP\n\\fB%s\\fR\n%s\n", escaped(name), escaped(text))
}

// verbatim keeps the lines of a help text, which has its own layout.
func (w *roff) verbatim(text string) {
	w.buf.WriteString(".nf\n")
	for _, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		w.line(line)
	}
	w.buf.WriteString(".fi\n")
}

func (w *roff) flags(flags []*pflag.Flag) {
	for _, f := range flags {
		w.item(flagText(f))
	}
}

// reference is docs/command-line.md.
func reference(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString("# The command line\n\n<!-- Written by go test ./core/command -run TestReference -update, from the help of the verbs. -->\n\n")
	b.WriteString(strings.TrimSpace(root.Long) + "\n\n")
	b.WriteString("Completion of verbs, flags, ids and names: `mezzo completion bash`, `zsh` or `fish` prints what a shell has to read, as in\n" +
		"`source <(mezzo completion bash)`. The Debian package brings it. The same pages as here are there for `man mezzo`,\n" +
		"`man mezzo-run` and so on: `make install` and the package install them, `mezzo man DIR` writes them.\n\n")
	b.WriteString("| verb | |\n|---|---|\n")
	all := visible(root)
	for _, cmd := range all {
		if cmd.Runnable() && cmd != root {
			fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", cell(cmd.CommandPath()), strings.ReplaceAll(cmd.CommandPath(), " ", "-"), cell(cmd.Short))
		}
	}
	b.WriteString("\n## Flags of every verb\n\n`--json` where something is printed for programs, the next four where a cluster is spoken to.\n\n")
	flagTable(&b, commonFlags(root))
	for _, topic := range topics() {
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s\n```\n", topic.Short, strings.Trim(topic.Long, "\n"))
	}
	for _, cmd := range all {
		if cmd == root || cmd.IsAdditionalHelpTopicCommand() {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n```text\n%s\n\n%s\n```\n", cmd.CommandPath(), cmd.Short, useLine(cmd), strings.Trim(cmd.Long, "\n"))
		if cmd.Example != "" {
			var lines []string
			for _, line := range strings.Split(strings.Trim(cmd.Example, "\n"), "\n") {
				lines = append(lines, strings.TrimPrefix(line, "  "))
			}
			fmt.Fprintf(&b, "\n```text\n%s\n```\n", strings.Join(lines, "\n"))
		}
		if flags := ownFlags(cmd); len(flags) > 0 {
			b.WriteString("\n")
			flagTable(&b, flags)
		}
		if shape, ok := shapeOfVerb(cmd); ok {
			fmt.Fprintf(&b, "\nWith `--json`: %s, with %s.\n", shape.form, fieldList(shape, "`", "`"))
		}
	}
	return b.Bytes()
}

func flagTable(b *bytes.Buffer, flags []*pflag.Flag) {
	b.WriteString("| flag | |\n|---|---|\n")
	for _, f := range flags {
		written, meaning := flagText(f)
		fmt.Fprintf(b, "| `%s` | %s |\n", written, cell(meaning))
	}
}

// cell is text in a table of Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;", "[", `\[`, "]", `\]`).Replace(text)
}
