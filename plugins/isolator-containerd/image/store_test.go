package image_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for a machine with other things to do.
const patience = 2 * time.Minute

// bench is a store on a daemon of its own.
type bench struct {
	*image.Store
	t      *testing.T
	d      *containerdtest.Daemon
	client *client.Client

	mu   sync.Mutex
	now  time.Time
	disk float64
}

func newBench(t *testing.T, config image.Config) *bench {
	t.Helper()
	b := &bench{t: t, d: containerdtest.Start(t), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	b.client = b.d.Client(t)
	if config.Stall == 0 {
		config.Stall = patience
	}
	s, err := image.New(image.Options{
		Client: func() (*client.Client, error) { return b.client, nil }, Namespace: b.d.Namespace, Config: config,
		Now:      func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.now },
		DiskUsed: func(dir string) (float64, error) { return b.disk, checkDir(dir, b.d.Dir) },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Store = s
	t.Cleanup(s.Close)
	return b
}

// checkDir makes sure that it is the daemon's disk that is looked at.
func checkDir(dir, below string) error {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || !strings.HasPrefix(dir, below) {
		return fmt.Errorf("%q is not the snapshotter's directory below %s: %v", dir, below, err)
	}
	return nil
}

func (b *bench) pass(d time.Duration) { b.mu.Lock(); defer b.mu.Unlock(); b.now = b.now.Add(d) }

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.d.Context(b.t), patience)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *bench) provide(container, reference string) *image.Image {
	b.t.Helper()
	i, err := b.Provide(b.ctx(), container, image.Want{Reference: reference}, nil)
	if err != nil {
		b.t.Fatalf("provide %s: %v", reference, err)
	}
	return i
}

// refused expects an error with all these words, and that nothing is held.
func (b *bench) refused(w image.Want, words ...string) error {
	b.t.Helper()
	_, err := b.Provide(b.ctx(), "refused", w, nil)
	if err == nil {
		b.t.Fatalf("provide %s: no error", w.Reference)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			b.t.Errorf("provide %s: %v\nwant the word %q in it", w.Reference, err, word)
		}
	}
	if held, err := b.Held(b.ctx()); err != nil || held["refused"] != "" {
		b.t.Errorf("what was refused is held: %v %v", held, err)
	}
	return err
}

func (b *bench) names() []string {
	b.t.Helper()
	list, err := b.List(b.ctx())
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}

// collect collects; the names removed.
func (b *bench) collect() []string {
	b.t.Helper()
	removed, err := b.Collect(b.ctx())
	if err != nil {
		b.t.Fatal(err)
	}
	return removed
}

// usable makes a container's snapshot of an image, and a file in it, as a
// container would have it.
func (b *bench) usable(i *image.Image, container string) {
	b.t.Helper()
	ctx := b.Context(b.ctx(), container)
	mounts, err := b.client.SnapshotService("overlayfs").Prepare(ctx, "test-"+container, i.Chain.String())
	if err != nil || len(mounts) == 0 {
		b.t.Fatalf("snapshot: %v", err)
	}
}

func open(host string) image.Config {
	return image.Config{Registries: []image.Registry{{Host: host, PlainHTTP: true}}}
}

