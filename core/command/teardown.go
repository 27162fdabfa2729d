package command

import (
	"context"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) teardownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "teardown FRAMEWORK", Short: "End a framework for good, with all its tasks", Args: cobra.ExactArgs(1),
		Long: "For a framework whose scheduler is gone, or that must end now. Its tasks and executors are asked to end and then killed, what it\n" +
			"has is given back, and its id is never let in again. A scheduler that is connected is told so.",
		Example: "  mezzo teardown spark\n  mezzo teardown 5f2c1a09-1-F7 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			var f *operatorv1.Framework
			err := c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				answer, err := client.ListFrameworks(ctx, &operatorv1.ListFrameworksRequest{})
				if err == nil {
					f, err = findFramework(answer.GetFrameworks(), args[0])
				}
				return err
			})
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), "End framework %s (%s, %s, with %s) for good?", f.Id, f.Name, f.State, plural(f.Tasks, "task")); err != nil {
				return err
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				if _, err := client.Teardown(ctx, &operatorv1.TeardownRequest{FrameworkId: f.Id}); err != nil {
					return err
				}
				return c.done("ended framework %s (%s)", f.Id, f.Name)
			})
		},
	}
	c.addYesFlag(cmd)
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}
