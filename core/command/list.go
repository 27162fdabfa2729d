package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// list is a verb that prints one table, or with --json one list; with --watch
// again whenever something changes.
type list[T proto.Message] struct {
	use, short, example string
	aliases             []string
	long                string
	args                cobra.PositionalArgs
	flags               func(*cobra.Command)
	// fetch asks. Items with an error are all that could be had.
	fetch  func(ctx context.Context, client operatorv1.OperatorClient, args []string) ([]T, error)
	header []string
	row    func(T) []string
	// partial says why there may be more items than the master knows; empty: there
	// are not. Nil: it knows all of them.
	partial func(ctx context.Context, client operatorv1.OperatorClient) string
	// key is what an item is known by.
	key func(T) string
	// empty is said when there is nothing to list.
	empty string
	// none is said instead when there were arguments, of which %s is the first.
	none string
	// kind is of what kind the items are in a master's watch. Without it --watch
	// asks again whenever something changes.
	kind string
	// With kind: which of them are meant, and in which order; nil: all, by id.
	keep    func(T) bool
	compare func(a, b T) int
	// shown is whether an item is listed as it is now; nil: all are.
	shown func(T) bool
	// again is how often it is asked again though nothing is heard, for what masters
	// are not told of; 0: askAgain.
	again time.Duration
	// page prints the items in another form than a table, and the JSON is that of
	// the only one.
	page func(w io.Writer, items []T, color bool) error
}

func listCommand[T proto.Message](c *cli, l list[T]) *cobra.Command {
	if l.args == nil {
		l.args = cobra.NoArgs
	}
	if l.keep == nil {
		l.keep = func(T) bool { return true }
	}
	if l.shown == nil {
		l.shown = func(T) bool { return true }
	}
	var watch bool
	cmd := &cobra.Command{
		Use: l.use, Aliases: l.aliases, Short: l.short, Long: l.long, Example: l.example, Args: l.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && l.none != "" {
				l.empty = fmt.Sprintf(l.none, args[0])
			}
			var items []T
			err := c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) (err error) {
				items, err = l.fetch(ctx, client, args)
				if err == nil && l.partial != nil && !watch {
					if why := l.partial(ctx, client); why != "" {
						fmt.Fprintf(c.err, "mezzo: %s\n", why)
					}
				}
				return err
			})
			switch {
			case err != nil && len(items) == 0:
				return err
			case watch:
				return watchList(cmd.Context(), c, &l, cmd.CommandPath(), args)
			case c.json && l.page != nil:
				return c.writeJSON(items[0])
			case c.json:
				return errors.Join(err, writeJSONList(c, items))
			}
			return errors.Join(err, l.write(c.out, items, terminalWidth(c.out), c.colored(c.out)))
		},
	}
	c.addClientFlags(cmd)
	form, item := jsonList, *new(T)
	if l.page != nil {
		form = jsonOne
	}
	c.addJSONFlag(cmd, shapeOf(form, item))
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on: on a terminal drawn again at each change, elsewhere a line for each change")
	if l.flags != nil {
		l.flags(cmd)
	}
	return cmd
}

// write prints the items for people.
func (l *list[T]) write(w io.Writer, items []T, width int, color bool) error {
	switch {
	case l.page != nil:
		return l.page(w, items, color)
	case len(items) == 0:
		_, err := fmt.Fprintln(w, l.empty)
		return err
	}
	t := newTable(l.header...)
	for _, item := range items {
		t.row(l.row(item)...)
	}
	return t.render(w, width, color)
}

func (c *cli) agentsCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Agent]{
		use: "agents", short: "List the agents and what they have",
		long: "CPUS, MEM and DISK are what is allocated, of how much there is. STATE is active, draining, drained, deactivated, withheld (a plugin\n" +
			"of the agent is not healthy), disconnected or unreachable, and why. An agent that was marked gone is not listed.",
		example: "  mezzo agents\n  mezzo agents --watch\n  mezzo agents --json | jq '.[] | select(.state != \"active\") | .hostname'",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Agent, error) {
			r, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
			return r.GetAgents(), err
		},
		header: []string{"ID", "HOSTNAME", "STATE", "CPUS", "MEM", "DISK", "TASKS", "ADDRESS"},
		row: func(a *operatorv1.Agent) []string {
			state := a.State
			switch away := a.State == "disconnected" || a.State == "unreachable"; {
			case away && a.Drain != nil:
				state += ", " + a.Drain.State
			case away && a.Deactivated:
				state += ", deactivated"
			}
			if a.Reason != "" {
				state += " (" + a.Reason + ")"
			}
			return []string{
				a.Id, a.Hostname, state, share(a.Allocated, a.Resources, "cpus"), share(a.Allocated, a.Resources, "mem"),
				share(a.Allocated, a.Resources, "disk"), strconv.FormatUint(a.Tasks, 10), a.RpcAddress,
			}
		},
		empty: "No agents.",
		kind:  kindAgent, key: (*operatorv1.Agent).GetId,
	})
}

