package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// drainPoll is how often a drain is looked at while it is waited for.
	drainPoll = 500 * time.Millisecond
	// drainPatience is for how long no master may answer meanwhile.
	drainPatience = 2 * time.Minute
)

// agentOrders are the operators' verbs below `mezzo agent`.
func (c *cli) agentOrders() []*cobra.Command {
	return []*cobra.Command{
		c.agentDrainCommand(), c.agentGoneCommand(),
		c.agentOrder("deactivate", "Offer an agent to nobody any more; its tasks run on", "  mezzo agent deactivate node7", "is deactivated: it is not offered, and its tasks run on",
			func(ctx context.Context, client operatorv1.OperatorClient, id string) error {
				_, err := client.DeactivateAgent(ctx, &operatorv1.DeactivateAgentRequest{AgentId: id})
				return err
			}),
		c.agentOrder("activate", "Put an agent back into service that was deactivated or drained", "  mezzo agent activate node7", "is in service",
			func(ctx context.Context, client operatorv1.OperatorClient, id string) error {
				_, err := client.ReactivateAgent(ctx, &operatorv1.ReactivateAgentRequest{AgentId: id})
				return err
			}),
	}
}

func (c *cli) agentOrder(verb, short, example, said string, do func(context.Context, operatorv1.OperatorClient, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " AGENT", Short: short, Long: short + ".\nAGENT is an agent's id, the beginning or the end of it, or its host name.", Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				if err := do(ctx, client, a.Id); err != nil {
					return err
				}
				return c.done("agent %s (%s) %s", a.Id, a.Hostname, said)
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) agentDrainCommand() *cobra.Command {
	var grace time.Duration
	var markGone, wait bool
	cmd := &cobra.Command{
		Use: "drain AGENT", Short: "Take an agent out of service and end its tasks",
		Long: "The agent is offered to nobody any more, and its tasks are asked to end: each has the grace of its own kill policy, or --grace\n" +
			"if that is less. When the last has ended, and its framework has acknowledged it, the agent is drained, and stays so until\n" +
			"mezzo agent activate. A drain cannot be called off. An agent that is away is drained when it is back.\n" +
			"AGENT is an agent's id, the beginning or the end of it, or its host name.",
		Example: "  mezzo agent drain node7 --grace 5m --wait\n  mezzo agent drain S3 --mark-gone",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &operatorv1.DrainAgentRequest{MarkGone: markGone}
			if cmd.Flags().Changed("grace") {
				if grace < 0 {
					return usage("--grace is negative")
				}
				seconds := grace.Seconds()
				request.MaxGraceSeconds = &seconds
			}
			err := c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				request.AgentId = a.Id
				_, err := client.DrainAgent(ctx, request)
				if err != nil || wait {
					return err
				}
				return c.done("agent %s (%s) is draining; mezzo agents shows how far it is", a.Id, a.Hostname)
			})
			if err != nil || !wait {
				return err
			}
			return c.awaitDrain(cmd.Context(), request)
		},
	}
	cmd.Flags().DurationVar(&grace, "grace", 0, "the most time that a task is given to end (default: its own kill policy)")
	cmd.Flags().BoolVar(&markGone, "mark-gone", false, "give the agent up for good once it is drained; see mezzo agent gone")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is drained, and tell how far it is")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// awaitDrain waits until an agent is drained, or gone if that was asked for, and
// says what it waits for whenever that changes. Another master may take over
// meanwhile.
func (c *cli) awaitDrain(ctx context.Context, q *operatorv1.DrainAgentRequest) error {
	said, heard, line := "", time.Now(), newProgressLine(c.err)
	defer line.clear()
	say := func(format string, args ...any) {
		text := oneLine(fmt.Sprintf(format, args...))
		switch {
		case text == said:
		case c.json || terminalWidth(c.out) > 0:
			line.show(text)
		default:
			fmt.Fprintln(c.out, text)
		}
		said = text
	}
	for {
		var agent *operatorv1.Agent
		err := c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) error {
			answer, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
			for _, a := range answer.GetAgents() {
				if a.Id == q.AgentId {
					agent = a
				}
			}
			return err
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if time.Since(heard) > drainPatience {
				return err
			}
			say("no master answers; the drain goes on: %s", err)
		case agent == nil && q.MarkGone:
			line.clear()
			return c.done("agent %s is gone", q.AgentId)
		case agent == nil:
			return fmt.Errorf("agent %s is not known any more: it has left, or was marked gone", q.AgentId)
		case agent.Drain == nil:
			return fmt.Errorf("agent %s is not being drained any more: somebody has put it back into service", q.AgentId)
		case agent.Drain.State == "drained" && !q.MarkGone:
			line.clear()
			return c.done("agent %s (%s) is drained", agent.Id, agent.Hostname)
		default:
			heard = time.Now()
			say("%s", strings.TrimSuffix(fmt.Sprintf("agent %s (%s) is %s: %s", agent.Id, agent.Hostname, agent.State, agent.Reason), ": "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainPoll):
		}
	}
}

func (c *cli) agentGoneCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "gone AGENT", Short: "Give an agent up for good: its tasks have ended, and it is never taken again",
		Long: "For a machine that will not come back. Frameworks are told that the agent's tasks have ended, what is reserved there is free,\n" +
			"and should the agent live after all, it is told to end its tasks and to forget its id. There is no way back.\n" +
			"AGENT is an agent's id, the beginning or the end of it, or its host name.",
		Example: "  mezzo agent gone node7\n  mezzo agent gone S3 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a *operatorv1.Agent
			err := c.onAgent(cmd.Context(), args[0], func(_ context.Context, _ operatorv1.OperatorClient, found *operatorv1.Agent) error {
				a = found
				return nil
			})
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), "Give agent %s (%s, %s, with %s) up for good?", a.Id, a.Hostname, a.State, plural(a.Tasks, "task")); err != nil {
				return err
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				if _, err := client.MarkAgentGone(ctx, &operatorv1.MarkAgentGoneRequest{AgentId: a.Id}); err != nil && status.Code(err) != codes.NotFound {
					return err
				}
				return c.done("agent %s (%s) is gone", a.Id, a.Hostname)
			})
		},
	}
	c.addYesFlag(cmd)
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// addYesFlag gives a verb that confirms what it does the flag not to.
func (c *cli) addYesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
}

// confirm asks whether to do what cannot be undone, for as long as people need.
// Anything but yes is an error.
func (c *cli) confirm(ctx context.Context, format string, args ...any) error {
	if c.yes {
		return nil
	}
	fmt.Fprintf(c.err, format+" [y/N] ", args...)
	answers := make(chan string, 1)
	go func() { // until the input has a line or ends, or the process does
		var answer string
		if _, err := fmt.Fscanln(c.in, &answer); errors.Is(err, io.EOF) {
			close(answers)
			return
		}
		answers <- answer
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(c.err)
		return ctx.Err()
	case answer, typed := <-answers:
		if !typed {
			fmt.Fprintln(c.err)
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return nil
		}
	}
	return errors.New("nothing was done; --yes answers the question")
}
