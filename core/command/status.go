package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) statusCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Status]{
		use: "status", short: "Show the cluster at a glance",
		long: "Who leads and for how long, where it listens, how many agents, frameworks, tasks and offers there are, what the cluster has and\n" +
			"how much of it is allocated and offered, and the master's plugins that are not healthy.",
		example: "  mezzo status\n  mezzo status --watch\n  mezzo status --address zk://zk1:2181,zk2:2181/mezzo --json",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Status, error) {
			s, err := client.GetStatus(ctx, &operatorv1.GetStatusRequest{})
			return []*operatorv1.Status{s}, err
		},
		header: []string{"MASTER", "STATE", "AGENTS", "FRAMEWORKS", "TASKS", "OFFERS", "CPUS", "MEM"},
		row: func(s *operatorv1.Status) []string {
			return []string{
				s.MasterId, s.Leadership, counts(s.Agents), counts(s.Frameworks),
				fmt.Sprintf("%d, %d running", s.Tasks.GetActive(), s.Tasks.GetRunning()), strconv.FormatUint(s.Offers, 10),
				share(s.Allocated, s.Total, "cpus"), share(s.Allocated, s.Total, "mem"),
			}
		},
		key: (*operatorv1.Status).GetMasterId,
		page: func(w io.Writer, items []*operatorv1.Status, color bool) error {
			return writeStatus(w, items[0], color)
		},
	})
}

func writeStatus(w io.Writer, s *operatorv1.Status, color bool) error {
	state := func(word string) string {
		if !color {
			return word
		}
		return paint(stateColor(word), word)
	}
	fmt.Fprintf(w, "Master      %s, %s for %s (version %s, epoch %d)\n", s.MasterId, state(s.Leadership), age(s.Elected), s.Version, s.Epoch)
	fmt.Fprintf(w, "Listens at  %s\n", dash(endpointText(s.Endpoints)))
	fmt.Fprintf(w, "Agents      %s\n", counts(s.Agents))
	fmt.Fprintf(w, "Frameworks  %s\n", counts(s.Frameworks))
	fmt.Fprintf(w, "Tasks       %d active, %d running\n", s.Tasks.GetActive(), s.Tasks.GetRunning())
	fmt.Fprintf(w, "Offers      %d outstanding\n\n", s.Offers)
	t := newTable("RESOURCE", "TOTAL", "ALLOCATED", "OFFERED", "USED")
	for _, name := range []string{"cpus", "mem", "disk", "gpus"} {
		total := s.Total.GetFields()[name].GetNumberValue()
		if total == 0 && name == "gpus" {
			continue
		}
		used := "-"
		if total > 0 {
			used = fmt.Sprintf("%.0f%%", 100*s.Allocated.GetFields()[name].GetNumberValue()/total)
		}
		t.row(name, amount(s.Total, name), amount(s.Allocated, name), amount(s.Offered, name), used)
	}
	if err := t.render(w, 0, color); err != nil {
		return err
	}
	for _, p := range s.Plugins {
		if p.State != "healthy" {
			fmt.Fprintf(w, "\n%s on %s is %s: %s\n", p.Id, p.Host, state(p.State), dash(p.Reason))
		}
	}
	return nil
}

// endpointText is "mesos=10.0.0.1:5050 rpc=…".
func endpointText(list []*operatorv1.Endpoint) string {
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = e.Name + "=" + e.Address
	}
	return strings.Join(words, " ")
}

func counts(n *operatorv1.Counts) string {
	text := fmt.Sprintf("%d, %d active", n.GetTotal(), n.GetActive())
	if n.GetUnreachable() > 0 {
		text += fmt.Sprintf(", %d unreachable", n.GetUnreachable())
	}
	return text
}

// agentQueries is how many agents are asked at a time.
const agentQueries = 16

// allPlugins are the master's plugins and those of every agent that answers.
func (c *cli) allPlugins(ctx context.Context, client operatorv1.OperatorClient) ([]*operatorv1.Plugin, error) {
	r, err := client.ListPlugins(ctx, &operatorv1.ListPluginsRequest{})
	if err != nil {
		return nil, err
	}
	agents, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	found := make([][]*operatorv1.Plugin, len(agents.Agents))
	var group sync.WaitGroup
	slots := make(chan struct{}, agentQueries)
	for i, a := range agents.Agents {
		if a.State == "unreachable" || a.RpcAddress == "" {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i] = c.agentPlugins(ctx, a)
		})
	}
	group.Wait()
	plugins := slices.Concat(r.Plugins, slices.Concat(found...))
	slices.SortStableFunc(plugins, func(a, b *operatorv1.Plugin) int { return strings.Compare(a.Host, b.Host) })
	return plugins, nil
}

// agentPlugins asks one agent. One that does not answer is shown as such.
func (c *cli) agentPlugins(ctx context.Context, a *operatorv1.Agent) []*operatorv1.Plugin {
	unknown := func(err error) []*operatorv1.Plugin {
		return []*operatorv1.Plugin{{Id: "?", Host: a.Id, State: "unknown", Reason: "the agent does not answer: " + plain(err).Error()}}
	}
	conn, err := c.dialAddress(a.RpcAddress)
	if err != nil {
		return unknown(err)
	}
	defer conn.Close()
	state, err := operatorv1.NewAgentOperatorClient(conn).GetState(ctx, &operatorv1.GetAgentStateRequest{})
	if err != nil {
		return unknown(err)
	}
	for _, p := range state.Plugins {
		p.Host = a.Id
	}
	return state.Plugins
}
