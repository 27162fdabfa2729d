package command

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// completionTimeout bounds what a shell waits for when somebody presses Tab. No
// answer in time completes nothing, and says nothing.
const completionTimeout = 1500 * time.Millisecond

// choices lists what a word may be, each with a description after a tab if it has
// one. It goes by what is typed already only where that saves much.
type choices func(ctx context.Context, client operatorv1.OperatorClient, typed string) ([]string, error)

// complete is a completion that asks the master.
func (c *cli) complete(list choices) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completionTimeout)
		defer cancel()
		conn, err := c.dial(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer conn.Close()
		words, err := list(ctx, operatorv1.NewOperatorClient(conn), typed)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		given := map[string]bool{}
		for _, arg := range args {
			given[arg] = true
		}
		words = slices.DeleteFunc(words, func(word string) bool {
			name, _, _ := strings.Cut(word, "\t")
			return given[name] || !strings.HasPrefix(name, typed)
		})
		slices.Sort(words)
		words = slices.CompactFunc(words, func(a, b string) bool {
			a, _, _ = strings.Cut(a, "\t")
			b, _, _ = strings.Cut(b, "\t")
			return a == b
		})
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// fixed is a completion of words that are known.
func fixed(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		words := slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !strings.HasPrefix(word, typed) })
		return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

func noCompletion(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func described(word, format string, args ...any) string {
	return word + "\t" + oneLine(fmt.Sprintf(format, args...))
}

// agentChoices are the agents' ids; once something is typed that is not the
// beginning of one, their host names and the ends of their ids too.
func agentChoices(ctx context.Context, client operatorv1.OperatorClient, typed string) ([]string, error) {
	answer, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	var out []string
	for _, a := range answer.GetAgents() {
		about := a.Hostname + ", " + a.State
		out = append(out, described(a.Id, "%s", about))
		if typed != "" {
			out = append(out, described(a.Hostname, "%s", a.State), described(a.Id[strings.LastIndexByte(a.Id, '-')+1:], "%s", about))
		}
	}
	return out, err
}

func frameworkChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	answer, err := client.ListFrameworks(ctx, &operatorv1.ListFrameworksRequest{})
	var out []string
	for _, f := range answer.GetFrameworks() {
		out = append(out, described(f.Id, "%s, %s", f.Name, f.State))
		if !strings.ContainsAny(f.Name, " \t\n") {
			out = append(out, described(f.Name, "%s", f.Id))
		}
	}
	return out, err
}

// taskChoices are tasks, also those that have ended if that is said.
func taskChoices(ended bool) choices {
	return func(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
		answer, err := client.ListTasks(ctx, &operatorv1.ListTasksRequest{Completed: ended})
		var out []string
		for _, t := range answer.GetTasks() {
			out = append(out, described(t.Id, "%s on %s", taskState(t), t.AgentId))
		}
		return out, err
	}
}

func roleChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	answer, err := client.ListRoles(ctx, &operatorv1.ListRolesRequest{})
	var out []string
	for _, r := range answer.GetRoles() {
		out = append(out, described(r.Name, "weight %s", number(r.Weight)))
	}
	return out, err
}

func quotaChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	answer, err := client.GetQuota(ctx, &operatorv1.GetQuotaRequest{})
	var out []string
	for _, q := range answer.GetQuotas() {
		out = append(out, described(q.Role, "guarantee %s, limit %s", dash(quotaText(q.Guarantee)), dash(quotaText(q.Limit))))
	}
	return out, err
}

func weightChoices(ctx context.Context, client operatorv1.OperatorClient, typed string) ([]string, error) {
	words, err := roleChoices(ctx, client, typed)
	for i, word := range words {
		name, about, _ := strings.Cut(word, "\t")
		words[i] = name + "=\t" + about
	}
	return words, err
}

func volumeChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	answer, err := client.ListVolumes(ctx, &operatorv1.ListVolumesRequest{})
	var out []string
	for _, v := range answer.GetVolumes() {
		out = append(out, described(v.Id, "of %s on %s, %s", v.Role, v.AgentId, megabytes(v.SizeMb)))
	}
	return out, err
}

// machineChoices are the host names of agents, and the machines of the schedule.
func machineChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	answer, err := client.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
	var out []string
	for _, m := range answer.GetMachines() {
		name := m.Machine.GetHostname()
		if name == "" {
			name = m.Machine.GetIp()
		}
		out = append(out, described(name, "%s", m.Mode))
	}
	return out, err
}

// anyChoices are all that events are told of.
func anyChoices(ctx context.Context, client operatorv1.OperatorClient, typed string) ([]string, error) {
	var out []string
	for _, list := range []choices{agentChoices, frameworkChoices, taskChoices(false)} {
		words, err := list(ctx, client, typed)
		if err != nil {
			return out, err
		}
		out = append(out, words...)
	}
	return out, nil
}

