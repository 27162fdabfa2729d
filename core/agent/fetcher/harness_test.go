package fetcher_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// The test binary is also the worker, as the agent's own binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fetcher.Verb {
		if err := fetcher.Work(context.Background(), os.Stdin, os.Stdout); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// rig is a fetcher, a sandbox, and a server that counts.
type rig struct {
	t       *testing.T
	fetcher *fetcher.Fetcher
	sandbox string
	who     fetcher.User
	server  *httptest.Server

	mu       sync.Mutex
	files    map[string][]byte
	requests map[string]int
	said     []string
}

func newRig(t *testing.T, change func(*fetcher.Options)) *rig {
	t.Helper()
	o := fetcher.Options{CacheDir: filepath.Join(t.TempDir(), "fetch"), CacheBytes: 1 << 20, MaxBytes: 1 << 30, Stall: 20 * time.Second}
	if change != nil {
		change(&o)
	}
	f, err := fetcher.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, fetcher: f, sandbox: t.TempDir(), files: map[string][]byte{}, requests: map[string]int{},
		who: fetcher.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())},
	}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		r.requests[q.URL.Path]++
		content, found := r.files[q.URL.Path]
		r.mu.Unlock()
		if !found {
			http.NotFound(w, q)
			return
		}
		_, _ = w.Write(content)
	}))
	t.Cleanup(r.server.Close)
	return r
}

// serve has the server give content, and returns its URL.
func (r *rig) serve(path string, content []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[path] = content
	return r.server.URL + path
}

func (r *rig) asked(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[path]
}

func (r *rig) fetch(uris ...*mezzov1.CommandInfo_URI) error {
	return r.fetchInto(context.Background(), r.sandbox, uris...)
}

func (r *rig) fetchInto(ctx context.Context, sandbox string, uris ...*mezzov1.CommandInfo_URI) error {
	dir, err := os.Open(sandbox)
	if err != nil {
		return err
	}
	defer dir.Close()
	return r.fetcher.Fetch(ctx, dir, r.who, uris, func(text string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, text)
	})
}

func (r *rig) read(name string) string {
	r.t.Helper()
	content, err := os.ReadFile(filepath.Join(r.sandbox, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(content)
}

// empty fails unless nothing is in the sandbox, nor half of anything.
func (r *rig) empty() {
	r.t.Helper()
	if entries, err := os.ReadDir(r.sandbox); err != nil || len(entries) > 0 {
		r.t.Errorf("the sandbox has %v (%v), and should have nothing", entries, err)
	}
}

func uri(value string) *mezzov1.CommandInfo_URI {
	return &mezzov1.CommandInfo_URI{Value: proto.String(value)}
}

// entry is one of an archive.
type entry struct {
	name, content, link string
	kind                byte
	mode                int64
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(e.content)), Linkname: e.link}
		if e.kind != 0 {
			h.Typeflag, h.Size = e.kind, 0
		}
		if e.mode != 0 {
			h.Mode = e.mode
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzOf(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		mode, content := fs.FileMode(0o644), e.content
		if e.kind == tar.TypeSymlink {
			mode, content = fs.ModeSymlink|0o777, e.link
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bz2Tar is a tar with dir/a.txt: Go does not write bzip2.
func bz2Tar(t *testing.T) []byte {
	t.Helper()
	content, err := base64.StdEncoding.DecodeString("QlpoOTFBWSZTWSDzbkgAAG77gMmAAAJAAc+AAIBmZJ5ACAggAFQ0miGmjQ09Q9RjUEkoxDJoA0AfdxKkIOXIQi/p9hjGuCBDAxtCbsmQ9hCGQNEdxDHAwlOVZfailbs12nuREB+LuSKcKEgQebckAA==")
	if err != nil {
		t.Fatal(err)
	}
	return content
}
