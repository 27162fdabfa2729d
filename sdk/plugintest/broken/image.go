package broken

import (
	"archive/tar"
	"context"
	"io"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// ImportImage keeps an image by its name alone. What is a tar will do.
func (i *instance) ImportImage(_ context.Context, start *isolatorv1.ImportImageStart, archive io.Reader) (*isolatorv1.ImportImageResponse, error) {
	if _, err := tar.NewReader(archive).Next(); err != nil && !i.fault.importsGarbage {
		return nil, status.Errorf(codes.InvalidArgument, "this is no archive of an image: %v", err)
	}
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.images[start.GetName()] = true
	return &isolatorv1.ImportImageResponse{Images: []*isolatorv1.Image{{Name: start.GetName(), Digest: "sha256:0"}}}, nil
}

func (i *instance) ListImages(context.Context, *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	out := &isolatorv1.ListImagesResponse{}
	for _, name := range slices.Sorted(maps.Keys(i.images)) {
		out.Images = append(out.Images, &isolatorv1.Image{Name: name})
	}
	return out, nil
}

func (i *instance) RemoveImage(_ context.Context, r *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case !i.images[r.GetName()]:
		return nil, status.Errorf(codes.NotFound, "there is no image %s", r.GetName())
	case slices.Contains(slices.Collect(maps.Values(i.needs)), r.GetName()):
		return nil, status.Errorf(codes.FailedPrecondition, "a container needs the image %s", r.GetName())
	}
	if !i.fault.forgetsNothing {
		delete(i.images, r.GetName())
	}
	return &isolatorv1.RemoveImageResponse{}, nil
}

func (i *instance) Provision(_ context.Context, r *isolatorv1.ProvisionRequest, send func(*isolatorv1.ProvisionProgress) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	name := r.GetTask().GetImage().GetReference()
	if !i.images[name] && !i.fault.provisionsNothing {
		return status.Errorf(codes.NotFound, "there is no image %s", name)
	}
	if !i.fault.keepsNoImage {
		i.needs[r.GetContainer()] = name
	}
	return send(&isolatorv1.ProvisionProgress{Message: "it is here"})
}