func (c *cli) frameworksCommand() *cobra.Command {
	var completed bool
	return listCommand(c, list[*operatorv1.Framework]{
		use: "frameworks", short: "List the frameworks and what they hold",
		long: "A framework that is disconnected keeps its tasks for its failover timeout. With --all those that are gone are listed too, as far\n" +
			"as the master remembers them. mezzo why says why one gets no offers.",
		example: "  mezzo frameworks\n  mezzo frameworks --all --json",
		flags: func(cmd *cobra.Command) {
			cmd.Flags().BoolVarP(&completed, "all", "a", false, "also those that are gone")
		},
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Framework, error) {
			r, err := client.ListFrameworks(ctx, &operatorv1.ListFrameworksRequest{Completed: completed})
			return r.GetFrameworks(), err
		},
		header: []string{"ID", "NAME", "STATE", "ROLES", "TASKS", "OFFERS", "CPUS", "MEM", "USER"},
		row: func(f *operatorv1.Framework) []string {
			return []string{
				f.Id, f.Name, f.State, strings.Join(f.Roles, ","), strconv.FormatUint(f.Tasks, 10), strconv.FormatUint(f.Offers, 10),
				amount(f.Allocated, "cpus"), amount(f.Allocated, "mem"), f.User,
			}
		},
		empty: "No frameworks.",
		kind:  kindFramework, key: (*operatorv1.Framework).GetId,
		shown: func(f *operatorv1.Framework) bool { return completed || f.State != "completed" },
	})
}

func (c *cli) tasksCommand() *cobra.Command {
	var completed bool
	var framework, agent, beginning string
	request := &operatorv1.ListTasksRequest{}
	return listCommand(c, list[*operatorv1.Task]{
		use: "tasks [TASK]", short: "List the tasks",
		long: "With TASK, only that task, or those whose ids begin so; also when they have ended, as far as the master remembers them.\n" +
			"Without it, those that have not ended, or with --all those too.",
		example: "  mezzo tasks\n  mezzo tasks web.1\n  mezzo tasks --all --framework spark --agent node7\n  mezzo tasks --watch --json",
		args:    cobra.MaximumNArgs(1),
		flags: func(cmd *cobra.Command) {
			cmd.Flags().BoolVarP(&completed, "all", "a", false, "also those that have ended")
			cmd.Flags().StringVar(&framework, "framework", "", "only tasks of this framework: its id, the beginning or the end of it, or its name")
			cmd.Flags().StringVar(&agent, "agent", "", "only tasks on this agent: its id, the beginning or the end of it, or its host name")
		},
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, args []string) ([]*operatorv1.Task, error) {
			request.Completed = completed || len(args) == 1
			var err error
			if request.FrameworkId, err = frameworkID(ctx, client, framework); err != nil {
				return nil, err
			}
			if agent != "" {
				a, err := agentNamed(ctx, client, agent)
				if err != nil {
					return nil, err
				}
				request.AgentId = a.Id
			}
			request.TaskId, beginning = "", ""
			if len(args) == 1 {
				request.TaskId = args[0]
			}
			r, err := client.ListTasks(ctx, request)
			if err == nil && len(args) == 1 && len(r.GetTasks()) == 0 {
				request.TaskId, beginning = "", args[0]
				r, err = client.ListTasks(ctx, request)
			}
			tasks := slices.DeleteFunc(r.GetTasks(), func(t *operatorv1.Task) bool { return !strings.HasPrefix(t.Id, beginning) })
			slices.SortStableFunc(tasks, byLaunch)
			return tasks, err
		},
		header: []string{"ID", "NAME", "STATE", "CPUS", "MEM", "ROLE", "AGENT", "AGE", "MESSAGE"},
		row: func(t *operatorv1.Task) []string {
			return []string{
				t.Id, t.Name, taskState(t), amount(t.Resources, "cpus"), amount(t.Resources, "mem"), t.Role, t.AgentId, age(t.Launched), oneLine(taskReason(t)),
			}
		},
		empty:   "No tasks. (Those that have ended: mezzo tasks --all)",
		partial: awaited,
		none:    "No task is called %s, nor begins so, that the master remembers.",
		kind:    kindTask, key: (*operatorv1.Task).GetId, compare: byLaunch,
		keep: func(t *operatorv1.Task) bool {
			return (request.TaskId == "" || request.TaskId == t.Id) && (request.FrameworkId == "" || request.FrameworkId == t.FrameworkId) &&
				(request.AgentId == "" || request.AgentId == t.AgentId) && strings.HasPrefix(t.Id, beginning)
		},
		shown: func(t *operatorv1.Task) bool { return request.Completed || !taskEnded(t) },
	})
}

func byLaunch(a, b *operatorv1.Task) int {
	return cmp.Compare(a.GetLaunched().AsTime().UnixNano(), b.GetLaunched().AsTime().UnixNano())
}

