package main

import (
	"context"
	"errors"
	"io"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Provision fetches a task's image, and tells how far it is.
func (p *plug) Provision(ctx context.Context, r *isolatorv1.ProvisionRequest, send func(*isolatorv1.ProvisionProgress) error) error {
	if err := holder.ValidID(r.GetContainer()); err != nil {
		return err
	}
	t := r.GetTask()
	if t.GetImage() == nil {
		return nil // the default image is fetched by Prepare
	}
	want := image.Want{
		Reference: t.GetImage().GetReference(), Archive: r.GetArchive(), DockerConfig: t.GetImage().GetDockerConfig(),
		Policy: map[isolatorv1.TaskImage_Pull]image.Policy{
			isolatorv1.TaskImage_PULL_ALWAYS: image.Always, isolatorv1.TaskImage_PULL_NEVER: image.Never,
		}[t.GetImage().GetPull()],
	}
	sending, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	got, err := p.images.Provide(sending, r.GetContainer(), want, func(progress image.Progress) {
		err := send(&isolatorv1.ProvisionProgress{Message: progress.String(), DoneBytes: uint64(progress.Bytes), TotalBytes: uint64(progress.TotalBytes)})
		if err != nil {
			cancel(err)
		}
	})
	if err == nil && got.Pulled != nil {
		pulled := &isolatorv1.Pulled{Bytes: uint64(got.Pulled.Bytes), DurationMs: uint64(got.Pulled.Took.Milliseconds())}
		err = send(&isolatorv1.ProvisionProgress{Pulled: pulled})
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	code := codes.FailedPrecondition
	if image.Transient(err) || status.Code(err) == codes.Unavailable {
		code = codes.Unavailable
	}
	return status.Error(code, holder.Message(err))
}

// ImportImage keeps the images of an archive.
func (p *plug) ImportImage(ctx context.Context, start *isolatorv1.ImportImageStart, archive io.Reader) (*isolatorv1.ImportImageResponse, error) {
	list, err := p.images.Import(ctx, archive, start.GetName())
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case image.Transient(err), status.Code(err) == codes.Unavailable:
		return nil, status.Error(codes.Unavailable, holder.Message(err))
	default:
		return nil, status.Error(codes.InvalidArgument, holder.Message(err))
	}
	return &isolatorv1.ImportImageResponse{Images: described(list)}, nil
}

// ListImages are the images that are here.
func (p *plug) ListImages(ctx context.Context, _ *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error) {
	list, err := p.images.List(ctx)
	if err != nil {
		return nil, p.failed(err)
	}
	return &isolatorv1.ListImagesResponse{Images: described(list)}, nil
}

// RemoveImage forgets an image's name.
func (p *plug) RemoveImage(ctx context.Context, r *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error) {
	err := p.images.Remove(ctx, r.GetName())
	switch {
	case errdefs.IsNotFound(err):
		return nil, status.Error(codes.NotFound, err.Error())
	case errors.Is(err, image.ErrInUse):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, p.failed(err)
	}
	return &isolatorv1.RemoveImageResponse{}, nil
}

func described(list []image.Info) []*isolatorv1.Image {
	out := make([]*isolatorv1.Image, len(list))
	for i, l := range list {
		out[i] = &isolatorv1.Image{
			Name: l.Name, Digest: l.Digest.String(), Bytes: l.Bytes, Pinned: l.Pinned, Containers: uint32(l.Containers),
			Created: timestamppb.New(l.Created), Used: timestamppb.New(l.Used),
		}
	}
	return out
}
