package command

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) weightsCommand() *cobra.Command {
	cmd := listCommand(c, list[*operatorv1.Role]{
		use: "weights", short: "List the weights of roles; set them with weights set",
		long:    "A role of weight 2 gets twice the share of one of weight 1. SET BY is operator, configuration, or a dash for the default.",
		example: "  mezzo weights\n  mezzo weights set ads=2",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Role, error) {
			answer, err := client.ListRoles(ctx, &operatorv1.ListRolesRequest{})
			return answer.GetRoles(), err
		},
		header: []string{"ROLE", "WEIGHT", "SET BY"},
		row:    func(r *operatorv1.Role) []string { return []string{r.Name, number(r.Weight), dash(r.WeightSource)} },
		empty:  "No roles.",
		kind:   kindRole, key: (*operatorv1.Role).GetName,
	})
	cmd.AddCommand(c.weightsSetCommand())
	return cmd
}

func (c *cli) weightsSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set ROLE=WEIGHT…", Short: "Set the weights of roles: all of them, or none",
		Long: "A role of weight 2 gets twice the share of one of weight 1. What is set here is durable and takes the place of the role block\n" +
			"in the master's configuration; \"default\" goes back to that.",
		Example: "  mezzo weights set ads=2 web=0.5\n  mezzo weights set ads=default",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &operatorv1.SetWeightsRequest{}
			for _, arg := range args {
				w, err := roleWeight(arg)
				if err != nil {
					return err
				}
				request.Weights = append(request.Weights, w)
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				if _, err := client.SetWeights(ctx, request); err != nil {
					return err
				}
				return c.done("set %s", strings.Join(args, " "))
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// roleWeight reads ROLE=WEIGHT.
func roleWeight(arg string) (*operatorv1.RoleWeight, error) {
	role, text, ok := strings.Cut(arg, "=")
	if !ok || role == "" {
		return nil, usage("%q is not ROLE=WEIGHT, such as ads=2", arg)
	}
	if text == "default" {
		return &operatorv1.RoleWeight{Role: role}, nil
	}
	weight, err := strconv.ParseFloat(text, 64)
	if err != nil || !(weight >= 0.001 && weight <= 1e6) {
		return nil, usage("%q: the weight must be a number from 0.001 to 1000000, or \"default\"", arg)
	}
	return &operatorv1.RoleWeight{Role: role, Weight: weight}, nil
}
