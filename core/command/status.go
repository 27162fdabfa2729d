package command

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Show the cluster at a glance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				s, err := client.GetStatus(ctx, &operatorv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				if c.json {
					return c.writeJSON(s)
				}
				return c.printStatus(s)
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd)
	return cmd
}

func (c *cli) printStatus(s *operatorv1.Status) error {
	fmt.Fprintf(c.out, "Master      %s, %s for %s (version %s, epoch %d)\n", s.MasterId, s.Leadership, age(s.Elected), s.Version, s.Epoch)
	fmt.Fprintf(c.out, "Listens at  %s\n", dash(endpointText(s.Endpoints)))
	fmt.Fprintf(c.out, "Agents      %s\n", counts(s.Agents, "active"))
	fmt.Fprintf(c.out, "Frameworks  %s\n", counts(s.Frameworks, "active"))
	fmt.Fprintf(c.out, "Tasks       %d active, %d running\n", s.Tasks.GetActive(), s.Tasks.GetRunning())
	fmt.Fprintf(c.out, "Offers      %d outstanding\n\n", s.Offers)
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
	if err := c.print(t); err != nil {
		return err
	}
	for _, p := range s.Plugins {
		if p.State != "healthy" {
			fmt.Fprintf(c.out, "\n%s on %s is %s: %s\n", p.Id, p.Host, p.State, dash(p.Reason))
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

func counts(n *operatorv1.Counts, word string) string {
	text := fmt.Sprintf("%d, %d %s", n.GetTotal(), n.GetActive(), word)
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
