package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) killCommand() *cobra.Command {
	var framework string
	cmd := &cobra.Command{
		Use: "kill TASK…", Short: "Ask tasks to end: SIGTERM, the grace period, SIGKILL", Args: cobra.MinimumNArgs(1),
		Long: "TASK is a task's id, or the beginning of it. A task that does not end in its grace period is killed; its framework is told, and may\n" +
			"start another in its place.",
		Example: "  mezzo kill web.1\n  mezzo kill web.1 --framework spark",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				for _, name := range args {
					task, err := taskNamed(ctx, client, name, framework, false)
					if err == nil {
						_, err = client.KillTask(ctx, &operatorv1.KillTaskRequest{TaskId: task.Id, FrameworkId: task.FrameworkId})
					}
					if err != nil {
						return fmt.Errorf("kill %s: %w", name, plain(err))
					}
					if err := c.done("asked %s to end", task.Id); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&framework, "framework", "", "the framework, by its id or its name, when several have such a task")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}
