package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/rpc"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// shelfOf is an isolator that keeps images, with those that it has.
type shelfOf struct {
	isolator string
	client   isolatorv1.IsolatorClient
	images   []*isolatorv1.Image
}

// imageShelves are the isolators of the configuration that keep images, or the
// one of that name. There is at least one, or an error.
func (a *Agent) imageShelves(ctx context.Context, name string) ([]shelfOf, error) {
	var list []shelfOf
	for _, i := range a.boxes.listed() {
		if name != "" && i.name != name {
			continue
		}
		client, err := i.awaitSoon(ctx)
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		answer, err := client.ListImages(ctx, &isolatorv1.ListImagesRequest{})
		switch {
		case status.Code(err) == codes.Unimplemented:
			continue
		case err != nil:
			return nil, shelfError(i.name, err)
		}
		list = append(list, shelfOf{i.name, client, answer.GetImages()})
	}
	if len(list) == 0 && name != "" {
		return nil, status.Errorf(codes.Unimplemented, "this agent has no isolator %q that keeps images", name)
	}
	if len(list) == 0 {
		return nil, status.Error(codes.Unimplemented, "none of this agent's isolators keeps images: add one that does, such as containerd")
	}
	return list, nil
}

// shelfError is an isolator's answer as a caller is told it: its code stays.
func shelfError(isolator string, err error) error {
	return status.Error(status.Code(err), fmt.Sprintf("isolator %s: %s", isolator, reason(err)))
}

func (a *Agent) imageMessages(ctx context.Context, isolator string, list []*isolatorv1.Image) ([]*operatorv1.Image, error) {
	v, err := a.State(ctx)
	if err != nil {
		return nil, edge(err)
	}
	var out []*operatorv1.Image
	for _, i := range list {
		out = append(out, &operatorv1.Image{
			Name: i.GetName(), Digest: i.GetDigest(), Bytes: i.GetBytes(), Pinned: i.GetPinned(), Containers: i.GetContainers(),
			Created: i.GetCreated(), Used: i.GetUsed(), Isolator: isolator, AgentId: v.AgentID,
		})
	}
	return out, nil
}

// ListImages lists the images that isolators keep.
func (a *Agent) ListImages(ctx context.Context, r *operatorv1.ListImagesRequest) (*operatorv1.ListImagesResponse, error) {
	if err := a.authorize(ctx, rpc.ViewCluster, rpc.Object{}); err != nil {
		return nil, err
	}
	shelves, err := a.imageShelves(ctx, r.GetIsolator())
	if err != nil {
		return nil, err
	}
	answer := &operatorv1.ListImagesResponse{}
	for _, s := range shelves {
		images, err := a.imageMessages(ctx, s.isolator, s.images)
		if err != nil {
			return nil, err
		}
		answer.Images = append(answer.Images, images...)
	}
	return answer, nil
}

// RemoveImage has the first isolator that has an image forget it.
func (a *Agent) RemoveImage(ctx context.Context, r *operatorv1.RemoveImageRequest) (*operatorv1.RemoveImageResponse, error) {
	if err := a.authorize(ctx, rpc.ManageImage, rpc.Object{ID: "image"}); err != nil {
		return nil, err
	}
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "remove an image: it needs a name")
	}
	shelves, err := a.imageShelves(ctx, r.GetIsolator())
	if err != nil {
		return nil, err
	}
	for _, s := range shelves {
		if _, err = s.client.RemoveImage(ctx, &isolatorv1.RemoveImageRequest{Name: r.GetName()}); status.Code(err) != codes.NotFound {
			if err != nil {
				return nil, shelfError(s.isolator, err)
			}
			a.logger.Info("image removed", "image", r.GetName(), "isolator", s.isolator, "by", rpc.PrincipalFrom(ctx))
			return &operatorv1.RemoveImageResponse{}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "this agent has no image %q: mezzo image list prints the names in full", r.GetName())
}

// PruneImages has isolators forget the images that nobody uses and nobody wants
// to be kept.
func (a *Agent) PruneImages(ctx context.Context, r *operatorv1.PruneImagesRequest) (*operatorv1.PruneImagesResponse, error) {
	if err := a.authorize(ctx, rpc.ManageImage, rpc.Object{ID: "image"}); err != nil {
		return nil, err
	}
	shelves, err := a.imageShelves(ctx, r.GetIsolator())
	if err != nil {
		return nil, err
	}
	answer := &operatorv1.PruneImagesResponse{}
	var failed error
	for _, s := range shelves {
		var removed []*isolatorv1.Image
		for _, i := range s.images {
			if i.GetPinned() || i.GetContainers() > 0 || excluded(r.GetExcluded(), i.GetName()) {
				continue
			}
			switch _, err := s.client.RemoveImage(ctx, &isolatorv1.RemoveImageRequest{Name: i.GetName()}); status.Code(err) {
			case codes.OK:
				removed = append(removed, i)
				a.logger.Info("image removed", "image", i.GetName(), "isolator", s.isolator, "why", "images are pruned", "by", rpc.PrincipalFrom(ctx))
			case codes.FailedPrecondition, codes.NotFound: // somebody uses it by now, or was faster
			default:
				failed = shelfError(s.isolator, err)
			}
		}
		images, err := a.imageMessages(ctx, s.isolator, removed)
		if err != nil {
			return nil, err
		}
		answer.Images = append(answer.Images, images...)
	}
	if failed != nil {
		return nil, status.Errorf(status.Code(failed), "%d images were removed, not all: %s", len(answer.GetImages()), status.Convert(failed).Message())
	}
	return answer, nil
}

// excluded is whether one of the names means the image of that full name.
func excluded(names []string, full string) bool {
	for _, name := range names {
		for _, host := range []string{"", "docker.io/", "docker.io/library/"} {
			if full == host+name || full == host+name+":latest" {
				return true
			}
		}
	}
	return false
}

// ImportImage carries an archive to an isolator that keeps images.
func (a *Agent) ImportImage(stream grpc.ClientStreamingServer[operatorv1.ImportImageRequest, operatorv1.ImportImageResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(a.life, cancel)()
	if err := a.authorize(ctx, rpc.ManageImage, rpc.Object{ID: "image"}); err != nil {
		return err
	}
	first, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF), err == nil && first.GetStart() == nil:
		return status.Error(codes.InvalidArgument, "the first message of an import must have its start")
	case err != nil:
		return err
	}
	shelves, err := a.imageShelves(ctx, first.GetStart().GetIsolator())
	if err != nil {
		return err
	}
	to := shelves[0]
	far, err := to.client.ImportImage(ctx)
	if err != nil {
		return shelfError(to.isolator, err)
	}
	request := &isolatorv1.ImportImageRequest{Start: &isolatorv1.ImportImageStart{Name: first.GetStart().GetName()}, Data: first.GetData()}
	for err == nil {
		if far.Send(request) != nil {
			break // it has answered before the end
		}
		var next *operatorv1.ImportImageRequest
		if next, err = stream.Recv(); err == nil {
			request = &isolatorv1.ImportImageRequest{Data: next.GetData()}
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err // the context ends with this call, and breaks the import off
	}
	answer, err := far.CloseAndRecv()
	if err != nil {
		return shelfError(to.isolator, err)
	}
	images, err := a.imageMessages(ctx, to.isolator, answer.GetImages())
	if err != nil {
		return err
	}
	for _, i := range images {
		a.logger.Info("image imported", "image", i.GetName(), "digest", i.GetDigest(), "isolator", to.isolator, "by", rpc.PrincipalFrom(ctx))
	}
	return stream.SendAndClose(&operatorv1.ImportImageResponse{Images: images})
}
