package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Progress is how far a pull is. Bytes are compressed ones, as they come.
type Progress struct {
	Image      string
	Archive    bool // it is read from an archive; the rest says nothing then
	Waiting    bool // for other pulls to end
	Layers     int  // 0: not known yet
	LayersDone int
	Bytes      int64
	TotalBytes int64
	Unpacking  bool // all is here
}

// String is a short sentence for the task's owner, to which bytes may be added.
func (p Progress) String() string {
	switch {
	case p.Archive:
		return "image " + p.Image + ": reading the archive"
	case p.Waiting:
		return "image " + p.Image + ": waiting for other pulls"
	case p.Layers == 0:
		return "image " + p.Image + ": asking the registry"
	case p.Unpacking:
		return fmt.Sprintf("image %s: unpacking %d layers", p.Image, p.Layers)
	}
	return fmt.Sprintf("image %s: pulling, %d of %d layers", p.Image, p.LayersDone, p.Layers)
}

// Pulled is a pull that has ended.
type Pulled struct {
	Bytes int64 // compressed, without what was here already
	Took  time.Duration
}

// flight is a pull that goes on, for all who wait for it.
type flight struct {
	cancel  context.CancelFunc
	done    chan struct{}
	err     error   // once done
	pulled  *Pulled // once done; of the store's mu: nil when it has been told
	waiting int     // of the store's mu

	mu       sync.Mutex
	progress Progress
	changed  chan struct{} // closed and replaced with each change
	layers   map[digest.Digest]*layerState
	seen     []ocispec.Descriptor // all that was fetched
}

func newFlight(image string) *flight {
	return &flight{
		done: make(chan struct{}), changed: make(chan struct{}), layers: map[digest.Digest]*layerState{},
		progress: Progress{Image: image}, cancel: func() {},
	}
}

type layerState struct {
	size, got int64
	here      bool // before
	done      bool
}

// pollEvery is how often a pull looks how far it is; reportEvery is how often
// that is told at most, beatEvery at least.
const (
	pollEvery   = 500 * time.Millisecond
	reportEvery = time.Second
	beatEvery   = 10 * time.Second

	discardPatience = 30 * time.Second
)

// pull brings an image, or waits for the pull of it that goes on. Pulls with
// different credentials are different: what one may have another may not.
func (s *Store) pull(ctx context.Context, c *client.Client, name string, config []byte, report func(Progress)) (*Pulled, error) {
	key := fmt.Sprintf("%s %x", name, sha256.Sum256(config))
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		return nil, errors.New("the isolator ends")
	}
	f := s.flights[key]
	if f == nil {
		f = newFlight(name)
		var life context.Context
		life, f.cancel = context.WithCancel(s.in(s.closing))
		s.flights[key] = f
		s.pulls.Add(1)
		go s.fly(life, c, key, name, config, f)
	}
	f.waiting++
	s.mu.Unlock()
	err := f.wait(ctx, report)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		if s.flights[key] == f {
			delete(s.flights, key) // whoever comes now begins anew
		}
	}
	if err != nil {
		return nil, err
	}
	pulled := f.pulled
	f.pulled = nil
	return pulled, nil
}

// wait returns when the pull has ended, or ctx has.
func (f *flight) wait(ctx context.Context, report func(Progress)) error {
	if report == nil {
		report = func(Progress) {}
	}
	for {
		f.mu.Lock()
		now, changed := f.progress, f.changed
		f.mu.Unlock()
		report(now)
		if ended, err := f.pause(ctx, reportEvery, nil); ended {
			return err
		}
		if ended, err := f.pause(ctx, beatEvery-reportEvery, changed); ended {
			return err
		}
	}
}

// pause waits for so long, or until there is news; it says whether there is
// nothing more to wait for.
func (f *flight) pause(ctx context.Context, d time.Duration, news <-chan struct{}) (bool, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-f.done:
		return true, f.err
	case <-ctx.Done():
		return true, ctx.Err()
	case <-news:
	case <-timer.C:
	}
	return false, nil
}