// TestPullPolicies: a registry is asked as often as the policy says, and what is
// held stays.
func TestPullPolicies(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil)
	first := containerdtest.Busybox()
	first.Config.Cmd, first.Random = []string{"one"}, 1<<20
	built := r.Push(t, "team/app", "1", first)
	b := newBench(t, open(r.Host))
	name := r.Host + "/team/app:1"

	b.refused(image.Want{Reference: name, Policy: image.Never}, "not on the agent")
	if n := r.Requests(""); len(n) != 0 {
		t.Errorf("policy never asked the registry: %v", n)
	}
	var seen []image.Progress
	i, err := b.Provide(b.ctx(), "c1", image.Want{Reference: name}, func(p image.Progress) { seen = append(seen, p) })
	if err != nil {
		t.Fatal(err)
	}
	want := int64(0)
	for _, l := range built.Layers {
		want += l.Size
	}
	if i.Pulled == nil || i.Pulled.Bytes != want || i.Pulled.Took <= 0 {
		t.Errorf("the pull: %+v, want %d bytes", i.Pulled, want)
	}
	if i.Name() != name || i.Target().Digest != built.Manifest.Digest || !slices.Equal(i.Config.Cmd, []string{"one"}) {
		t.Errorf("got %s %s %v", i.Name(), i.Target().Digest, i.Config.Cmd)
	}
	if len(seen) == 0 || seen[0].Image != name || !strings.Contains(seen[0].String(), name) {
		t.Errorf("progress: %+v", seen)
	}
	b.usable(i, "c1")
	asked := len(r.Requests(""))
	if i := b.provide("c2", name); i.Pulled != nil {
		t.Errorf("an image that is here was pulled: %+v", i.Pulled)
	}
	if _, err := b.Provide(b.ctx(), "c3", image.Want{Reference: name, Policy: image.Never}, nil); err != nil {
		t.Errorf("an image that is here: %v", err)
	}
	if n := r.Requests(""); len(n) != asked {
		t.Errorf("an image that is here was asked for: %v", n[asked:])
	}
	second := first
	second.Config.Cmd = []string{"two"}
	r.Push(t, "team/app", "1", second)
	if i := b.provide("c4", name); i.Config.Cmd[0] != "one" {
		t.Errorf("the image changed without a pull: %v", i.Config.Cmd)
	}
	i, err = b.Provide(b.ctx(), "c5", image.Want{Reference: name, Policy: image.Always}, nil)
	if err != nil || i.Config.Cmd[0] != "two" {
		t.Errorf("policy always: %v %v", i, err)
	} else if i.Pulled == nil || i.Pulled.Bytes != 0 {
		t.Errorf("the pull of what differs by its configuration alone: %+v", i.Pulled)
	}
	blobs := r.Requests("GET /v2/team/app/blobs/")
	slices.Sort(blobs)
	if unique := slices.Compact(slices.Clone(blobs)); len(unique) != len(blobs) || len(blobs) != 4 {
		t.Errorf("want two layers and two configurations fetched once each: %v", blobs)
	}
	held, err := b.Held(b.ctx())
	if err != nil || len(held) != 5 || held["c1"] != name {
		t.Errorf("held: %v %v", held, err)
	}
	other, err := image.New(image.Options{Client: func() (*client.Client, error) { return b.client, nil }, Namespace: b.d.Namespace, Owner: "another"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if held, err := other.Held(b.ctx()); err != nil || len(held) > 0 {
		t.Errorf("another agent's: %v %v", held, err)
	}
	if list, err := other.List(b.ctx()); err != nil || len(list) != 1 || list[0].Containers != 5 {
		t.Errorf("another agent sees %+v %v", list, err)
	}
	if i, err := b.Image(b.ctx(), "c5"); err != nil || i.Config.Cmd[0] != "two" {
		t.Errorf("the image of a container: %v %v", i, err)
	}
	if _, err := b.Image(b.ctx(), "c9"); !errdefs.IsNotFound(err) {
		t.Errorf("the image of a container without one: %v", err)
	}
	for _, c := range []string{"c1", "c1", "never"} {
		if err := b.Release(b.ctx(), c); err != nil {
			t.Errorf("release %s: %v", c, err)
		}
	}
}

// TestDigests: what is pulled by digest is that, whatever the registry sends.
func TestDigests(t *testing.T) {
	containerdtest.Require(t)
	lie := make(chan struct{})
	other := containerdtest.Busybox()
	other.Config.Cmd = []string{"other"}
	r := containerdtest.ServeRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			select {
			case <-lie:
				if strings.Contains(q.URL.Path, "/manifests/sha256:") {
					q.URL.Path = "/v2/app/manifests/other"
				}
			default:
			}
			next.ServeHTTP(w, q)
		})
	})
	built := r.Push(t, "app", "1", containerdtest.Busybox())
	r.Push(t, "app", "other", other)
	b := newBench(t, open(r.Host))
	name := r.Host + "/app@" + built.Manifest.Digest.String()
	i := b.provide("c1", r.Host+"/app:ignored@"+built.Manifest.Digest.String())
	if i.Name() != name || i.Target().Digest != built.Manifest.Digest {
		t.Errorf("got %s", i.Name())
	}
	missing := r.Host + "/app@sha256:" + strings.Repeat("0", 64)
	if err := b.refused(image.Want{Reference: missing}, "no such image"); image.Transient(err) {
		t.Errorf("to try again is no use: %v", err)
	}
	close(lie)
	b.refused(image.Want{Reference: missing}, missing)
	if got := b.names(); !slices.Equal(got, []string{name}) {
		t.Errorf("images: %v", got)
	}
}

