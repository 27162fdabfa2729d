package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) imagePruneCommand() *cobra.Command {
	var o imageOptions
	var except []string
	cmd := &cobra.Command{
		Use: "prune", Short: "Have agents forget the images that no container uses", Args: cobra.NoArgs,
		Long: `Has agents forget the images that no container uses, to make room on their disks.
Those that were imported, those that the agents' configuration pins, and those
that --except names stay.`,
		Example: "  mezzo image prune\n  mezzo image prune --agent a1.example.com --except busybox:1.36",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.changeImages(cmd.Context(), o, c.showPruned, func(client operatorv1.AgentOperatorClient) ([]*operatorv1.Image, error) {
				ctx, cancel := context.WithTimeout(cmd.Context(), pruneTimeout)
				defer cancel()
				answer, err := client.PruneImages(ctx, &operatorv1.PruneImagesRequest{Excluded: except, Isolator: o.isolator})
				return answer.GetImages(), err
			})
		},
	}
	addImageFlags(cmd, &o)
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, imageShape())
	cmd.Flags().StringArrayVar(&except, "except", nil, "an image that stays; may be repeated")
	return cmd
}

func (c *cli) showPruned(images []*operatorv1.Image) error {
	if c.json {
		return writeJSONList(c, images)
	}
	var bytes uint64
	for _, i := range images {
		bytes += i.GetBytes()
		fmt.Fprintf(c.out, "removed %s from %s\n", i.GetName(), i.GetAgentId())
	}
	_, err := fmt.Fprintf(c.out, "%d images, %.1f MiB as they were pulled\n", len(images), float64(bytes)/(1<<20))
	return err
}