func (f *flight) set(change func(*Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.progress
	change(&f.progress)
	if f.progress != old {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// fly is the pull.
func (s *Store) fly(ctx context.Context, c *client.Client, key, name string, config []byte, f *flight) {
	defer s.pulls.Done()
	f.err = s.fetch(ctx, c, name, config, f)
	s.mu.Lock()
	if s.flights[key] == f {
		delete(s.flights, key)
	}
	s.mu.Unlock()
	f.cancel()
	close(f.done)
}

func (s *Store) fetch(ctx context.Context, c *client.Client, name string, config []byte, f *flight) error {
	select {
	case s.slots <- struct{}{}:
	default:
		f.set(func(p *Progress) { p.Waiting = true })
		select {
		case s.slots <- struct{}{}:
			f.set(func(p *Progress) { p.Waiting = false })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-s.slots }()
	keys, err := s.o.Config.keyring(config)
	if err != nil {
		return &permanent{err}
	}
	hosts, closeAll, err := s.o.Config.resolver(keys)
	if err != nil {
		return &permanent{err}
	}
	defer closeAll()
	watch, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); f.watch(watch, c.ContentStore()) }()
	defer func() { stop(); <-watched }()
	begun := time.Now()
	get := func() error {
		_, err := c.Pull(ctx, name,
			client.WithResolver(docker.NewResolver(docker.ResolverOptions{Hosts: hosts})),
			client.WithPlatformMatcher(s.platform),
			client.WithPullUnpack, client.WithPullSnapshotter(s.o.Snapshotter),
			client.WithMaxConcurrentDownloads(layersAtOnce),
			client.WithImageHandlerWrapper(f.learn(c.ContentStore())),
			client.WithPullLabel(labelUsed, s.o.Now().UTC().Format(time.RFC3339)),
		)
		if spoilt(err) {
			f.discard(s.in(context.WithoutCancel(ctx)), c.ContentStore())
		}
		return err
	}
	err = get()
	var answer remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		err = get() // the registry cannot go on where an earlier pull broke off
	}
	for again := 0; collected(err) && again < 2; again++ {
		err = get()
	}
	if err == nil {
		f.pulled = &Pulled{Bytes: f.came(), Took: time.Since(begun)}
		s.o.Logger.Info("image pulled", "image", name, "bytes", f.pulled.Bytes, "took", f.pulled.Took.Round(time.Millisecond))
	}
	return err
}

// came is how much of the image was not here before.
func (f *flight) came() (bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.layers {
		if !l.here {
			bytes += l.size
		}
	}
	return bytes
}

// spoilt is whether what has come in part is of no use: it is not what was
// named, or the registry cannot send the rest. containerd would go on there,
// and fail for ever.
func spoilt(err error) bool {
	var answer remoteerrors.ErrUnexpectedStatus
	return errdefs.IsFailedPrecondition(err) ||
		errors.As(err, &answer) && answer.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// collected is whether a layer that was here when the pull came to it was
// collected before the next was put on it: containerd finds what an earlier,
// failed pull has unpacked, and older daemons do not keep that for whoever
// finds it. The next try finds it missing, and unpacks it.
func collected(err error) bool {
	return errdefs.IsNotFound(err) && strings.Contains(err.Error(), "extraction snapshot")
}

// discard forgets what has come in part.
func (f *flight) discard(ctx context.Context, store content.Store) {
	ctx, cancel := context.WithTimeout(ctx, discardPatience)
	defer cancel()
	f.mu.Lock()
	seen := f.seen
	f.mu.Unlock()
	for _, d := range seen {
		_ = store.Abort(ctx, remotes.MakeRefKey(ctx, d)) // most have come whole
	}
}

// learn sees what an image is made of, as manifests are read.
func (f *flight) learn(store content.Store) func(images.Handler) images.Handler {
	return func(next images.Handler) images.Handler { return f.learner(store, next) }
}

func (f *flight) learner(store content.Store, next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		f.mu.Lock()
		f.seen = append(f.seen, d)
		f.mu.Unlock()
		children, err := next.Handle(ctx, d)
		if err != nil || !images.IsManifestType(d.MediaType) {
			return children, err
		}
		for _, child := range children {
			if !images.IsLayerType(child.MediaType) {
				continue
			}
			_, err := store.Info(ctx, child.Digest)
			f.mu.Lock()
			if f.layers[child.Digest] == nil {
				f.layers[child.Digest] = &layerState{size: child.Size, here: err == nil}
			}
			f.mu.Unlock()
		}
		f.sum()
		return children, nil
	})
}

