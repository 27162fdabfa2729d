package containerdtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is an image that a test makes: busybox with all its applets in /bin,
// and what the test adds.
type Image struct {
	Names  []string // normalised, such as mezzo.test/busybox:latest
	Config ocispec.ImageConfig
	Files  map[string]string // absolute path to content; a second layer when there are any
	Modes  map[string]int64  // of Files; 0644 where there is none
	// Platform is the one of this machine unless it is set.
	Platform ocispec.Platform
	// Random adds a third layer of so many bytes that cannot be compressed.
	Random int
}

// Busybox is an image that runs sh.
func Busybox(names ...string) Image {
	return Image{Names: names, Config: ocispec.ImageConfig{
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"sh"},
	}}
}

// Blob is content with its address.
type Blob struct {
	ocispec.Descriptor
	Content []byte
}

func blob(mediaType string, content []byte) Blob {
	return Blob{Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}, Content: content}
}

// Built is an image with all its content.
type Built struct {
	Image
	Manifest Blob
	Config   Blob
	Layers   []Blob   // compressed
	plain    [][]byte // the layers before compression
}

// Build makes the image's content; the same image has the same digests always.
func (i Image) Build(t testing.TB) Built {
	t.Helper()
	if i.Platform.Architecture == "" {
		i.Platform = ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	out := Built{Image: i}
	first, compressed := base(t)
	out.plain = append(out.plain, first)
	if len(i.Files) > 0 {
		out.plain = append(out.plain, layer(t, i.Files, i.Modes))
	}
	if i.Random > 0 {
		out.plain = append(out.plain, layer(t, map[string]string{"/random": noise(i.Random)}, nil))
	}
	config := ocispec.Image{Platform: i.Platform, Config: i.Config, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for n, l := range out.plain {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		if n > 0 {
			compressed = compress(t, l)
		}
		b := blob(ocispec.MediaTypeImageLayerGzip, compressed)
		out.Layers = append(out.Layers, b)
		manifest.Layers = append(manifest.Layers, b.Descriptor)
	}
	out.Config = blob(ocispec.MediaTypeImageConfig, encode(t, config))
	manifest.Config = out.Config.Descriptor
	out.Manifest = blob(ocispec.MediaTypeImageManifest, encode(t, manifest))
	return out
}

// WriteOCI writes the image as an OCI archive, a file that lives as long as the
// test.
func (i Image) WriteOCI(t testing.TB) string {
	t.Helper()
	b := i.Build(t)
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range i.Names {
		d := b.Manifest.Descriptor
		d.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name[strings.LastIndex(name, ":")+1:]}
		d.Platform = &b.Platform
		index.Manifests = append(index.Manifests, d)
	}
	if len(i.Names) == 0 {
		d := b.Manifest.Descriptor
		d.Platform = &b.Platform
		index.Manifests = append(index.Manifests, d)
	}
	files := map[string]string{
		ocispec.ImageLayoutFile: `{"imageLayoutVersion":"1.0.0"}`,
		"index.json":            string(encode(t, index)),
	}
	for _, blob := range append([]Blob{b.Manifest, b.Config}, b.Layers...) {
		files["blobs/sha256/"+blob.Digest.Encoded()] = string(blob.Content)
	}
	return archive(t, files)
}

// WriteDocker writes the image as `docker save` does.
func (i Image) WriteDocker(t testing.TB) string {
	t.Helper()
	b := i.Build(t)
	files := map[string]string{b.Config.Digest.Encoded() + ".json": string(b.Config.Content)}
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: b.Config.Digest.Encoded() + ".json", RepoTags: i.Names}
	for n, l := range b.plain {
		name := fmt.Sprintf("layer%d/layer.tar", n)
		files[name] = string(l)
		entry.Layers = append(entry.Layers, name)
	}
	files["manifest.json"] = string(encode(t, []any{entry}))
	return archive(t, files)
}

// base is the layer with busybox, plain and compressed; made once, for it is
// large.
func base(t testing.TB) (plain, compressed []byte) {
	t.Helper()
	layer, err := busybox()
	if err != nil {
		t.Fatal(err)
	}
	once.Do(func() { small = compress(t, layer) })
	return layer, small
}

var (
	once  sync.Once
	small []byte
)

var busybox = sync.OnceValues(func() ([]byte, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	add := func(h tar.Header, content []byte) {
		if err != nil {
			return
		}
		h.Size = int64(len(content))
		if err = w.WriteHeader(&h); err == nil {
			_, err = w.Write(content)
		}
	}
	for _, dir := range []string{"bin/", "etc/", "tmp/", "root/", "home/", "home/worker/", "proc/", "sys/", "dev/"} {
		h := tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}
		switch dir {
		case "tmp/":
			h.Mode = 0o1777
		case "home/worker/":
			h.Uid, h.Gid = 1234, 1234
		}
		add(h, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, content)
	for _, name := range strings.Fields(string(applets)) {
		if name != "busybox" {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234:worker:/home/worker:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nworker:x:1234:\nextra:x:4321:worker\n"))
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return buffer.Bytes(), err
})

// layer is a tar of files, with the directories that they are in.
func layer(t testing.TB, files map[string]string, modes map[string]int64) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	known := map[string]bool{".": true}
	write := func(h tar.Header, content string) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		relative := strings.TrimPrefix(path.Clean(name), "/")
		var missing []string
		for dir := path.Dir(relative); !known[dir]; dir = path.Dir(dir) {
			known[dir] = true
			missing = append(missing, dir)
		}
		for _, dir := range slices.Backward(missing) {
			write(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, "")
		}
		mode := int64(0o644)
		if m, special := modes[name]; special {
			mode = m
		}
		write(tar.Header{Typeflag: tar.TypeReg, Name: relative, Mode: mode}, files[name])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// archive writes a plain tar of files in order of their names.
func archive(t testing.TB, files map[string]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	for _, n := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644, Size: int64(len(files[n]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[n])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

func compress(t testing.TB, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w, err := gzip.NewWriterLevel(&buffer, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// noise is the same text always, which gzip cannot make shorter.
func noise(n int) string {
	out := make([]byte, n)
	state := uint64(1)
	for i := range out {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		out[i] = byte(state >> 24)
	}
	return string(out)
}
