package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// pruneTimeout is how long an agent may take to remove all that is not needed.
const pruneTimeout = 5 * time.Minute

// imageChunk is how much of an archive is sent at a time.
const imageChunk = 256 << 10

// imageOptions are the flags of `mezzo image`.
type imageOptions struct {
	agents         []string
	isolator, name string
}

func (c *cli) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Look at, import and remove the images that agents have",
		Long: `Agents whose isolator runs images, such as containerd, pull them when tasks need
them. Where there is no registry, images are imported instead: on every agent, or
on those that --agent names.`,
		Args: cobra.NoArgs, RunE: needVerb,
	}
	cmd.AddCommand(c.imageListCommand(), c.imageImportCommand(), c.imageRemoveCommand(), c.imagePruneCommand())
	return cmd
}

func (c *cli) addImageFlags(cmd *cobra.Command, o *imageOptions) {
	f := cmd.Flags()
	f.StringArrayVar(&o.agents, "agent", nil, "only this agent (its id, the beginning or the end of it, or its host name); may be repeated")
	f.StringVar(&o.isolator, "isolator", "", "only this isolator of the agents")
	c.addClientFlags(cmd)
}

func imageShape() jsonShape { return shapeOf(jsonList, (*operatorv1.Image)(nil)) }

func (c *cli) imageListCommand() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the images that agents have", Args: cobra.NoArgs,
		Long:    "CONTAINERS is how many use an image now. A pinned one was imported, or is named in the agent's configuration, and is never collected.",
		Example: "  mezzo image list\n  mezzo image list --agent node7 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			images := []*operatorv1.Image{}
			err := c.eachImageAgent(cmd.Context(), o, func(_ string, client operatorv1.AgentOperatorClient) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), queryTimeout)
				defer cancel()
				answer, err := client.ListImages(ctx, &operatorv1.ListImagesRequest{Isolator: o.isolator})
				images = append(images, answer.GetImages()...)
				return err
			})
			if err == nil || len(images) > 0 {
				err = errors.Join(err, c.showImages(images))
			}
			return err
		},
	}
	c.addImageFlags(cmd, &o)
	c.addJSONFlag(cmd, imageShape())
	return cmd
}

func (c *cli) imageImportCommand() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Give agents the images of an archive",
		Long: `Gives agents the images of an archive: what docker save or skopeo copy
oci-archive:FILE write, plain or compressed. They stay until mezzo image rm.`,
		Example: "  docker save web:1.4 | mezzo image import -\n  mezzo image import web.tar --name registry.example/web:1.4 --agent a1.example.com",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := args[0]
			if file == "-" {
				temporary, err := c.spool()
				if err != nil {
					return err
				}
				defer os.Remove(temporary)
				file = temporary
			}
			if _, err := os.Stat(file); err != nil {
				return fmt.Errorf("the archive cannot be read: %w", err)
			}
			images := []*operatorv1.Image{}
			err := c.eachImageAgent(cmd.Context(), o, func(_ string, client operatorv1.AgentOperatorClient) error {
				imported, err := importImage(cmd.Context(), client, file, o)
				images = append(images, imported...)
				return err
			})
			if err == nil || len(images) > 0 {
				err = errors.Join(err, c.showImages(images))
			}
			return err
		},
	}
	c.addImageFlags(cmd, &o)
	c.addJSONFlag(cmd, imageShape())
	cmd.Flags().StringVar(&o.name, "name", "", "the image's name, for an archive with one (default: the archive's own)")
	return cmd
}

func (c *cli) imageRemoveCommand() *cobra.Command {
	var o imageOptions
	cmd := &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "Have agents forget an image", Args: cobra.ExactArgs(1),
		Long:    "NAME is the image's name in full, as mezzo image list prints it. An image that containers use is not removed.",
		Example: "  mezzo image rm docker.io/library/web:1.4",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachImageAgent(cmd.Context(), o, func(agent string, client operatorv1.AgentOperatorClient) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), queryTimeout)
				defer cancel()
				if _, err := client.RemoveImage(ctx, &operatorv1.RemoveImageRequest{Name: args[0], Isolator: o.isolator}); err != nil {
					return err
				}
				return c.done("removed %s from %s", args[0], agent)
			})
		},
	}
	c.addImageFlags(cmd, &o)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// eachImageAgent does something with every agent that is meant: those that keep