// sum brings the progress up to what is known of the layers.
func (f *flight) sum() {
	f.set(func(p *Progress) {
		p.Layers, p.LayersDone, p.Bytes, p.TotalBytes = len(f.layers), 0, 0, 0
		for _, l := range f.layers {
			p.TotalBytes += l.size
			p.Bytes += l.got
			if l.done {
				p.LayersDone++
			}
		}
		p.Unpacking = p.Layers > 0 && p.LayersDone == p.Layers
	})
}

// watch follows what comes in, in containerd's own books.
func (f *flight) watch(ctx context.Context, store content.Store) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		var open []digest.Digest
		for d, l := range f.layers {
			if !l.done {
				open = append(open, d)
			}
		}
		f.mu.Unlock()
		if len(open) == 0 {
			continue
		}
		arriving, err := store.ListStatuses(ctx)
		if err != nil {
			continue
		}
		at := map[string]int64{}
		for _, status := range arriving {
			at[status.Ref] = status.Offset
		}
		for _, d := range open {
			ref := remotes.MakeRefKey(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d})
			offset, comes := at[ref]
			here := false
			if !comes {
				_, err := store.Info(ctx, d)
				here = err == nil
			}
			f.mu.Lock()
			l := f.layers[d]
			switch {
			case here:
				l.got, l.done = l.size, true
			case comes:
				l.got = offset
			}
			f.mu.Unlock()
		}
		f.sum()
	}
}

// permanent is an error that trying again does not mend.
type permanent struct{ error }

// Unwrap returns what is wrong.
func (p *permanent) Unwrap() error { return p.error }

// Transient is whether what failed may work when it is tried again: the
// registry or containerd is away or busy, or the network is.
func Transient(err error) bool {
	var p *permanent
	if errors.As(err, &p) {
		return false
	}
	var answer remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == 429 || answer.StatusCode == 408
	}
	var network net.Error
	return errors.Is(err, errStalled) || errdefs.IsUnavailable(err) || status.Code(err) == codes.Unavailable || errors.As(err, &network)
}

// query is the part of an address that may be a secret: signed addresses of
// object stores have their key in it.
var query = regexp.MustCompile(`\?[^\s"']+`)

// explain names the image, and leaves out what is nobody's business.
func explain(name string, err error) error {
	text := query.ReplaceAllString(err.Error(), "?…")
	text = strings.ReplaceAll(text, fmt.Sprintf("failed to resolve reference %q: ", name), "")
	if hint := hint(err, text); hint != "" {
		text = hint + " (" + text + ")"
	}
	return &explained{fmt.Sprintf("image %s: %s", name, text), err}
}

// hint says what an error means, and what to do; "": it says so itself.
func hint(err error, text string) string {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
	}
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errStalled), collected(err):
		return ""
	case has("no match for platform"):
		return "it does not exist for this agent's platform"
	case errdefs.IsNotFound(err):
		return "the registry has no such image, or no such tag of it: look at its name"
	case has("authorization failed", "401 Unauthorized", "403 Forbidden"):
		return "the registry does not give it: it has no such image, or wants other credentials than it got, which may be none; " +
			"those are the task's docker.config, and a registry block or docker_config of the agent's isolator"
	case has("server gave HTTP response to HTTPS client"):
		return "the registry speaks HTTP without TLS, for which the agent's isolator needs plain_http = true in a registry block"
	case has("x509: "):
		return "the registry's certificate is not trusted; the agent's isolator may have a certificate for it, ca in a registry block"
	case errors.As(err, &network), has("connection refused", "no such host", "no route to host", "network is unreachable"):
		return "the agent cannot reach the registry"
	}
	return ""
}

type explained struct {
	text string
	err  error
}

// Error implements error.
func (e *explained) Error() string { return e.text }

// Unwrap returns what containerd or the registry said.
func (e *explained) Unwrap() error { return e.err }
