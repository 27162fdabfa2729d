package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// operationTimeout bounds an operation on an agent: a volume's content may take
// long to remove.
const operationTimeout = 5 * time.Minute

func (c *cli) reserveCommand() *cobra.Command {
	var role, principal string
	cmd := &cobra.Command{
		Use: "reserve AGENT RESOURCES --role ROLE", Short: "Reserve resources of an agent to a role",
		Long: "What is reserved is offered to frameworks in that role alone, and in roles below it, until it is unreserved. It outlasts the\n" +
			"agent and the master. What is offered to others is taken back; what tasks use cannot be reserved.\n" +
			"AGENT is an agent's id, the beginning or the end of it, or its host name.",
		Example: "  mezzo reserve S0 'cpus:2;mem:4096;disk:10240' --role db",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := plainResources(args[1])
			if err != nil {
				return err
			}
			return c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				reserved := framework.Reserved(role, principal, wanted.ToProto()...)
				if err := apply(ctx, client, a, framework.Reserve("", reserved...)); err != nil {
					return err
				}
				return c.done("%s of agent %s is reserved to %s", args[1], a.Id, role)
			})
		},
	}
	addRole(cmd, &role, "the role to reserve to")
	cmd.Flags().StringVar(&principal, "principal", "", "who reserves; with TLS it is the caller")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) unreserveCommand() *cobra.Command {
	var role string
	cmd := &cobra.Command{
		Use: "unreserve AGENT RESOURCES --role ROLE", Short: "Take back reservations of a role on an agent",
		Long: "RESOURCES are how much of what is to be free for others again. What is reserved in the agent's configuration, what is a\n" +
			"persistent volume and what tasks use cannot be unreserved.",
		Example: "  mezzo unreserve S0 'cpus:2;disk:1024' --role db",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := plainResources(args[1])
			if err != nil {
				return err
			}
			return c.onAgent(cmd.Context(), args[0], func(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent) error {
				picked, err := pickReserved(a, role, wanted, true)
				if err != nil {
					return err
				}
				if err := apply(ctx, client, a, framework.Unreserve("", picked.ToProto()...)); err != nil {
					return err
				}
				return c.done("%s of agent %s is not reserved to %s any more", args[1], a.Id, role)
			})
		},
	}
	addRole(cmd, &role, "the role whose reservation it is")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func addRole(cmd *cobra.Command, role *string, help string) {
	cmd.Flags().StringVar(role, "role", "", help)
	if err := cmd.MarkFlagRequired("role"); err != nil {
		panic(err) // the flag is there
	}
}

// plainResources reads amounts that say nothing of who has them.
func plainResources(text string) (resource.Resources, error) {
	r, err := resource.Parse(text)
	if err != nil {
		return nil, usage("%w", err)
	}
	if r.IsEmpty() {
		return nil, usage("%q names no resources: give them as 'cpus:2;disk:1024'", text)
	}
	for i := range r {
		k := r[i].Kind
		if k.IsReserved() || k.Disk() != nil || k.Revocable() {
			return nil, usage("%s: give the amount alone, as 'cpus:2;disk:1024', and the role by --role", r[i].String())
		}
	}
	return r, nil
}

// onAgent finds an agent and does something with it.
func (c *cli) onAgent(ctx context.Context, name string, do func(context.Context, operatorv1.OperatorClient, *operatorv1.Agent) error) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := operatorv1.NewOperatorClient(conn)
	a, err := agentNamed(ctx, client, name)
	if err != nil {
		return plain(err)
	}
	return plain(do(ctx, client, a))
}

func apply(ctx context.Context, client operatorv1.OperatorClient, a *operatorv1.Agent, op *mezzov1.Offer_Operation) error {
	_, err := client.ApplyOperation(ctx, &operatorv1.ApplyOperationRequest{AgentId: a.Id, Operation: op})
	return err
}

// pickReserved picks so much of what a role has reserved on an agent and is no
// volume; with dynamic only what an operation has reserved.
func pickReserved(a *operatorv1.Agent, role string, wanted resource.Resources, dynamic bool) (resource.Resources, error) {
	all, err := resource.FromProto(a.Reserved)
	if err != nil {
		return nil, err
	}
	mine := all.Filter(func(k resource.Kind) bool {
		stack := k.Reservations()
		return k.Role() == role && k.PersistenceID() == "" && (!dynamic || stack[len(stack)-1].Dynamic)
	})
	var picked resource.Resources
	for i := range wanted {
		left := wanted[i : i+1]
		for j := range mine {
			have := mine[j : j+1]
			if have[0].Kind.Name() != left[0].Kind.Name() || have[0].Kind.Disk() != nil {
				continue
			}
			part := have.ToUnreserved().Intersect(left)
			if part.IsEmpty() {
				continue
			}
			picked = picked.Add(part.Map(func(resource.Kind) resource.Kind { return have[0].Kind }))
			if left = left.Minus(part); left.IsEmpty() {
				break
			}
		}
		if !left.IsEmpty() {
			what := "has reserved there"
			if dynamic {
				what = "has reserved there by an operation"
			}
			return nil, fmt.Errorf("agent %s: %s is missing of what role %s %s (%s); volumes do not count", a.Id, left, role, what, shortResources(mine))
		}
	}
	return picked, nil
}

// shortResources is how much there is, without by whom.
func shortResources(r resource.Resources) string {
	if r.IsEmpty() {
		return "nothing"
	}
	return r.ToUnreserved().String()
}

// findVolume finds a volume by its id, on an agent or on any, of a role or of any.
func findVolume(ctx context.Context, client operatorv1.OperatorClient, agent, role, id string) (*operatorv1.Volume, error) {
	answer, err := client.ListVolumes(ctx, &operatorv1.ListVolumesRequest{AgentId: agent, Role: role})
	if err != nil {
		return nil, err
	}
	var found []*operatorv1.Volume
	for _, v := range answer.GetVolumes() {
		if v.Id == id {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("agent %s has no volume %q; mezzo volume list shows which there are", agent, id)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("agent %s has a volume %q of role %s and one of role %s: say which by --role", agent, id, found[0].Role, found[1].Role)
}

// sized is disk of that size, as the volume's was before it was created.
func sized(v *mezzov1.Resource, mebibytes float64) *mezzov1.Resource {
	r := proto.CloneOf(v)
	r.Shared = nil
	if r.Disk.GetSource() == nil {
		r.Disk = nil
	} else {
		r.Disk.Persistence, r.Disk.Volume = nil, nil
	}
	r.Scalar.Value = proto.Float64(mebibytes)
	return r
}
