package plugintest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// imageArchive is an archive with one image, in OCI's layout. The image has one
// layer with one file, and nothing that could be run.
func imageArchive(c *scenario) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(w *tar.Writer, name string, text []byte) {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if err := w.WriteHeader(h); err != nil {
			c.failf("write an archive: %v", err)
		}
		if _, err := w.Write(text); err != nil {
			c.failf("write an archive: %v", err)
		}
	}
	type object = map[string]any
	blob := func(media string, text []byte) object {
		digest := fmt.Sprintf("%x", sha256.Sum256(text))
		put(w, "blobs/sha256/"+digest, text)
		return object{"mediaType": media, "digest": "sha256:" + digest, "size": len(text)}
	}
	encoded := func(v any) []byte {
		text, err := json.Marshal(v)
		if err != nil {
			c.failf("write an archive: %v", err)
		}
		return text
	}
	var layer bytes.Buffer
	inner := tar.NewWriter(&layer)
	put(inner, "verify", []byte("an image of the conformance suite\n"))
	if err := inner.Close(); err != nil {
		c.failf("write an archive: %v", err)
	}
	config := encoded(object{
		"architecture": runtime.GOARCH, "os": "linux", "config": object{},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	manifest := encoded(object{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob("application/vnd.oci.image.config.v1+json", config),
		"layers": []object{blob("application/vnd.oci.image.layer.v1.tar", layer.Bytes())},
	})
	put(w, "index.json", encoded(object{"schemaVersion": 2, "manifests": []object{blob("application/vnd.oci.image.manifest.v1+json", manifest)}}))
	put(w, "oci-layout", encoded(object{"imageLayoutVersion": "1.0.0"}))
	if err := w.Close(); err != nil {
		c.failf("write an archive: %v", err)
	}
	return out.Bytes()
}

// importImage sends an archive in pieces.
func (n *cell) importImage(name string, archive []byte) (*isolatorv1.ImportImageResponse, error) {
	stream, err := n.ImportImage(n.c.call())
	if err != nil {
		return nil, err
	}
	err = stream.Send(&isolatorv1.ImportImageRequest{Start: &isolatorv1.ImportImageStart{Name: name}})
	for at := 0; err == nil && at < len(archive); at += 1000 {
		err = stream.Send(&isolatorv1.ImportImageRequest{Data: archive[at:min(at+1000, len(archive))]})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return stream.CloseAndRecv()
}

// hasImage says whether an image is listed; there is one of it at most.
func (n *cell) hasImage(name string) bool {
	list, err := n.ListImages(n.c.call(), &isolatorv1.ListImagesRequest{})
	if err != nil {
		n.c.failf("ListImages failed: %v", err)
	}
	found, last := 0, ""
	for _, i := range list.GetImages() {
		if i.GetName() < last {
			n.c.failf("ListImages names %s after %s: it is to be sorted by name", i.GetName(), last)
		}
		if last = i.GetName(); last == name {
			found++
		}
	}
	if found > 1 {
		n.c.failf("ListImages names %s %d times", name, found)
	}
	return found == 1
}

// withImages is isolator, for one that keeps images; and a name for one.
func (c *scenario) withImages() (*cell, string) {
	if !c.suite.serves("images") {
		c.skipf("it keeps no images")
	}
	return c.isolator(), fmt.Sprintf("verify.example/%s:%d", c.rule.name, os.Getpid())
}

func playImages(c *scenario) {
	n, name := c.withImages()
	if _, err := n.importImage(name, bytes.Repeat([]byte("this is no archive. "), 500)); status.Code(err) != codes.InvalidArgument {
		c.failf("ImportImage of what is no archive: %v, want INVALID_ARGUMENT", err)
	}
	if n.hasImage(name) {
		c.failf("ImportImage of what is no archive has left the image %s", name)
	}
	archive := imageArchive(c)
	for range 2 {
		r, err := n.importImage(name, archive)
		if err != nil {
			c.failf("ImportImage of an archive in OCI's layout: %v", err)
		}
		if l := r.GetImages(); len(l) != 1 || l[0].GetName() != name || l[0].GetDigest() == "" {
			c.failf("ImportImage of an archive with one image, as %s, answers %v", name, l)
		}
		if !n.hasImage(name) {
			c.failf("ListImages does not name %s, which was imported", name)
		}
	}
	if _, err := n.RemoveImage(c.call(), &isolatorv1.RemoveImageRequest{Name: name}); err != nil {
		c.failf("RemoveImage of an image that nobody uses: %v", err)
	}
	if n.hasImage(name) {
		c.failf("ListImages names %s, which was removed", name)
	}
	if _, err := n.RemoveImage(c.call(), &isolatorv1.RemoveImageRequest{Name: name}); status.Code(err) != codes.NotFound {
		c.failf("RemoveImage of what was removed: %v, want NOT_FOUND", err)
	}
}

// provision asks for an image that is here, or is not, and not for a registry.
func (n *cell) provision(b *box, image string) error {
	b.task.Image = &isolatorv1.TaskImage{Reference: image, Pull: isolatorv1.TaskImage_PULL_NEVER}
	b.task.Container = &mezzov1.ContainerInfo{
		Type: mezzov1.ContainerInfo_MESOS.Enum(),
		Mesos: &mezzov1.ContainerInfo_MesosInfo{Image: &mezzov1.Image{
			Type: mezzov1.Image_DOCKER.Enum(), Docker: &mezzov1.Image_Docker{Name: proto.String(image)},
		}},
	}
	stream, err := n.Provision(n.c.call(), &isolatorv1.ProvisionRequest{Container: b.id, Task: b.task})
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func playProvision(c *scenario) {
	n, name := c.withImages()
	if !c.suite.serves("provision") {
		c.skipf("it fetches no images")
	}
	b, _ := n.box("true")
	if err := n.provision(b, name); err == nil {
		c.failf("Provision of the image %s, which is not here and may not be pulled, says that it is here", name)
	}
	if _, err := n.importImage(name, imageArchive(c)); err != nil {
		c.failf("ImportImage: %v", err)
	}
	c.undo = append(c.undo, func() {
		_, _ = n.RemoveImage(c.call(), &isolatorv1.RemoveImageRequest{Name: name}) // the scenario may have
	})
	b, _ = n.box("true")
	for range 2 {
		if err := n.provision(b, name); err != nil {
			c.failf("Provision of the image %s, which is here: %v", name, err)
		}
	}
	if _, err := n.RemoveImage(c.call(), &isolatorv1.RemoveImageRequest{Name: name}); status.Code(err) != codes.FailedPrecondition {
		c.failf("RemoveImage while a container that Provision was asked for needs it: %v, want FAILED_PRECONDITION", err)
	}
	for range 2 {
		if _, err := n.Cleanup(c.call(), &isolatorv1.CleanupRequest{Container: b.id}); err != nil {
			c.failf("Cleanup after Provision: %v", err)
		}
	}
	if _, err := n.RemoveImage(c.call(), &isolatorv1.RemoveImageRequest{Name: name}); err != nil {
		c.failf("RemoveImage after the Cleanup of all that needed it: %v", err)
	}
}
