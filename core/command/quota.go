package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mezzo-os/mezzo/config"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) quotaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "quota", Short: "Guarantees and limits of roles: set, get, remove",
		Long: "A guarantee is what a role is sure to get: so much is held back for it from others. A limit is the most that it and the\n" +
			"roles below it may have. What is set here is durable and takes the place of the role block in the master's configuration.",
		Args: cobra.NoArgs,
		RunE: needVerb,
	}
	cmd.AddCommand(c.quotaSetCommand(), c.quotaGetCommand(), c.quotaRemoveCommand())
	return cmd
}

func (c *cli) quotaSetCommand() *cobra.Command {
	var guarantee, limit string
	request := &operatorv1.SetQuotaRequest{}
	cmd := &cobra.Command{
		Use: "set ROLE [--guarantee TEXT] [--limit TEXT] [--force]", Short: "Set a role's guarantee, its limit, or both",
		Long: "What is not given stays as it is; \"none\" takes it away. A resource that a limit does not name is not limited; 0 forbids it.\n" +
			"A limit below what the role uses already is refused, unless --force is given: then offers are taken back, nothing more is\n" +
			"offered, and what runs goes on.",
		Example: "  mezzo quota set ads --guarantee 'cpus:8;mem:16384' --limit 'cpus:64;gpus:0'\n  mezzo quota set ads --limit none",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Role = args[0]
			var err error
			if request.Guarantee, err = quotaFlag(cmd, "guarantee", guarantee); err != nil {
				return err
			}
			if request.Limit, err = quotaFlag(cmd, "limit", limit); err != nil {
				return err
			}
			if request.Guarantee == nil && request.Limit == nil {
				return usage("quota set %s: give --guarantee, --limit, or both (\"none\" takes it away)", args[0])
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				answer, err := client.SetQuota(ctx, request)
				if err != nil {
					return err
				}
				return c.quotaDone(answer.Warnings, "quota of %s is set", args[0])
			})
		},
	}
	cmd.Flags().StringVar(&guarantee, "guarantee", "", `what the role is sure to get, such as "cpus:8;mem:16384", or "none"`)
	cmd.Flags().StringVar(&limit, "limit", "", `the most that the role may have, such as "cpus:64;gpus:0", or "none"`)
	cmd.Flags().BoolVar(&request.Force, "force", false, "set the limit although the role uses more")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOfValue(jsonOne, quotaOrder{}))
	return cmd
}

// quotaFlag reads a flag; nil when it was not given, empty for none.
func quotaFlag(cmd *cobra.Command, name, text string) (*structpb.Struct, error) {
	if !cmd.Flags().Changed(name) {
		return nil, nil
	}
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	if text = strings.TrimSpace(text); text == "" || text == "none" {
		return out, nil
	}
	list, err := config.ParseQuota(text)
	if err != nil {
		return nil, usage("--%s: %w", name, err)
	}
	for _, q := range list {
		out.Fields[q.Name] = structpb.NewNumberValue(q.Amount.Float())
	}
	return out, nil
}

// quotaOrder is an order that was carried out, in JSON.
type quotaOrder struct {
	Done     string   `json:"done"`
	Warnings []string `json:"warnings,omitempty"`
}

// quotaDone says that an order was carried out, with its warnings.
func (c *cli) quotaDone(warnings []string, format string, args ...any) error {
	done := fmt.Sprintf(format, args...)
	if c.json {
		return c.printValue(quotaOrder{done, warnings})
	}
	fmt.Fprintln(c.out, done)
	for _, w := range warnings {
		fmt.Fprintf(c.err, "mezzo: warning: %s\n", w)
	}
	return nil
}

func (c *cli) quotaGetCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.Quota]{
		use: "get [ROLE]", short: "List the roles that have a guarantee or a limit",
		long:    "CONSUMED is what counts toward both: with the roles below it, offers and reservations included. SET BY is operator or configuration.",
		example: "  mezzo quota get\n  mezzo quota get ads --json", args: cobra.MaximumNArgs(1),
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, args []string) ([]*operatorv1.Quota, error) {
			request := &operatorv1.GetQuotaRequest{}
			if len(args) == 1 {
				request.Role = args[0]
			}
			answer, err := client.GetQuota(ctx, request)
			return answer.GetQuotas(), err
		},
		header: []string{"ROLE", "GUARANTEE", "LIMIT", "CONSUMED", "SET BY"},
		row: func(q *operatorv1.Quota) []string {
			return []string{q.Role, dash(quotaText(q.Guarantee)), dash(quotaText(q.Limit)), dash(amounts(q.Consumed)), q.Source}
		},
		empty: "No role has a quota.",
		key:   (*operatorv1.Quota).GetRole,
	})
}

func (c *cli) quotaRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove ROLE", Short: "Forget what was set of a role's quota; the configuration's counts again", Args: cobra.ExactArgs(1),
		Long:    "What mezzo quota set has set of the role is forgotten; what its role block in the master's configuration says counts again.",
		Example: "  mezzo quota remove ads",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				answer, err := client.RemoveQuota(ctx, &operatorv1.RemoveQuotaRequest{Role: args[0]})
				if err != nil {
					return err
				}
				return c.quotaDone(answer.Warnings, "quota of %s is removed", args[0])
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOfValue(jsonOne, quotaOrder{}))
	return cmd
}