func (c *cli) offersCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Offer]{
		use: "offers", short: "List the offers that frameworks have not answered",
		long:    "An offer is outstanding until its framework accepts or declines it, or the master takes it back. AGE tells who does not answer.",
		example: "  mezzo offers\n  mezzo offers --watch",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Offer, error) {
			r, err := client.ListOffers(ctx, &operatorv1.ListOffersRequest{})
			return r.GetOffers(), err
		},
		header: []string{"ID", "FRAMEWORK", "ROLE", "AGENT", "AGE", "RESOURCES"},
		row: func(o *operatorv1.Offer) []string {
			return []string{o.Id, o.FrameworkId, o.Role, o.AgentId, age(o.Created), amounts(o.Resources)}
		},
		empty: "No offers outstanding.",
		kind:  kindOffer, key: (*operatorv1.Offer).GetId,
	})
}

func (c *cli) rolesCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Role]{
		use: "roles", short: "List the roles: weight, quota, what they hold and their dominant share",
		example: "  mezzo roles\n  mezzo roles --watch",
		long: "Roles that frameworks are in, that have a weight or a quota, or that something is reserved to.\n\n" +
			"SHARE and OF are the role's dominant share: the greatest part of any resource of the cluster that it holds, offers\n" +
			"included. CONSUMED is what counts toward GUARANTEE and LIMIT: with the roles below it, offers and reservations included.",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Role, error) {
			r, err := client.ListRoles(ctx, &operatorv1.ListRolesRequest{})
			return r.GetRoles(), err
		},
		header: []string{"ROLE", "WEIGHT", "SHARE", "OF", "ALLOCATED", "RESERVED", "CONSUMED", "GUARANTEE", "LIMIT", "FRAMEWORKS"},
		row: func(r *operatorv1.Role) []string {
			consumed := "-"
			if r.Guarantee != nil || r.Limit != nil {
				consumed = dash(amounts(r.Consumed))
			}
			return []string{
				r.Name, number(r.Weight), fmt.Sprintf("%.1f%%", 100*r.DominantShare), dash(r.DominantResource), dash(amounts(r.Allocated)), dash(amounts(r.Reserved)),
				consumed, dash(quotaText(r.Guarantee)), dash(quotaText(r.Limit)), strconv.Itoa(len(r.Frameworks)),
			}
		},
		empty: "No roles.",
		key:   (*operatorv1.Role).GetName, // reserved is not in the watch
	})
}

func (c *cli) pluginsCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Plugin]{
		use: "plugins", short: "List the plugins of the master and of every agent",
		long: "HOST is master, or an agent's id; agents are asked one by one, and one that does not answer is listed with a question mark.\n" +
			"REASON is why a plugin is not healthy, or how it ended the last time.",
		example: "  mezzo plugins\n  mezzo plugins --json | jq '.[] | select(.state != \"healthy\")'",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Plugin, error) {
			return c.allPlugins(ctx, client)
		},
		header: []string{"PLUGIN", "HOST", "VERSION", "STATE", "SINCE", "PID", "RESTARTS", "LISTENS AT", "REASON"},
		row: func(p *operatorv1.Plugin) []string {
			reason := p.Reason
			if reason == "" && p.Restarts > 0 {
				reason = p.LastError
			}
			return []string{
				p.Id, p.Host, p.Version, p.State, age(p.Since), strconv.FormatInt(p.Pid, 10), strconv.FormatUint(p.Restarts, 10), dash(endpointText(p.Endpoints)), reason,
			}
		},
		empty: "No plugins.",
		key:   func(p *operatorv1.Plugin) string { return p.Host + " " + p.Id },
	})
}

// share prints "used/total".
func share(used, total *structpb.Struct, name string) string {
	return amount(used, name) + "/" + amount(total, name)
}

func amount(s *structpb.Struct, name string) string {
	return number(s.GetFields()[name].GetNumberValue())
}

// amounts prints all of them: "cpus:4 mem:1024 ports:[1-2]". What is zero is
// left out.
func amounts(s *structpb.Struct) string { return listAmounts(s, false) }

// quotaText prints a guarantee or a limit, where zeros mean something.
func quotaText(s *structpb.Struct) string { return listAmounts(s, true) }

func listAmounts(s *structpb.Struct, zeros bool) string {
	names := make([]string, 0, len(s.GetFields()))
	for name := range s.GetFields() {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b)) })
	parts := make([]string, 0, len(names))
	for _, name := range names {
		switch v := s.Fields[name].GetKind().(type) {
		case *structpb.Value_NumberValue:
			if zeros || v.NumberValue != 0 {
				parts = append(parts, name+":"+number(v.NumberValue))
			}
		case *structpb.Value_StringValue:
			parts = append(parts, name+":"+v.StringValue)
		}
	}
	return strings.Join(parts, " ")
}

// rank puts the resources that people look for first.
func rank(name string) int {
	if i := slices.Index([]string{"cpus", "mem", "disk", "gpus"}, name); i >= 0 {
		return i
	}
	return 10
}

func number(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(strconv.FormatFloat(v, 'f', 3, 64), "0"), ".")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is how long ago it was, in the two units that matter.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	d := max(time.Since(t.AsTime()), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
