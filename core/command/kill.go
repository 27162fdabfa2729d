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
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				for _, task := range args {
					_, err := client.KillTask(ctx, &operatorv1.KillTaskRequest{TaskId: task, FrameworkId: framework})
					if err != nil {
						return fmt.Errorf("kill %s: %w", task, plain(err))
					}
					fmt.Fprintf(c.out, "asked %s to end\n", task)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&framework, "framework", "", "the framework's id, when several have such a task")
	c.addClientFlags(cmd)
	return cmd
}
