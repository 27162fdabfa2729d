package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveName is what a task's own archive is called: it cannot take the name of
// anybody else's image, whatever the archive says.
func archiveName(d digest.Digest) string { return "archive.mezzo/image@" + d.String() }

// provideArchive is Provide for an archive.
func (s *Store) provideArchive(ctx context.Context, c *client.Client, container string, w Want, report func(Progress)) (*Image, error) {
	f := newFlight(w.Reference)
	f.set(func(p *Progress) { p.Archive = true })
	var image *Image
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(f.done)
		image, f.err = s.unarchive(ctx, c, container, w)
	}()
	err := f.wait(ctx, report)
	cancel()
	<-f.done // it uses the archive until then
	if err != nil {
		if undo := s.Release(context.WithoutCancel(ctx), container); undo != nil {
			s.o.Logger.Warn("what a failed launch held of an image stays until the next start", "container_id", container, "error", undo)
		}
		return nil, explain(w.Reference, err)
	}
	return image, nil
}

func (s *Store) unarchive(ctx context.Context, c *client.Client, container string, w Want) (*Image, error) {
	if err := absolute(w.Archive); err != nil {
		return nil, &permanent{err}
	}
	file, err := os.Open(w.Archive)
	if err != nil {
		return nil, &permanent{err}
	}
	defer file.Close()
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	manifests, err := s.read(ctx, c, file)
	if err != nil {
		return nil, err
	}
	if len(manifests) != 1 {
		return nil, &permanent{fmt.Errorf("the archive has %d images, and which one is meant is not said: want an archive with one", len(manifests))}
	}
	name := archiveName(manifests[0].Digest)
	if err := s.hold(ctx, c, container, name); err != nil {
		return nil, err
	}
	image, err := s.adopt(ctx, c, name, manifests[0].Descriptor, nil)
	if err != nil {
		return nil, err
	}
	return image, s.keep(ctx, c, container, image)
}

// Import reads an archive, an OCI layout or what `docker save` writes, plain or
// compressed, to its end, and keeps its images until Remove. With a name, the
// one image of the archive gets that; otherwise images have the names that the
// archive says. Nothing is kept when it fails.
func (s *Store) Import(ctx context.Context, r io.Reader, name string) ([]Info, error) {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	ctx, done, err := c.WithLease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	manifests, err := s.read(ctx, c, r)
	if err != nil {
		return nil, err
	}
	named, err := nameAll(manifests, name)
	if err != nil {
		return nil, &permanent{err}
	}
	// Unpacked first: an archive that lacks something is found before any name
	// is given away.
	for _, m := range manifests {
		image := client.NewImageWithPlatform(c, images.Image{Name: archiveName(m.Digest), Target: m.Descriptor}, s.platform)
		if err := image.Unpack(ctx, s.o.Snapshotter); err != nil {
			return nil, &permanent{fmt.Errorf("the archive's image %s cannot be unpacked: %w", m.Digest, err)}
		}
	}
	labels := map[string]string{labelPinned: "true"}
	var out []Info
	for _, n := range named {
		if _, err := s.adopt(ctx, c, n.name, n.target, labels); err != nil {
			return nil, explain(n.name, err)
		}
	}
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if slices.ContainsFunc(named, func(n namedTarget) bool { return n.name == i.Name }) {
			out = append(out, i)
		}
	}
	return out, nil
}

// archived is an image in an archive, with the names that it has there.
type archived struct {
	ocispec.Descriptor
	names []string
}

type namedTarget struct {
	name   string
	target ocispec.Descriptor
}