// TestPlatforms: of an index the agent's platform is taken, or the operator's.
func TestPlatforms(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil)
	arm, amd := containerdtest.Busybox(), containerdtest.Busybox()
	arm.Platform, arm.Config.Cmd = ocispec.Platform{OS: "linux", Architecture: "arm64"}, []string{"arm64"}
	amd.Platform, amd.Config.Cmd = ocispec.Platform{OS: "linux", Architecture: "amd64"}, []string{"amd64"}
	r.PushIndex(t, "app", "two", arm, amd)
	config := open(r.Host)
	config.Platform = "linux/arm64"
	b := newBench(t, config)
	if i := b.provide("c1", r.Host+"/app:two"); i.Config.Cmd[0] != "arm64" {
		t.Errorf("got %v", i.Config.Cmd)
	}
	r.PushIndex(t, "app", "one", amd)
	b.refused(image.Want{Reference: r.Host + "/app:one"}, "platform")
}

// TestFaults: a registry that breaks off, lies or stalls fails the launch and
// leaves no image; once it is well the same works.
func TestFaults(t *testing.T) {
	containerdtest.Require(t)
	var mu sync.Mutex
	var fault func(http.ResponseWriter, *http.Request) bool
	r := containerdtest.ServeRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			mu.Lock()
			f := fault
			mu.Unlock()
			if f == nil || !f(w, q) {
				next.ServeHTTP(w, q)
			}
		})
	})
	with := func(f func(http.ResponseWriter, *http.Request) bool) { mu.Lock(); defer mu.Unlock(); fault = f }
	app := containerdtest.Busybox()
	app.Random = 1 << 20
	built := r.Push(t, "app", "1", app)
	layer := built.Layers[1]
	at := "/blobs/" + layer.Digest.String()
	b := newBench(t, open(r.Host))
	want := image.Want{Reference: r.Host + "/app:1"}

	with(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, at) {
			return false
		}
		broken := slices.Clone(layer.Content)
		broken[len(broken)/2] ^= 1
		w.Header().Set("Content-Length", fmt.Sprint(len(broken)))
		_, _ = w.Write(broken)
		return true
	})
	b.refused(want, "digest")
	with(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, at) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(layer.Content)))
		_, _ = w.Write(layer.Content[:len(layer.Content)/2])
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
		return true
	})
	impatient := open(r.Host)
	impatient.Stall = time.Second
	s, err := image.New(image.Options{Client: func() (*client.Client, error) { return b.client, nil }, Namespace: b.d.Namespace, Config: impatient})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Provide(b.ctx(), "c0", want, nil); err == nil || !strings.Contains(err.Error(), "sends nothing for 1s") || !image.Transient(err) {
		t.Errorf("a registry that stalls: %v", err)
	}
	s.Close()
	with(func(w http.ResponseWriter, q *http.Request) bool {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return true
	})
	if err := b.refused(want, "503"); !image.Transient(err) {
		t.Errorf("a registry that is busy may be tried again: %v", err)
	}
	if got := b.names(); len(got) != 0 {
		t.Errorf("images: %v", got)
	}
	with(nil)
	b.usable(b.provide("c1", want.Reference), "c1")
	b.refused(image.Want{Reference: r.Host + "/other:1"}, "no such image")
	if err := b.refused(image.Want{Reference: "127.0.0.1:1/app"}, "127.0.0.1:1/app:latest"); !image.Transient(err) {
		t.Errorf("a registry that is away may be tried again: %v", err)
	}
	b.refused(image.Want{Reference: "No Name"}, "No Name")
}

// forgetful is a snapshotter that once says that it has what it has not: what
// is seen when a snapshot is collected just after it was found.
type forgetful struct {
	snapshots.Snapshotter
	lies atomic.Int32 // how many are left
}

// Prepare implements snapshots.Snapshotter.
func (f *forgetful) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if parent == "" && f.lies.Load() > 0 {
		return nil, errdefs.ErrAlreadyExists
	}
	return f.Snapshotter.Prepare(ctx, key, parent, opts...)
}

// Stat implements snapshots.Snapshotter.
func (f *forgetful) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	if f.lies.Add(-1) >= 0 {
		return snapshots.Info{Name: key, Kind: snapshots.KindCommitted}, nil
	}
	return f.Snapshotter.Stat(ctx, key)
}

