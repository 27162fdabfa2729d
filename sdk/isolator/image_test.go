package isolator_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// shelf keeps images by name; the archive is the content.
type shelf struct {
	amender
	begun  chan struct{} // closed when an archive's first byte is there, unless it is nil
	broken chan error    // how a stream that was broken off ended
}

func (s shelf) ImportImage(_ context.Context, start *isolatorv1.ImportImageStart, archive io.Reader) (*isolatorv1.ImportImageResponse, error) {
	first := make([]byte, 1)
	if _, err := io.ReadFull(archive, first); err != nil {
		return nil, err
	}
	if s.begun != nil {
		close(s.begun)
	}
	rest, err := io.ReadAll(archive)
	text := append(first, rest...)
	if err != nil {
		s.broken <- err
		return nil, err
	}
	return &isolatorv1.ImportImageResponse{Images: []*isolatorv1.Image{{Name: start.GetName(), Digest: string(text)}}}, nil
}

func (shelf) ListImages(context.Context, *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error) {
	return &isolatorv1.ListImagesResponse{Images: []*isolatorv1.Image{{Name: "a"}}}, nil
}

func (shelf) RemoveImage(context.Context, *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error) {
	return nil, status.Error(codes.NotFound, "no such image")
}

func (shelf) Provision(_ context.Context, r *isolatorv1.ProvisionRequest, send func(*isolatorv1.ProvisionProgress) error) error {
	for _, text := range []string{"one", "two"} {
		if err := send(&isolatorv1.ProvisionProgress{Message: r.GetContainer() + " " + text}); err != nil {
			return err
		}
	}
	return errors.New("out of layers")
}

func TestImages(t *testing.T) {
	i := shelf{}
	if diff := cmp.Diff([]string{"images", "provision"}, isolator.Capabilities(i)); diff != "" {
		t.Error(diff)
	}
	c, ctx := serve(t, i), t.Context()
	stream, err := c.ImportImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		stream.Send(&isolatorv1.ImportImageRequest{Start: &isolatorv1.ImportImageStart{Name: "b"}, Data: []byte("ab")}),
		stream.Send(&isolatorv1.ImportImageRequest{}),
		stream.Send(&isolatorv1.ImportImageRequest{Data: []byte("cd")}),
	); err != nil {
		t.Fatal(err)
	}
	got, err := stream.CloseAndRecv()
	if err != nil || len(got.GetImages()) != 1 || got.GetImages()[0].GetDigest() != "abcd" || got.GetImages()[0].GetName() != "b" {
		t.Errorf("imported: %v, %v", got, err)
	}
	if l, err := c.ListImages(ctx, &isolatorv1.ListImagesRequest{}); err != nil || len(l.GetImages()) != 1 {
		t.Errorf("list: %v, %v", l, err)
	}
	if _, err := c.RemoveImage(ctx, &isolatorv1.RemoveImageRequest{}); status.Code(err) != codes.NotFound {
		t.Errorf("remove: %v", err)
	}
}

func TestImportBrokenOff(t *testing.T) {
	i := shelf{begun: make(chan struct{}), broken: make(chan error, 1)}
	c := serve(t, i)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := c.ImportImage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&isolatorv1.ImportImageRequest{Start: &isolatorv1.ImportImageStart{}, Data: []byte("half")}); err != nil {
		t.Fatal(err)
	}
	<-i.begun
	cancel()
	if err := <-i.broken; errors.Is(err, io.EOF) {
		t.Error("an archive that was broken off looks whole")
	}
	headless, err := c.ImportImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = headless.Send(&isolatorv1.ImportImageRequest{Data: []byte("x")})
	if _, err := headless.CloseAndRecv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an import without a start: %v", err)
	}
}

func TestProvision(t *testing.T) {
	c := serve(t, shelf{})
	stream, err := c.Provision(t.Context(), &isolatorv1.ProvisionRequest{Container: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for {
		p, err := stream.Recv()
		if err != nil {
			if status.Code(err) != codes.Internal || status.Convert(err).Message() != "out of layers" {
				t.Errorf("it ended with %v", err)
			}
			break
		}
		said = append(said, p.GetMessage())
	}
	if diff := cmp.Diff([]string{"c1 one", "c1 two"}, said); diff != "" {
		t.Error(diff)
	}
}
