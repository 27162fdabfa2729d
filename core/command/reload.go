package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// reloadTimeout bounds one reload: a plugin that takes over may need a while.
const reloadTimeout = 5 * time.Minute

func (c *cli) reloadCommand() *cobra.Command {
	var agent string
	cmd := &cobra.Command{
		Use: "reload", Short: "Apply the changed configuration of a running master or agent", Args: cobra.NoArgs,
		Long: `Has the process at --address (a master, or an agent) read its configuration files
again and change what changed; SIGHUP to the process does the same. It prints what
it changed, and what differs but counts only after a restart. With an error in the
configuration, or a plugin that does not take over, nothing changes, and the error
is printed with its line.`,
		Example: "  mezzo reload\n  mezzo reload --address 10.0.0.7:5063\n  mezzo reload --agent a1.example.com",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.reload(cmd.Context(), agent) },
	}
	cmd.Flags().StringVar(&agent, "agent", "", "reload this agent (its id, the beginning or the end of it, or its host name), which the master at --address knows")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOf(jsonOne, (*operatorv1.ReloadResponse)(nil)))
	return cmd
}

func (c *cli) reload(ctx context.Context, agent string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	failed := false
	err := c.eachProcess(ctx, agent, "reload", func(client processClient) error {
		answer, err := client.Reload(ctx, &operatorv1.ReloadRequest{})
		failed = failed || answer.GetFailed()
		if err != nil {
			return err
		}
		return c.showReload(answer)
	})
	if err == nil && failed {
		return &exitError{code: 1}
	}
	return err
}

// processClient is what a master and an agent serve alike.
type processClient interface {
	Reload(context.Context, *operatorv1.ReloadRequest, ...grpc.CallOption) (*operatorv1.ReloadResponse, error)
	GetLogLevel(context.Context, *operatorv1.GetLogLevelRequest, ...grpc.CallOption) (*operatorv1.LogLevel, error)
	SetLogLevel(context.Context, *operatorv1.SetLogLevelRequest, ...grpc.CallOption) (*operatorv1.LogLevel, error)
}

// eachProcess does something with what serves at the addresses that were given, be
// it a master or an agent, or with the agent that is named.
func (c *cli) eachProcess(ctx context.Context, agent, what string, do func(processClient) error) error {
	addresses := c.client.addresses
	if agent != "" {
		address, err := c.agentAddress(ctx, agent)
		if err != nil {
			return err
		}
		addresses = []string{address}
	}
	for _, address := range addresses {
		conn, err := c.dialAddress(address)
		if err == nil {
			err = do(operatorv1.NewOperatorClient(conn))
			if status.Code(err) == codes.Unimplemented {
				err = do(operatorv1.NewAgentOperatorClient(conn))
			}
			conn.Close()
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", what, address, unanswered(err))
		}
	}
	return nil
}

// agentAddress asks the master where an agent is.
func (c *cli) agentAddress(ctx context.Context, name string) (address string, err error) {
	err = c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) error {
		a, err := agentNamed(ctx, client, name)
		if err != nil {
			return err
		}
		address, err = addressOf(a)
		return err
	})
	return address, err
}

// addressOf is where an agent serves the command line.
func addressOf(a *operatorv1.Agent) (string, error) {
	if a.GetRpcAddress() == "" {
		return "", fmt.Errorf("agent %s (%s) is %s, and the master does not know where it is: try again when it has registered", a.GetId(), a.GetHostname(), a.GetState())
	}
	return a.GetRpcAddress(), nil
}

func (c *cli) showReload(r *operatorv1.ReloadResponse) error {
	if c.json {
		return c.writeJSON(r)
	}
	fmt.Fprint(c.err, r.GetDiagnostics())
	for _, change := range r.GetChanges() {
		fmt.Fprintf(c.out, "changed %s: %s -> %s\n", change.GetWhat(), change.GetFrom(), change.GetTo())
	}
	if r.GetFailed() {
		if len(r.GetChanges()) > 0 {
			fmt.Fprintln(c.err, "mezzo: the rest has not changed")
		} else {
			fmt.Fprintln(c.err, "mezzo: nothing has changed")
		}
		return nil
	}
	if len(r.GetChanges()) == 0 {
		fmt.Fprintln(c.out, "nothing to change")
	}
	for _, change := range r.GetRestart() {
		fmt.Fprintf(c.out, "needs a restart, not applied: %s: %s -> %s\n", change.GetWhat(), change.GetFrom(), change.GetTo())
	}
	return nil
}
