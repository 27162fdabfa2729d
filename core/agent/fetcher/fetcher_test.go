package fetcher_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestFetch(t *testing.T) {
	r := newRig(t, nil)
	local := filepath.Join(t.TempDir(), "local file")
	if err := os.WriteFile(local, []byte("from disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := uri(r.serve("/bin/run.sh", []byte("#!/bin/sh\n")))
	script.Executable = proto.Bool(true)
	named := uri(r.serve("/v1/download", []byte("config")))
	named.OutputFile = proto.String("etc/app/config.json")
	r.serve("/plain.txt", []byte("plain"))
	if err := r.fetch(uri(r.server.URL+"/plain.txt?token=1"), script, named, uri("file://"+strings.ReplaceAll(local, " ", "%20")), uri(local)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"plain.txt": "plain", "run.sh": "#!/bin/sh\n", "etc/app/config.json": "config", "local file": "from disk",
	} {
		if got := r.read(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]os.FileMode{"plain.txt": 0o644, "run.sh": 0o755} {
		if info, err := os.Stat(filepath.Join(r.sandbox, name)); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
	if said := strings.Join(r.said, "\n"); !strings.Contains(said, "fetching run.sh (2 of 5)") {
		t.Errorf("the progress was:\n%s", said)
	}
}

func TestUnpack(t *testing.T) {
	content := []entry{{name: "dir/", kind: tar.TypeDir, mode: 0o500}, {name: "dir/a.txt", content: "hello", mode: 0o4640}, {name: "dir/b", kind: tar.TypeSymlink, link: "a.txt"}}
	plain := tarOf(t, append(content, entry{name: "hard", kind: tar.TypeLink, link: "dir/a.txt"})...)
	for name, archive := range map[string][]byte{
		"a.tar": plain, "a.tar.gz": gz(t, plain), "a.tgz": gz(t, plain), "a.tar.xz": xzOf(t, plain), "a.txz": xzOf(t, plain),
		"a.tar.bz2": bz2Tar(t), "a.tbz2": bz2Tar(t), "a.zip": zipOf(t, content[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			if err := r.fetch(uri(r.serve("/"+name, archive))); err != nil {
				t.Fatal(err)
			}
			if got := r.read("dir/a.txt"); got != "hello" {
				t.Errorf("dir/a.txt is %q", got)
			}
			if info, err := os.Stat(filepath.Join(r.sandbox, "dir/a.txt")); err != nil || info.Mode()&os.ModeSetuid != 0 {
				t.Errorf("an archive brought a setuid program: %v %v", info.Mode(), err)
			}
			if strings.Contains(name, "b") {
				return // made elsewhere, with one file only
			}
			if got := r.read("dir/b"); got != "hello" {
				t.Errorf("the link dir/b leads to %q", got)
			}
			if _, err := os.Lstat(filepath.Join(r.sandbox, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the archive itself was left in the sandbox: %v", err)
			}
		})
	}
	t.Run("a lone gz", func(t *testing.T) {
		r := newRig(t, nil)
		if err := r.fetch(uri(r.serve("/words.gz", gz(t, []byte("words"))))); err != nil || r.read("words") != "words" {
			t.Errorf("%v", err)
		}
	})
	t.Run("into the directory of output_file", func(t *testing.T) {
		r := newRig(t, nil)
		u := uri(r.serve("/download", plain))
		u.OutputFile = proto.String("lib/x/a.tar")
		if err := r.fetch(u); err != nil || r.read("lib/x/hard") != "hello" {
			t.Errorf("%v", err)
		}
	})
	for name, change := range map[string]func(*mezzov1.CommandInfo_URI){
		"extract is false": func(u *mezzov1.CommandInfo_URI) { u.Extract = proto.Bool(false) },
		"executable":       func(u *mezzov1.CommandInfo_URI) { u.Executable = proto.Bool(true) },
	} {
		t.Run("not when "+name, func(t *testing.T) {
			r := newRig(t, nil)
			u := uri(r.serve("/a.tar", plain))
			change(u)
			if err := r.fetch(u); err != nil || r.read("a.tar") != string(plain) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHostileArchives: nothing of an archive is outside the sandbox, whatever
// its entries say.
func TestHostileArchives(t *testing.T) {
	const out = "outside the sandbox"
	absolute := filepath.Join(t.TempDir(), "escaped-absolute")
	for _, test := range []struct {
		name, file string
		archive    []byte
		want       string
	}{
		{"a path with dots", "a.tar", tarOf(t, entry{name: "x/../../escaped", content: "x"}), out},
		{"an absolute path", "a.tar", tarOf(t, entry{name: absolute, content: "x"}), out},
		{"a link out", "a.tar", tarOf(t, entry{name: "up", kind: tar.TypeSymlink, link: "../.."}), out},
		{"an absolute link", "a.tar", tarOf(t, entry{name: "up", kind: tar.TypeSymlink, link: "/etc"}), out},
		{"a hard link out", "a.tar", tarOf(t, entry{name: "up", kind: tar.TypeLink, link: "../../etc/passwd"}), out},
		{"a zip with dots", "a.zip", zipOf(t, entry{name: "../escaped", content: "x"}), out},
		{"a zip with backslashes", "a.zip", zipOf(t, entry{name: `..\escaped`, content: "x"}), out},
		{"a zip with a link out", "a.zip", zipOf(t, entry{name: "up", kind: tar.TypeSymlink, link: "/etc"}), out},
		{"a device", "a.tar", tarOf(t, entry{name: "null", kind: tar.TypeChar}), "no archive should bring"},
		{"a pipe", "a.tar", tarOf(t, entry{name: "pipe", kind: tar.TypeFifo}), "no archive should bring"},
		{"no archive at all", "a.tar.gz", []byte("<html>not found</html>"), "cannot be unpacked"},
		{"half an archive", "a.tar", tarOf(t, entry{name: "a", content: strings.Repeat("x", 4096)})[:1024], "cannot be unpacked"},
		{"a bomb", "a.gz", gz(t, make([]byte, 80<<20)), "bomb"},
		{"a bomb in a tar", "a.tar.gz", gz(t, tarOf(t, entry{name: "a", content: string(make([]byte, 80<<20))})), "bomb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			inner := filepath.Join(r.sandbox, "in", "sandbox")
			if err := os.MkdirAll(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			err := r.fetchInto(context.Background(), inner, uri(r.serve("/"+test.file, test.archive)))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the answer is %v, want one with %q", err, test.want)
			}
			_ = filepath.Walk(r.sandbox, func(p string, _ os.FileInfo, _ error) error {
				if strings.Contains(p, "escaped") {
					t.Errorf("%s was written", p)
				}
				return nil
			})
			if _, err := os.Lstat(absolute); err == nil {
				t.Errorf("%s was written", absolute)
			}
		})
	}
	t.Run("larger than it may be", func(t *testing.T) {
		r := newRig(t, func(o *fetcher.Options) { o.MaxBytes = 1 << 20 })
		noise := make([]byte, 2<<20)
		for i := range noise {
			noise[i] = byte(i * i >> 3)
		}
		if err := r.fetch(uri(r.serve("/a.gz", gz(t, noise)))); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
			t.Errorf("the answer is %v", err)
		}
		if err := r.fetch(uri(r.serve("/noise", noise))); err == nil || !strings.Contains(err.Error(), "more than 1048576") {
			t.Errorf("the answer is %v", err)
		}
	})
}

func TestChecksum(t *testing.T) {
	r := newRig(t, nil)
	sum := sha256.Sum256([]byte("right"))
	u := uri(r.serve("/file", []byte("right")))
	u.Checksum = proto.String("sha256:" + strings.ToUpper(hex.EncodeToString(sum[:])))
	if err := r.fetch(u); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(r.sandbox, "file")); err != nil {
		t.Fatal(err)
	}
	r.serve("/file", []byte("wrong"))
	for _, cached := range []bool{false, true} {
		u.Cache = proto.Bool(cached)
		if err := r.fetch(u); err == nil || !strings.Contains(err.Error(), "not the file that was meant") {
			t.Errorf("cache %v: the answer to a wrong checksum is %v", cached, err)
		}
		r.empty()
	}
}

func TestStalled(t *testing.T) {
	end := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		<-end
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(end) })
	r := newRig(t, func(o *fetcher.Options) { o.Stall = 200 * time.Millisecond })
	if err := r.fetch(uri(server.URL + "/file")); err == nil || !strings.Contains(err.Error(), "stalled") {
		t.Errorf("the answer is %v", err)
	}
	r.empty()

	t.Run("and cancelled", func(t *testing.T) {
		r := newRig(t, nil)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := r.fetchInto(ctx, r.sandbox, uri(server.URL+"/file")); !errors.Is(err, context.Canceled) {
			t.Errorf("the answer is %v", err)
		}
	})
}

// TestErrors: what people read, with nothing secret in it.
func TestErrors(t *testing.T) {
	r := newRig(t, nil)
	secret := strings.Replace(r.server.URL, "http://", "http://bob:hunter2@", 1) + "/gone?token=hunter2"
	for _, test := range []struct{ name, uri, want string }{
		{"not there", secret, "the server answered 404 Not Found"},
		{"nobody listens", "http://bob:hunter2@127.0.0.1:1/x?token=hunter2", "connection refused"},
		{"no such file", "/no/such/file", "no such file"},
		{"a directory", "file:///etc", "not a regular file"},
		{"a device", "/dev/zero", "not a regular file"},
		{"another machine's", "file://other/etc/passwd", "not a file of this agent"},
		{"a relative path", "relative/file", "neither a URL nor an absolute path"},
		{"ftp", "ftp://bob:hunter2@host/x", `"ftp" is not fetched here`},
		{"no name", "http://host/", "has no file name"},
		{"the task's output", "http://host/stdout", "the task's own output"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := r.fetch(uri(test.uri))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("the answer is %v, want one with %q", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a password is shown: %v", err)
			}
		})
	}
	for _, test := range []struct{ output, sum, want string }{
		{"../x", "", "leaves the sandbox"}, {"/etc/x", "", "leaves the sandbox"},
		{"", "md5:abc", "of no known kind"}, {"", "sha256:abc", "sha256: and 64 hexadecimal digits"},
	} {
		u := uri("http://host/file")
		u.OutputFile, u.Checksum = proto.String(test.output), proto.String(test.sum)
		if err := fetcher.Validate(u); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("output_file %q, checksum %q: the answer is %v, want one with %q", test.output, test.sum, err, test.want)
		}
	}
}

// TestOtherUser: a worker can read what its user can, and what it fetches is
// the user's.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	r := newRig(t, nil)
	r.who = fetcher.User{UID: 65534, GID: 65534}
	if err := os.Chown(r.sandbox, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.fetch(uri(secret)); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("another user's file: %v", err)
	}
	cached := uri(r.serve("/file", []byte("x")))
	cached.Cache = proto.Bool(true)
	if err := r.fetch(cached); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(r.sandbox, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(info.Sys()); !strings.Contains(got, "65534") {
		t.Errorf("what was fetched does not belong to the user: %s", got)
	}
	r.who, r.sandbox = fetcher.User{}, t.TempDir()
	if err := r.fetch(cached); err != nil {
		t.Fatal(err)
	}
	if n := r.asked("/file"); n != 2 {
		t.Errorf("two users' items came from %d downloads: one was given the other's", n)
	}
}

func TestBytesOverTheWire(t *testing.T) {
	// Compressed once is compressed still: nobody unpacks on the way.
	r := newRig(t, nil)
	packed := gz(t, bytes.Repeat([]byte("x"), 1000))
	u := uri(r.serve("/a.gz", packed))
	u.Extract = proto.Bool(false)
	if err := r.fetch(u); err != nil || r.read("a.gz") != string(packed) {
		t.Errorf("%v", err)
	}
}