// imageChoices are the names of the images that the agents have which answer in
// time, at most imageAgents of them.
func (c *cli) imageChoices(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
	agents, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	list := agents.GetAgents()
	answers := make(chan []string)
	asked := 0
	for _, a := range list[:min(len(list), imageAgents)] {
		if a.RpcAddress == "" {
			continue
		}
		asked++
		go func() {
			var out []string
			conn, err := c.dialAddress(a.RpcAddress)
			if err == nil {
				answer, _ := operatorv1.NewAgentOperatorClient(conn).ListImages(ctx, &operatorv1.ListImagesRequest{})
				for _, i := range answer.GetImages() {
					out = append(out, described(i.Name, "%.1f MiB", float64(i.Bytes)/(1<<20)))
				}
				conn.Close()
			}
			answers <- out
		}()
	}
	var out []string
	for range asked { // each ends with ctx
		out = append(out, <-answers...)
	}
	return out, nil
}

// imageAgents is how many agents are asked for the names of images.
const imageAgents = 16

// argumentChoices say what completes an argument, by its name in a verb's usage.
// What is not here is completed by nothing.
func (c *cli) argumentChoices(verb string) map[string]cobra.CompletionFunc {
	tasks := taskChoices(verb == "mezzo logs" || verb == "mezzo tasks")
	roles := roleChoices
	if verb == "mezzo quota remove" || verb == "mezzo quota get" {
		roles = quotaChoices
	}
	ids := choices(anyChoices)
	if strings.HasPrefix(verb, "mezzo volume ") {
		ids = volumeChoices
	}
	out := map[string]cobra.CompletionFunc{
		"AGENT": c.complete(agentChoices), "FRAMEWORK": c.complete(frameworkChoices), "TASK": c.complete(tasks), "ROLE": c.complete(roles),
		"ROLE=WEIGHT": c.complete(weightChoices), "ID": c.complete(ids), "MACHINE": c.complete(machineChoices), "LEVEL": fixed(append(logLevels, "config")...),
		"ACTION": actionChoices(), "FILE": files, "BINARY": files, "DIR": files,
	}
	if strings.HasPrefix(verb, "mezzo image ") {
		out["NAME"] = c.complete(c.imageChoices)
	}
	return out
}

var logLevels = []string{"trace", "debug", "info", "warn", "error"}

// flagChoices say what completes a flag, by its name. A flag that is not here is
// completed by nothing, and one that is switched on or off by that.
func (c *cli) flagChoices() map[string]cobra.CompletionFunc {
	return map[string]cobra.CompletionFunc{
		"agent": c.complete(agentChoices), "framework": c.complete(frameworkChoices), "role": c.complete(roleChoices), "image": c.complete(c.imageChoices),
		"isolator": c.complete(func(ctx context.Context, client operatorv1.OperatorClient, _ string) ([]string, error) {
			return c.isolatorChoices(ctx, client)
		}),
		"color": fixed(colorModes...), "kind": fixed(eventKinds...), "log-level": fixed(logLevels...), "pull": fixed(slices.Sorted(maps.Keys(pullPolicies))...),
		"sort":    fixed(topSorts...),
		"network": fixed("host", "none", "bridge"),
		"config":  files, "tls-ca": files, "tls-cert": files, "tls-key": files, "data-dir": files, "plugin-dir": files, "dir": files, "volume": files, "sdk": files,
	}
}

// isolatorChoices are the names of isolators on the first agent that answers.
func (c *cli) isolatorChoices(ctx context.Context, client operatorv1.OperatorClient) ([]string, error) {
	agents, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, a := range agents.GetAgents()[:min(len(agents.GetAgents()), imageAgents)] {
		for _, p := range c.agentPlugins(ctx, a) {
			if name, ok := strings.CutPrefix(p.Id, "isolator/"); ok {
				out = append(out, described(name, "%s", p.State))
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out, nil
}

// argumentName is an argument in a usage line: "[TASK]", "AGENT", "ID…".
var argumentName = regexp.MustCompile(`^\[?([A-Z][A-Z=]*)(…?)\]?$`)

// argumentNames are the names of a verb's arguments in order, and whether the last
// may be repeated.
func argumentNames(use string) (names []string, repeats bool) {
	for _, word := range strings.Fields(use)[1:] {
		m := argumentName.FindStringSubmatch(word)
		if m == nil {
			continue // a flag
		}
		names, repeats = append(names, m[1]), m[2] != ""
	}
	return names, repeats
}

// addCompletions gives every verb below cmd its completions.
func (c *cli) addCompletions(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		c.addCompletions(child)
	}
	flags := c.flagChoices()
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		choose, known := flags[f.Name]
		if !known {
			choose = noCompletion
		}
		if f.Value.Type() == "bool" || cmd.Flag(f.Name) == nil {
			return
		}
		_ = cmd.RegisterFlagCompletionFunc(f.Name, choose) // a flag of the parent has its own already
	})
	if cmd.ValidArgsFunction != nil {
		return
	}
	names, repeats := argumentNames(cmd.Use)
	known := c.argumentChoices(cmd.CommandPath())
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		at := len(args)
		if repeats {
			at = min(at, len(names)-1)
		}
		if at >= len(names) || known[names[at]] == nil {
			return noCompletion(cmd, args, typed)
		}
		return known[names[at]](cmd, args, typed)
	}
}