func nameAll(manifests []archived, name string) ([]namedTarget, error) {
	if name != "" {
		full, err := Parse(name)
		if err != nil {
			return nil, err
		}
		if len(manifests) != 1 {
			return nil, fmt.Errorf("the archive has %d images: a name can be given to the image of an archive with one", len(manifests))
		}
		if strings.Contains(full, "@") {
			return nil, fmt.Errorf("image %s: an archive's image is named by a tag, not a digest", full)
		}
		return []namedTarget{{full, manifests[0].Descriptor}}, nil
	}
	var out []namedTarget
	for _, m := range manifests {
		for _, n := range m.names {
			full, err := Parse(n)
			if err != nil {
				return nil, fmt.Errorf("the archive calls an image %q, which is no name: give it one", n)
			}
			out = append(out, namedTarget{full, m.Descriptor})
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the archive names none of its images: give it a name")
	}
	return out, nil
}

// read takes an archive's content into containerd, under the lease of ctx, and
// returns its images.
func (s *Store) read(ctx context.Context, c *client.Client, r io.Reader) ([]archived, error) {
	source := &sourceReader{r: r}
	index, err := index(ctx, c, source)
	if source.err != nil {
		return nil, fmt.Errorf("the archive cannot be read to its end: %w", source.err)
	}
	if err != nil {
		return nil, &permanent{fmt.Errorf("the file is no archive of images, neither an OCI layout nor of docker save: %w", err)}
	}
	text, err := content.ReadBlob(ctx, c.ContentStore(), index)
	if err != nil {
		return nil, err
	}
	var list ocispec.Index
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, &permanent{fmt.Errorf("the archive's index: %w", err)}
	}
	var out []archived
	for _, d := range list.Manifests {
		if _, refers := d.Annotations[images.AnnotationManifestSubject]; refers {
			continue // an attestation, not an image
		}
		name := d.Annotations[images.AnnotationImageName]
		d.Annotations = nil
		i := slices.IndexFunc(out, func(a archived) bool { return a.Digest == d.Digest })
		if i < 0 {
			if err := s.complete(ctx, c, d); err != nil {
				return nil, err
			}
			i, out = len(out), append(out, archived{Descriptor: d})
		}
		if name != "" {
			out[i].names = append(out[i].names, name)
		}
	}
	if len(out) == 0 {
		return nil, &permanent{errors.New("the archive has no image")}
	}
	return out, nil
}

func index(ctx context.Context, c *client.Client, r io.Reader) (ocispec.Descriptor, error) {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer plain.Close()
	return archive.ImportIndex(ctx, c.ContentStore(), plain)
}

// complete finds what an image in an archive lacks, and links its parts so that
// they stay as long as it does.
func (s *Store) complete(ctx context.Context, c *client.Client, d ocispec.Descriptor) error {
	store := c.ContentStore()
	if _, err := images.Manifest(ctx, store, d, s.platform); err != nil {
		return &permanent{fmt.Errorf("the archive's image %s is not one for this agent's platform: %w", d.Digest, err)}
	}
	_, _, _, missing, err := images.Check(ctx, store, d, s.platform)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return &permanent{fmt.Errorf("the archive lacks %s, which its image %s is made of", missing[0].Digest, d.Digest)}
	}
	spec, err := client.NewImageWithPlatform(c, images.Image{Name: archiveName(d.Digest), Target: d}, s.platform).Spec(ctx)
	if err == nil {
		err = s.suits(spec)
	}
	if err != nil {
		return &permanent{fmt.Errorf("the archive's image %s: %w", d.Digest, err)}
	}
	link := images.SetChildrenLabels(store, images.FilterPlatforms(images.ChildrenHandler(store), s.platform))
	return images.Walk(ctx, link, d)
}

// adopt gives an image a name, and unpacks it where it is not yet.
func (s *Store) adopt(ctx context.Context, c *client.Client, name string, target ocispec.Descriptor, labels map[string]string) (*Image, error) {
	record := images.Image{Name: name, Target: target, Labels: map[string]string{labelUsed: s.o.Now().UTC().Format(time.RFC3339)}}
	for k, v := range labels {
		record.Labels[k] = v
	}
	_, err := c.ImageService().Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		paths := []string{"target"}
		for k := range record.Labels {
			paths = append(paths, "labels."+k)
		}
		_, err = c.ImageService().Update(ctx, record, paths...)
	}
	if err != nil {
		return nil, err
	}
	return s.open(ctx, c, name)
}

// sourceReader remembers that the source failed, which is not the archive's
// fault.
type sourceReader struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}
