package command

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) logsCommand() *cobra.Command {
	var follow, stderr bool
	var framework string
	var tail uint32
	cmd := &cobra.Command{
		Use: "logs TASK", Short: "Print what a task has written, across rotation",
		Long: "TASK is a task's id, or the beginning of it. What a task that has ended has written is there for as long as its sandbox, on the\n" +
			"agent that ran it.",
		Example: "  mezzo logs -f web.1\n  mezzo logs --stderr --tail 100 web.1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &operatorv1.LogsRequest{Follow: follow, Stream: operatorv1.LogStream_LOG_STREAM_STDOUT}
			if stderr {
				request.Stream = operatorv1.LogStream_LOG_STREAM_STDERR
			}
			if cmd.Flags().Changed("tail") {
				request.TailLines = proto.Uint32(tail)
			}
			task, agent, err := c.findTask(cmd.Context(), args[0], framework)
			if err != nil {
				return err
			}
			request.TaskId, request.FrameworkId = task.Id, task.FrameworkId
			conn, err := c.dialAddress(agent.RpcAddress)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := silent(copyLogs(cmd.Context(), conn, request, c.out), agent); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("logs of %s: %w", request.TaskId, err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on with what it writes, until it ends")
	f.BoolVar(&stderr, "stderr", false, "stderr instead of stdout")
	f.StringVar(&framework, "framework", "", "the framework, by its id or its name, when several have such a task")
	f.Uint32Var(&tail, "tail", 0, "begin this many lines before the end")
	c.addClientFlags(cmd)
	return cmd
}

// silent is the plain error of a call to an agent; of one that does not answer it
// says what that means for its tasks.
func silent(err error, agent *operatorv1.Agent) error {
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("agent %s (%s) does not answer: %w (mezzo agents shows how it is; its tasks may run on)", agent.GetId(), agent.GetHostname(), plain(err))
	}
	return plain(err)
}

// findTask returns a task, and the agent that has it.
func (c *cli) findTask(ctx context.Context, name, framework string) (task *operatorv1.Task, agent *operatorv1.Agent, err error) {
	err = c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) error {
		if task, err = taskNamed(ctx, client, name, framework, true); err != nil {
			return err
		}
		agent, err = registeredAgent(ctx, client, task.AgentId)
		return err
	})
	return task, agent, err
}

// registeredAgent finds the agent with an id, where it can be reached.
func registeredAgent(ctx context.Context, client operatorv1.OperatorClient, id string) (*operatorv1.Agent, error) {
	agents, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	for _, a := range agents.Agents {
		if a.Id == id && a.RpcAddress != "" {
			return a, nil
		}
	}
	return nil, fmt.Errorf("agent %s is not registered with the master at this time (mezzo agents shows those that are)", id)
}

// copyLogs writes a task's stream to w until its end.
func copyLogs(ctx context.Context, conn grpc.ClientConnInterface, request *operatorv1.LogsRequest, w io.Writer) error {
	stream, err := operatorv1.NewAgentOperatorClient(conn).Logs(ctx, request)
	if err != nil {
		return err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return err
		}
	}
}
