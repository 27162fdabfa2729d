package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
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

func addImageFlags(cmd *cobra.Command, o *imageOptions) {
	f := cmd.Flags()
	f.StringArrayVar(&o.agents, "agent", nil, "only this agent (its id, the beginning or the end of it, or its host name); may be repeated")
	f.StringVar(&o.isolator, "isolator", "", "only this isolator of the agents")
}

func imageShape() jsonShape { return shapeOf(jsonList, (*operatorv1.Image)(nil)) }

// imagesAgain is how often --watch asks agents for their images.
const imagesAgain = 3 * time.Second

// imagesTimeout bounds what one agent is waited for while others are asked too.
const imagesTimeout = 8 * time.Second

func (c *cli) imageListCommand() *cobra.Command {
	var o imageOptions
	known := map[string][]*operatorv1.Image{} // what agents have answered last
	return listCommand(c, list[*operatorv1.Image]{
		use: "list", aliases: []string{"ls"}, short: "List the images that agents have",
		long: "CONTAINERS is how many use an image now. A pinned one was imported, or is named in the agent's configuration, and is never collected.\n" +
			"With --watch agents are asked every 3 s; of one that does not answer, what it answered last is shown.",
		example: "  mezzo image list\n  mezzo image list --agent node7 --json\n  mezzo image list --watch",
		flags:   func(cmd *cobra.Command) { addImageFlags(cmd, &o) },
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.Image, error) {
			agents, err := agentsFor(ctx, client, o.agents)
			if err != nil {
				return nil, err
			}
			var mu sync.Mutex
			silent, err := c.atAgents(agents, agentQueries, func(agent imageAgent, client operatorv1.AgentOperatorClient) error {
				ctx, cancel := context.WithTimeout(ctx, imagesTimeout)
				defer cancel()
				answer, err := client.ListImages(ctx, &operatorv1.ListImagesRequest{Isolator: o.isolator})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					known[agent.id] = answer.GetImages()
				}
				return err
			})
			images := []*operatorv1.Image{}
			for _, agent := range agents {
				images = append(images, known[agent.id]...)
			}
			return images, errors.Join(append(silent, err)...)
		},
		header: imageHeader,
		row:    imageRow,
		key:    func(i *operatorv1.Image) string { return i.GetAgentId() + "/" + i.GetIsolator() + "/" + i.GetName() },
		again:  imagesAgain,
		empty:  noImages,
	})
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
			return c.changeImages(cmd.Context(), o, c.showImages, func(client operatorv1.AgentOperatorClient) ([]*operatorv1.Image, error) {
				return importImage(cmd.Context(), client, file, o)
			})
		},
	}
	addImageFlags(cmd, &o)
	c.addClientFlags(cmd)
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
	addImageFlags(cmd, &o)
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

// imageAgent is an agent that may have images.
type imageAgent struct {
	id, address string
	named       bool // by the operator
}

// agentsFor are the agents of these names, or all when there are none.
func agentsFor(ctx context.Context, client operatorv1.OperatorClient, names []string) ([]imageAgent, error) {
	var out []imageAgent
	for _, name := range names {
		a, err := agentNamed(ctx, client, name)
		if err != nil {
			return nil, err
		}
		address, err := addressOf(a)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(other imageAgent) bool { return other.id == a.GetId() }) {
			out = append(out, imageAgent{a.GetId(), address, true})
		}
	}
	if len(names) > 0 {
		return out, nil
	}
	list, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	for _, a := range list.GetAgents() {
		if a.GetRpcAddress() != "" {
			out = append(out, imageAgent{a.GetId(), a.GetRpcAddress(), false})
		}
	}
	if err == nil && len(out) == 0 {
		err = errors.New("there is no agent (mezzo agents lists them)")
	}
	return out, err
}

// atAgents does something with each agent, but for those that keep no images,
// unless they are named; with so many of them at a time. What does not work on one
// does not hold up the others; it is returned, and then an error of all together.
func (c *cli) atAgents(agents []imageAgent, together int, do func(imageAgent, operatorv1.AgentOperatorClient) error) (failed []error, err error) {
	errs := make([]error, len(agents))
	var group sync.WaitGroup
	slots := make(chan struct{}, together)
	for i, agent := range agents {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			conn, err := c.dialAddress(agent.address)
			if err == nil {
				err = do(agent, operatorv1.NewAgentOperatorClient(conn))
				conn.Close()
			}
			errs[i] = err
		})
	}
	group.Wait()
	without := 0
	for i, agent := range agents {
		err := errs[i]
		if status.Code(err) == codes.Unimplemented && !agent.named {
			if without++; without == len(agents) {
				return nil, errors.New("no agent keeps images: none has an isolator that does, such as containerd (mezzo plugins lists what they have)")
			}
			continue
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("agent %s: %w", agent.id, plain(err)))
		}
	}
	switch {
	case len(failed) > 0 && len(agents) == 1:
		return nil, failed[0]
	case len(failed) > 0:
		return failed, fmt.Errorf("it did not work on %d of %d agents", len(failed), len(agents))
	}
	return nil, nil
}

// eachImageAgent does something with every agent that is meant. What does not work
// on one is said at once; the error then says that there was such.
func (c *cli) eachImageAgent(ctx context.Context, o imageOptions, do func(agent string, client operatorv1.AgentOperatorClient) error) error {
	var agents []imageAgent
	err := c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) (err error) {
		agents, err = agentsFor(ctx, client, o.agents)
		return err
	})
	if err != nil {
		return err
	}
	_, err = c.atAgents(agents, 1, func(agent imageAgent, client operatorv1.AgentOperatorClient) error {
		err := do(agent.id, client)
		if err != nil && len(agents) > 1 && (agent.named || status.Code(err) != codes.Unimplemented) {
			fmt.Fprintf(c.err, "mezzo: agent %s: %v\n", agent.id, plain(err))
		}
		return err
	})
	return err
}

// changeImages does something with every agent that is meant, and shows the images
// that it was done to, also when it did not work on all.
func (c *cli) changeImages(ctx context.Context, o imageOptions, show func([]*operatorv1.Image) error, do func(operatorv1.AgentOperatorClient) ([]*operatorv1.Image, error)) error {
	images := []*operatorv1.Image{}
	err := c.eachImageAgent(ctx, o, func(_ string, client operatorv1.AgentOperatorClient) error {
		changed, err := do(client)
		images = append(images, changed...)
		return err
	})
	if err == nil || len(images) > 0 {
		err = errors.Join(err, show(images))
	}
	return err
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

const noImages = "No images."

func (c *cli) showImages(images []*operatorv1.Image) error {
	if c.json {
		return writeJSONList(c, images)
	}
	if len(images) == 0 {
		_, err := fmt.Fprintln(c.out, noImages)
		return err
	}
	t := newTable(imageHeader...)
	for _, i := range images {
		t.row(imageRow(i)...)
	}
	return c.print(t)
}

var imageHeader = []string{"NAME", "DIGEST", "SIZE", "CONTAINERS", "PINNED", "USED", "AGENT"}

func imageRow(i *operatorv1.Image) []string {
	digest := i.GetDigest()
	if len(digest) > 19 {
		digest = digest[:19] // sha256: and twelve of it
	}
	pinned := "-"
	if i.GetPinned() {
		pinned = "yes"
	}
	return []string{
		i.GetName(), digest, fmt.Sprintf("%.1f MiB", float64(i.GetBytes())/(1<<20)), strconv.FormatUint(uint64(i.GetContainers()), 10), pinned, age(i.GetUsed()), i.GetAgentId(),
	}
}
