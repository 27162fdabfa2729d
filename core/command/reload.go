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
	addresses := c.client.addresses
	if agent != "" {
		address, err := c.agentAddress(ctx, agent)
		if err != nil {
			return err
		}
		addresses = []string{address}
	}
	failed := false
	for _, address := range addresses {
		answer, err := c.reloadOne(ctx, address)
		if err != nil {
			return fmt.Errorf("reload %s: %w", address, plain(err))
		}
		if err := c.showReload(answer); err != nil {
			return err
		}
		failed = failed || answer.GetFailed()
	}
	if failed {
		return &exitError{code: 1}
	}
	return nil
}

// reloadOne reloads whatever serves at an address: a master or an agent.
func (c *cli) reloadOne(ctx context.Context, address string) (*operatorv1.ReloadResponse, error) {
	conn, err := c.dialAddress(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := operatorv1.NewOperatorClient(conn).Reload(ctx, &operatorv1.ReloadRequest{}, grpc.WaitForReady(false))
	if status.Code(err) == codes.Unimplemented {
		return operatorv1.NewAgentOperatorClient(conn).Reload(ctx, &operatorv1.ReloadRequest{})
	}
	return answer, err
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
