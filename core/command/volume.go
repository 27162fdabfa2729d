package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/sdk/framework"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func (c *cli) volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "volume", Short: "Persistent volumes: create, destroy, grow, shrink, list",
		Long: "A persistent volume is disk of an agent, reserved to a role, whose content outlives tasks, the agent and the master. It is\n" +
			"offered to frameworks in that role, and a task that uses it finds it in its sandbox.",
		Args: cobra.NoArgs,
		RunE: needVerb,
	}
	cmd.AddCommand(c.volumeCreateCommand(), c.volumeDestroyCommand(), c.volumeResizeCommand("grow"), c.volumeResizeCommand("shrink"), c.volumeListCommand())
	return cmd
}

func (c *cli) volumeCreateCommand() *cobra.Command {
	var role, size, path, principal string
	var shared, reserve bool
	cmd := &cobra.Command{
		Use: "create AGENT ID --role ROLE --size SIZE", Short: "Make a persistent volume of reserved disk",
		Long: "The volume is made of disk that is reserved to the role on the agent; with --reserve the disk is reserved first. ID is its\n" +
			"name, unique for the role on the agent. AGENT is an agent's id, the beginning or the end of it, or its host name.",
		Example: "  mezzo volume create S0 data --role db --size 64GiB --path data --reserve",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			amount, err := mebibytes("--size", size)
			if err != nil {
				return err
			}
			if amount <= 0 {
				return usage("--size: a volume needs a size, such as 64GiB")
			}
			if path == "" {
				path = args[1]
			}
			return c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				disk := framework.Reserved(role, principal, framework.Disk(amount))
				if reserve {
					if err := apply(ctx, client, a, framework.Reserve("", disk...)); err != nil {
						return fmt.Errorf("the disk was not reserved: %w", plain(err))
					}
					if a, err = refreshed(ctx, client, a); err != nil {
						return err
					}
				}
				picked, err := pickReserved(a, role, resource.ScalarOf("disk", resource.ScalarFromFloat(amount)), false)
				if err != nil {
					return fmt.Errorf("%w; reserve the disk first, or give --reserve", err)
				}
				if len(picked) > 1 {
					return fmt.Errorf("agent %s: the disk of role %s was reserved by several (%s), and one volume can only be made of what one has reserved", a.Id, role, picked)
				}
				volume := framework.PersistentVolume(picked.ToProto()[0], args[1], path, principal)
				if shared {
					volume = framework.Shared(volume)
				}
				if err := apply(ctx, client, a, framework.CreateVolumes("", volume)); err != nil {
					return err
				}
				return c.done("volume %s of %s is created on agent %s; tasks find it at %s", args[1], role, a.Id, path)
			})
		},
	}
	addRole(cmd, &role, "the role whose volume it is")
	f := cmd.Flags()
	f.StringVar(&size, "size", "0", "how large, in MiB or as 64GiB")
	f.StringVar(&path, "path", "", "where tasks find it: in the sandbox, unless it begins with a slash (default: the volume's id)")
	f.StringVar(&principal, "principal", "", "who creates it; with TLS it is the caller")
	f.BoolVar(&shared, "shared", false, "several tasks may use it at a time")
	f.BoolVar(&reserve, "reserve", false, "reserve the disk first")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// refreshed is the agent as it is now.
func refreshed(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) (*operatorv1.Agent, error) {
	return agentNamed(ctx, client, a.Id)
}

