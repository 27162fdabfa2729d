package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/containerinfo"
	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	// provisionStall is how long an isolator that fetches an image may be silent.
	provisionStall = 2 * time.Minute
	// progressPause is the least time between two sentences about one launch.
	progressPause = 3 * time.Second
)

// provision has a container's launcher fetch its image, for as long as it gets
// further.
func (c *containers) provision(ctx context.Context, p *state.Plan) error {
	if p.Task.GetImage() == nil {
		return nil
	}
	err := c.provide(ctx, p)
	if err != nil && ctx.Err() == nil {
		c.metrics.pull(state.Launcher(p.Chain), nil)
	}
	return err
}

func (c *containers) provide(ctx context.Context, p *state.Plan) error {
	launcher, err := c.isolator(state.Launcher(p.Chain))
	if err != nil {
		return err
	}
	task, err := c.secrets.credentials(p.Task)
	if err != nil {
		return err
	}
	request := &isolatorv1.ProvisionRequest{Container: p.Container, Task: task}
	tell := c.teller(ctx, p.Container)
	if containerinfo.Archive(p.Task.GetImage()) {
		archive, remove, err := c.fetchArchive(ctx, p, tell)
		if err != nil {
			return err
		}
		defer remove()
		request.Archive = archive
	}
	return c.persevere(ctx, func() error {
		client, err := launcher.awaitSoon(ctx)
		if err != nil {
			return err
		}
		follow := func(progress *isolatorv1.ProvisionProgress) {
			if progress.GetPulled() != nil {
				c.metrics.pull(launcher.name, progress.GetPulled())
			}
			if text := sentenceOf(progress); text != "" {
				tell(text)
			}
		}
		calling, done := span(ctx, ctx, "provision", launcher.name)
		err = provisionOnce(calling, client, request, c.stall, follow)
		done(err)
		if err != nil {
			return &callError{isolator: launcher.name, what: "provision", err: err}
		}
		return nil
	})
}

// provisionOnce asks once, and follows the answer to its end.
func provisionOnce(ctx context.Context, client isolatorv1.IsolatorClient, r *isolatorv1.ProvisionRequest, stall time.Duration, follow func(*isolatorv1.ProvisionProgress)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := fmt.Errorf("nothing was heard of the image for %v", stall)
	watch := time.AfterFunc(stall, func() { cancel(silence) })
	defer watch.Stop()
	stream, err := client.Provision(ctx, r)
	for err == nil {
		var progress *isolatorv1.ProvisionProgress
		if progress, err = stream.Recv(); err == nil {
			watch.Reset(stall)
			follow(progress)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case context.Cause(ctx) == silence:
		return status.Error(codes.DeadlineExceeded, silence.Error())
	case status.Code(err) == codes.Unimplemented:
		return nil // what it needs it fetches in Prepare or Create
	}
	return err
}

func sentenceOf(p *isolatorv1.ProvisionProgress) string {
	switch {
	case p.GetMessage() == "":
		return ""
	case p.GetTotalBytes() > 0:
		return fmt.Sprintf("%s: %.1f of %.1f MiB", p.GetMessage(), mebi(p.GetDoneBytes()), mebi(p.GetTotalBytes()))
	case p.GetDoneBytes() > 0:
		return fmt.Sprintf("%s: %.1f MiB", p.GetMessage(), mebi(p.GetDoneBytes()))
	}
	return p.GetMessage()
}

func mebi(n uint64) float64 { return float64(n) / (1 << 20) }

// teller passes sentences about a launch on, one in a few seconds at most.
func (c *containers) teller(ctx context.Context, container string) func(string) {
	var last time.Time
	return func(text string) {
		if now := time.Now(); now.Sub(last) >= progressPause {
			last = now
			c.post(ctx, state.Progress{Container: container, Message: text})
		}
	}
}

// fetchArchive fetches the archive that a container's image is in, as the
// container's user, to where that user can change it no more. remove removes it;
// after an error it is nil, and there is nothing to remove.
func (c *containers) fetchArchive(ctx context.Context, p *state.Plan, tell func(string)) (path string, remove func(), err error) {
	if c.fetcher == nil {
		return "", nil, errors.New("the image is an archive to be fetched, and this agent fetches nothing")
	}
	user, err := accountOf(p.Task)
	if err != nil {
		return "", nil, err
	}
	place := filepath.Join(c.archives, p.Container)
	gone := func() { _ = os.RemoveAll(place) } // the next start of the agent removes all
	defer func() {
		if err != nil {
			gone()
		}
	}()
	if err := errors.Join(os.RemoveAll(place), os.MkdirAll(place, 0o700), giveDir(place, user.uid, user.gid)); err != nil {
		return "", nil, fmt.Errorf("a place for the image's archive: %w", err)
	}
	dir, err := os.Open(place)
	if err != nil {
		return "", nil, err
	}
	defer dir.Close()
	image := p.Task.GetImage()
	uri := &mezzov1.CommandInfo_URI{
		Value: proto.String(image.GetReference()), OutputFile: proto.String("image.tar"), Extract: proto.Bool(false),
		Cache: proto.Bool(image.GetPull() != isolatorv1.TaskImage_PULL_ALWAYS),
	}
	who := fetcher.User{UID: user.uid, GID: user.gid, Groups: user.groups}
	if err := c.fetcher.Fetch(ctx, dir, who, []*mezzov1.CommandInfo_URI{uri}, tell); err != nil {
		return "", nil, err
	}
	if err := giveDir(place, uint32(os.Geteuid()), uint32(os.Getegid())); err != nil {
		return "", nil, fmt.Errorf("the image's archive: %w", err)
	}
	path = filepath.Join(place, "image.tar")
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return "", nil, fmt.Errorf("the image's archive is not a file that was fetched: %w", err)
	}
	return path, gone, nil
}

// giveDir gives a directory to a user, where there is more than one.
func giveDir(path string, uid, gid uint32) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(uid), int(gid))
}