// TestCollectedWhilePulled: the first layer of an image, which an earlier pull
// has left, is collected before the second is put on it; the pull begins anew.
func TestCollectedWhilePulled(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil)
	app := containerdtest.Busybox()
	app.Random = 1 << 10 // a second layer
	r.Push(t, "app", "1", app)
	b := newBench(t, open(r.Host))
	f := &forgetful{Snapshotter: b.client.SnapshotService("")}
	c, err := client.New("", client.WithServices(
		client.WithContentStore(b.client.ContentStore()), client.WithImageStore(b.client.ImageService()),
		client.WithLeasesService(b.client.LeasesService()), client.WithDiffService(b.client.DiffService()),
		client.WithIntrospectionService(b.client.IntrospectionService()),
		client.WithSnapshotters(map[string]snapshots.Snapshotter{"overlayfs": f, "": f})))
	if err != nil {
		t.Fatal(err)
	}
	config := open(r.Host)
	config.Stall = patience
	s, err := image.New(image.Options{Client: func() (*client.Client, error) { return c, nil }, Namespace: b.d.Namespace, Config: config})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f.lies.Store(1)
	if _, err := s.Provide(b.ctx(), "c1", image.Want{Reference: r.Host + "/app:1"}, nil); err != nil {
		t.Fatal(err)
	}
	if f.lies.Load() >= 0 {
		t.Error("nobody was lied to")
	}
}

// TestSharedPull: ten containers that want an image at the same time cause one
// pull; those that give up leave it to the others, and the last ends it.
func TestSharedPull(t *testing.T) {
	containerdtest.Require(t)
	begun, gate := make(chan struct{}, 100), make(chan struct{})
	ended := make(chan struct{}, 100)
	r := containerdtest.ServeRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Method == http.MethodGet && strings.Contains(q.URL.Path, "/blobs/") {
				begun <- struct{}{}
				select {
				case <-gate:
				case <-q.Context().Done():
					ended <- struct{}{}
					return
				}
			}
			next.ServeHTTP(w, q)
		})
	})
	r.Push(t, "app", "1", containerdtest.Busybox())
	b := newBench(t, open(r.Host))
	want := image.Want{Reference: r.Host + "/app:1"}
	type result struct {
		n     int
		image *image.Image
		err   error
	}
	results := make(chan result)
	waiting := make(chan struct{})
	begin := func(n int) context.CancelFunc {
		ctx, cancel := context.WithCancel(b.ctx())
		var once sync.Once
		go func() {
			i, err := b.Provide(ctx, fmt.Sprint("c", n), want, func(image.Progress) { once.Do(func() { waiting <- struct{}{} }) })
			results <- result{n, i, err}
		}()
		<-waiting
		return cancel
	}
	// All give up: the pull ends.
	cancel := begin(0)
	<-begun
	cancel()
	if got := <-results; !errors.Is(got.err, context.Canceled) {
		t.Errorf("one that gave up: %v", got.err)
	}
	<-ended
	var cancels []context.CancelFunc
	for n := range 10 {
		cancels = append(cancels, begin(n))
	}
	before := len(r.Requests("GET /v2/app/blobs/"))
	cancels[0]()
	if got := <-results; got.n != 0 || !errors.Is(got.err, context.Canceled) {
		t.Errorf("one that gave up: %+v", got)
	}
	close(gate)
	pulls := 0
	for range 9 {
		got := <-results
		if got.image != nil && got.image.Pulled != nil {
			pulls++
		}
		if got.err != nil {
			t.Errorf("container %d: %v", got.n, got.err)
		}
	}
	for _, cancel := range cancels {
		cancel()
	}
	if after := r.Requests("GET /v2/app/blobs/"); len(after)-before > 2 {
		t.Errorf("more than one pull: %v", after)
	}
	if pulls != 1 {
		t.Errorf("%d of those who waited for one pull were told of it, want 1", pulls)
	}
	if held, err := b.Held(b.ctx()); err != nil || len(held) != 9 {
		t.Errorf("held: %v %v", held, err)
	}
}

// TestClose: a store that ends gives up its pulls.
func TestClose(t *testing.T) {
	containerdtest.Require(t)
	begun := make(chan struct{}, 100)
	r := containerdtest.ServeRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
			begun <- struct{}{}
			<-q.Context().Done()
		})
	})
	b := newBench(t, open(r.Host))
	done := make(chan error)
	go func() {
		_, err := b.Provide(b.ctx(), "c", image.Want{Reference: r.Host + "/app"}, nil)
		done <- err
	}()
	<-begun
	b.Close()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if _, err := b.Provide(b.ctx(), "c", image.Want{Reference: r.Host + "/app"}, nil); err == nil {
		t.Error("a store that has ended pulls")
	}
}