func (c *cli) volumeDestroyCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use: "destroy AGENT ID", Short: "Remove a persistent volume with all that is in it",
		Long:    "Its content is gone for good. The disk stays reserved; mezzo unreserve frees it. A volume that tasks use is not destroyed.",
		Example: "  mezzo volume destroy S0 data --role db\n  mezzo volume destroy S0 data --yes",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a *operatorv1.Agent
			var v *operatorv1.Volume
			err := c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, found *operatorv1.Agent) (err error) {
				a = found
				v, err = findVolume(ctx, client, a.Id, role, args[1])
				return err
			})
			if err != nil {
				return err
			}
			if err := c.confirm(cmd.Context(), "Destroy volume %s of %s on agent %s (%s), with all that is in it?", v.Id, v.Role, a.Id, megabytes(v.SizeMb)); err != nil {
				return err
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				if err := apply(ctx, client, a, framework.DestroyVolumes("", v.Resource)); err != nil {
					return err
				}
				return c.done("volume %s of %s on agent %s is destroyed", v.Id, v.Role, a.Id)
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "the role whose volume it is, when several have one of that name")
	c.addYesFlag(cmd)
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) volumeResizeCommand(verb string) *cobra.Command {
	var role, by string
	short := "Add reserved disk to a persistent volume"
	if verb == "shrink" {
		short = "Take disk from a persistent volume; what is in it stays"
	}
	cmd := &cobra.Command{
		Use: verb + " AGENT ID --by SIZE", Short: short, Long: short + ".\nThe disk that comes or goes is disk reserved to the volume's role on the agent. A volume that tasks use is not changed.", Args: cobra.ExactArgs(2),
		Example: "  mezzo volume " + verb + " S0 data --by 16GiB",
		RunE: func(cmd *cobra.Command, args []string) error {
			amount, err := mebibytes("--by", by)
			if err != nil {
				return err
			}
			if amount <= 0 {
				return usage("--by: give by how much to %s, such as 16GiB", verb)
			}
			return c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				v, err := findVolume(ctx, client, a.Id, role, args[1])
				if err != nil {
					return err
				}
				op, size := framework.ShrinkVolume("", v.Resource, amount), v.SizeMb-amount
				if verb == "grow" {
					op, size = framework.GrowVolume("", v.Resource, sized(v.Resource, amount)), v.SizeMb+amount
				}
				if err := apply(ctx, client, a, op); err != nil {
					return err
				}
				return c.done("volume %s of %s on agent %s has %s now", v.Id, v.Role, a.Id, megabytes(size))
			})
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "the role whose volume it is, when several have one of that name")
	cmd.Flags().StringVar(&by, "by", "0", "by how much, in MiB or as 16GiB")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) volumeListCommand() *cobra.Command {
	var role, agent string
	return listCommand(c, list[*operatorv1.Volume]{
		use: "list", short: "List persistent volumes",
		long:    "Those of agents that are there. PATH is where tasks find it, and USED BY the tasks that use it now.",
		example: "  mezzo volume list\n  mezzo volume list --role db --agent node7",
		flags: func(cmd *cobra.Command) {
			cmd.Flags().StringVar(&role, "role", "", "only those of this role")
			cmd.Flags().StringVar(&agent, "agent", "", "only those of this agent: its id, the beginning or the end of it, or its host name")
		},
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Volume, error) {
			request := &operatorv1.ListVolumesRequest{Role: role}
			if agent != "" {
				a, err := agentNamed(ctx, client, agent)
				if err != nil {
					return nil, err
				}
				request.AgentId = a.Id
			}
			answer, err := client.ListVolumes(ctx, request)
			return answer.GetVolumes(), err
		},
		header: []string{"ID", "ROLE", "AGENT", "SIZE", "PATH", "SHARED", "USED BY"},
		row: func(v *operatorv1.Volume) []string {
			var tasks []string
			for _, t := range v.Tasks {
				tasks = append(tasks, t.TaskId)
			}
			shared := "no"
			if v.Shared {
				shared = "yes"
			}
			return []string{v.Id, v.Role, v.AgentId, megabytes(v.SizeMb), v.ContainerPath, shared, dash(strings.Join(tasks, ","))}
		},
		empty: "There are no persistent volumes.",
		key:   func(v *operatorv1.Volume) string { return v.AgentId + " " + v.Role + " " + v.Id },
	})
}

func megabytes(n float64) string { return resource.ScalarFromFloat(n).String() + " MiB" }