// images, unless they are named. What does not work on one is said, and does not
// hold up the others; the error then says that there was such.
func (c *cli) eachImageAgent(ctx context.Context, o imageOptions, do func(agent string, client operatorv1.AgentOperatorClient) error) error {
	addresses := map[string]string{}
	var order []string
	add := func(name, address string) {
		if _, there := addresses[name]; !there && address != "" {
			order = append(order, name)
			addresses[name] = address
		}
	}
	for _, name := range o.agents {
		address, err := c.agentAddress(ctx, name)
		if err != nil {
			return err
		}
		add(name, address)
	}
	if len(o.agents) == 0 {
		err := c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) error {
			list, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
			for _, a := range list.GetAgents() {
				add(a.GetId(), a.GetRpcAddress())
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(order) == 0 {
		return errors.New("there is no agent")
	}
	failed, without := 0, 0
	for _, name := range order {
		conn, err := c.dialAddress(addresses[name])
		if err == nil {
			err = do(name, operatorv1.NewAgentOperatorClient(conn))
			conn.Close()
		}
		if status.Code(err) == codes.Unimplemented && len(o.agents) == 0 {
			if without++; without == len(order) {
				return fmt.Errorf("no agent keeps images: %w", plain(err))
			}
			continue
		}
		if err != nil {
			failed++
			if len(order) == 1 {
				return fmt.Errorf("agent %s: %w", name, plain(err))
			}
			fmt.Fprintf(c.err, "mezzo: agent %s: %v\n", name, plain(err))
		}
	}
	if failed > 0 {
		return fmt.Errorf("it did not work on %d of %d agents", failed, len(order))
	}
	return nil
}

// spool copies standard input to a file, since several agents may want it.
func (c *cli) spool() (string, error) {
	f, err := os.CreateTemp("", "mezzo-image-*.tar")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, c.in)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("read an archive from standard input: %w", err)
	}
	return f.Name(), nil
}

func importImage(ctx context.Context, client operatorv1.AgentOperatorClient, path string, o imageOptions) ([]*operatorv1.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ImportImage(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&operatorv1.ImportImageRequest{Start: &operatorv1.ImportImageStart{Isolator: o.isolator, Name: o.name}})
	for err == nil {
		err = sendChunk(stream, f)
	}
	if !errors.Is(err, io.EOF) { // the archive's end, or the agent has answered
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetImages(), err
}

func sendChunk(stream grpc.ClientStreamingClient[operatorv1.ImportImageRequest, operatorv1.ImportImageResponse], from io.Reader) error {
	chunk := make([]byte, imageChunk)
	n, err := io.ReadFull(from, chunk)
	if n > 0 {
		if sent := stream.Send(&operatorv1.ImportImageRequest{Data: chunk[:n]}); sent != nil {
			return sent
		}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return err
}

func (c *cli) showImages(images []*operatorv1.Image) error {
	if c.json {
		return writeJSONList(c, images)
	}
	if len(images) == 0 {
		_, err := fmt.Fprintln(c.out, "No images.")
		return err
	}
	t := newTable("NAME", "DIGEST", "SIZE", "CONTAINERS", "PINNED", "USED", "AGENT")
	for _, i := range images {
		digest := i.GetDigest()
		if len(digest) > 19 {
			digest = digest[:19] // sha256: and twelve of it
		}
		pinned := "-"
		if i.GetPinned() {
			pinned = "yes"
		}
		t.row(i.GetName(), digest, fmt.Sprintf("%.1f MiB", float64(i.GetBytes())/(1<<20)), strconv.FormatUint(uint64(i.GetContainers()), 10), pinned, age(i.GetUsed()), i.GetAgentId())
	}
	return c.print(t)
}
