package command

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) whyCommand() *cobra.Command {
	request := &operatorv1.ExplainRequest{}
	cmd := &cobra.Command{
		Use: "why FRAMEWORK", Short: "Say why a framework gets no offers, or not more of them",
		Long: "FRAMEWORK is an id, the beginning of one, a name, or a part of one. What stands against offers is told role by role, what weighs most\n" +
			"first, with what the allocator answers, and what could be done about it.",
		Example: "  mezzo why spark\n  mezzo why spark --role ads --agents",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.FrameworkId = args[0]
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				answer, err := client.Explain(ctx, request)
				switch {
				case err != nil:
					return err
				case c.json:
					return c.writeJSON(answer)
				}
				return writeWhy(c.out, answer)
			})
		},
	}
	cmd.Flags().StringVar(&request.Role, "role", "", "only this role of the framework")
	cmd.Flags().BoolVar(&request.Agents, "agents", false, "agent by agent, too")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOf(jsonOne, (*operatorv1.ExplainResponse)(nil)))
	return cmd
}

// writeWhy prints an explanation for people.
func writeWhy(out io.Writer, e *operatorv1.ExplainResponse) error {
	w := &whyWriter{out: out}
	f := e.Framework
	w.line("Framework %s, %s, %s", f.Name, f.Id, f.State)
	has := "nothing"
	if held := amounts(f.Allocated); held != "" {
		has = held + " in " + plural(f.Tasks, "task")
	}
	if f.Offers > 0 {
		has += ", and " + plural(f.Offers, "offer") + " that it has not answered"
	}
	w.line("It has %s.", has)
	if len(e.Causes) > 0 {
		w.line("")
		w.causes(e.Causes)
	}
	for _, r := range e.Roles {
		w.line("")
		w.role(r)
	}
	if e.AllocatorError != "" {
		w.line("")
		w.line("The allocator gave no answer of its own: %s.", e.AllocatorError)
	}
	if advice := adviceOf(e); len(advice) > 0 {
		w.line("")
		for _, a := range advice {
			w.line("Advice: %s.", a)
		}
	}
	return w.err
}

type whyWriter struct {
	out io.Writer
	err error
}

func (w *whyWriter) line(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.out, format+"\n", args...)
	}
}

func (w *whyWriter) causes(list []*operatorv1.Cause) {
	for _, c := range list {
		w.line("  - %s", c.Text)
		for _, d := range c.Details {
			w.line("      %s", d)
		}
	}
}

func (w *whyWriter) role(r *operatorv1.RoleExplanation) {
	head := fmt.Sprintf("Role %s", r.Role)
	if r.Positions > 0 {
		head += fmt.Sprintf(": it has %.1f%% of the cluster, the role %.1f%%", 100*r.FrameworkShare, 100*r.RoleShare)
		if r.Position > 0 {
			head += fmt.Sprintf("; number %d of %d in the order of service", r.Position, r.Positions)
		}
	}
	w.line("%s", head)
	switch {
	case len(r.Causes) > 0:
		w.causes(r.Causes)
	case r.Summary != "":
		w.line("  - %s", r.Summary)
	default:
		w.line("  - nothing in the role itself stands against offers")
	}
	if len(r.Reasons) > 0 {
		w.line("  The allocator says of the agents:")
		for _, x := range r.Reasons {
			w.line("      %d: %s", x.Agents, x.Reason)
		}
	}
	if len(r.Agents) == 0 || w.err != nil {
		return
	}
	w.line("")
	t := newTable("AGENT", "HOSTNAME", "STATE", "FREE", "FOR", "REASON")
	for _, a := range r.Agents {
		left := "-"
		if a.RemainingSeconds > 0 {
			left = time.Duration(a.RemainingSeconds * float64(time.Second)).Round(time.Second / 10).String()
		}
		t.row(a.AgentId, a.Hostname, a.State, dash(amounts(a.Free)), left, dash(a.Reason))
	}
	w.err = t.write(w.out)
}

// adviceOf lists what could be done: for the whole framework if there is
// something, since it comes first; else for each role what weighs most.
func adviceOf(e *operatorv1.ExplainResponse) []string {
	first := func(list []*operatorv1.Cause) string {
		for _, c := range list {
			if c.Advice != "" {
				return c.Advice
			}
		}
		return ""
	}
	if a := first(e.Causes); a != "" {
		return []string{a}
	}
	var out []string
	for _, r := range e.Roles {
		a := first(r.Causes)
		if a == "" {
			continue
		}
		if len(e.Roles) > 1 && !strings.Contains(a, r.Role) {
			a = fmt.Sprintf("in role %s, %s", r.Role, a)
		}
		out = append(out, a)
	}
	return out
}

func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatUint(n, 10) + " " + noun + "s"
}
