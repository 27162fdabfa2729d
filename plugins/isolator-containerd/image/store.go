package image

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/hashicorp/go-hclog"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// Options are what a Store needs. Client and Namespace are required.
type Options struct {
	// Client returns the connection to containerd; an error passes when
	// containerd is back. The store closes nothing.
	Client    func() (*client.Client, error)
	Namespace string
	// Owner tells the holds of this agent from those of others that use the same
	// namespace; Held returns those of the same owner.
	Owner string
	// Snapshotter is what images are unpacked into; "": overlayfs.
	Snapshotter string
	Config      Config
	Counts      Counts // none: nothing is counted
	Logger      hclog.Logger
	// Now is the clock; nil: the system's.
	Now func() time.Time
	// DiskUsed says how full the disk of a directory is, from 0 to 1; nil: as
	// the kernel says.
	DiskUsed func(dir string) (float64, error)
}

// Store is an agent's images. Its methods may be called by several at once.
type Store struct {
	o        Options
	platform platforms.MatchComparer
	pinned   map[string]bool
	log      *log.Entry // containerd's client's

	closing context.Context // ended by Close
	close   context.CancelFunc
	pulls   sync.WaitGroup
	slots   chan struct{} // of pulls that go on

	// names is held to read while an image is found and held, and to write while
	// one that nobody holds is removed.
	names sync.RWMutex

	mu      sync.Mutex
	flights map[string]*flight
}

// pullsAtOnce and layersAtOnce bound what an agent asks of registries at the
// same time.
const (
	pullsAtOnce  = 4
	layersAtOnce = 3
)

// New returns a store; it speaks to containerd when it is first used. The
// configuration is one that Validate has found right.
func New(o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DiskUsed == nil {
		o.DiskUsed = diskUsed
	}
	if o.Snapshotter == "" {
		o.Snapshotter = "overlayfs"
	}
	s := &Store{
		o: o, platform: platforms.Default(), pinned: map[string]bool{},
		flights: map[string]*flight{}, slots: make(chan struct{}, pullsAtOnce),
	}
	if o.Config.Platform != "" {
		p, err := platforms.Parse(o.Config.Platform)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w", o.Config.Platform, err)
		}
		s.platform = platforms.Only(p)
	}
	for _, text := range o.Config.Pinned {
		name, err := Parse(text)
		if err != nil {
			return nil, err
		}
		s.pinned[name] = true
	}
	client := logrus.New()
	client.SetOutput(o.Logger.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}))
	s.log = logrus.NewEntry(client)
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

// Close gives up the pulls that go on, and returns when they have ended.
func (s *Store) Close() {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	s.pulls.Wait()
}

// Image is one that is here, unpacked and held by a container.
type Image struct {
	client.Image // its name, and a parent for a container's snapshot
	// Config is what the image says of the process that is to run.
	Config ocispec.ImageConfig
	// Chain is the snapshot that the container's own is made upon.
	Chain digest.Digest
	// Pulled is the pull that brought it, to one of those who waited for that; nil:
	// another has been told, or there was none.
	Pulled *Pulled
}

// The labels that a store writes.
const (
	labelImage     = "mezzo.image"     // of a lease: the image's name
	labelContainer = "mezzo.container" // of a lease: who holds it
	labelOwner     = "mezzo.owner"     // of a lease: the agent of who holds it
	labelUsed      = "mezzo.used"      // of an image: when it was last used
	labelPinned    = "mezzo.pinned"    // of an image: it is not collected
)

func leaseOf(container string) leases.Lease { return leases.Lease{ID: "mezzo-" + container} }

// in is ctx for calls of containerd's: in the agent's namespace, with what they
// log among the plugin's own lines.
func (s *Store) in(ctx context.Context) context.Context {
	return log.WithLogger(namespaces.WithNamespace(ctx, s.o.Namespace), s.log)
}

// Context is ctx with the container's lease: what is made with it in containerd,
// such as the container's snapshot, is kept until Release.
func (s *Store) Context(ctx context.Context, container string) context.Context {
	return leases.WithLease(s.in(ctx), leaseOf(container).ID)
}

// Provide returns the image that a container wants, pulled and unpacked where
// it is not yet, and held until Release. It calls report, when it is not nil,
// with how far it is: at first, then at most once a second while that changes
// and every ten seconds while it does not, from this goroutine. Containers that want the same image share a
// pull; one whose context ends leaves it to the others. Called again for the
// same container it does again only what is missing. After an error nothing is
// held.
func (s *Store) Provide(ctx context.Context, container string, w Want, report func(Progress)) (*Image, error) {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	if w.Archive != "" {
		return s.provideArchive(ctx, c, container, w, report)
	}
	name, err := Parse(w.Reference)
	if err != nil {
		return nil, &permanent{err}
	}
	if err := s.hold(ctx, c, container, name); err != nil {
		return nil, fmt.Errorf("image %s cannot be held: %w", name, err)
	}
	image, err := s.find(ctx, c, name, w, report)
	if err == nil {
		err = s.keep(ctx, c, container, image)
	}
	if err != nil {
		if undo := s.Release(context.WithoutCancel(ctx), container); undo != nil {
			s.o.Logger.Warn("what a failed launch held of an image stays until the next start", "container_id", container, "error", undo)
		}
		return nil, explain(name, err)
	}
	return image, nil
}

// find is the image as the policy wants it.
func (s *Store) find(ctx context.Context, c *client.Client, name string, w Want, report func(Progress)) (*Image, error) {
	if w.Policy != Always {
		image, err := s.open(ctx, c, name)
		if !errdefs.IsNotFound(err) {
			return image, err
		}
		if w.Policy == Never {
			return nil, &permanent{errors.New("it is not on the agent, and the task wants no pull")}
		}
	}
	pulled, err := s.pull(ctx, c, name, w.DockerConfig, report)
	if err != nil {
		return nil, err
	}
	image, err := s.open(ctx, c, name)
	if err == nil {
		image.Pulled = pulled
	}
	return image, err
}

// open returns an image that is here with all that a container needs: its
// configuration, and its layers unpacked. errdefs.ErrNotFound when any of that
// is missing.
func (s *Store) open(ctx context.Context, c *client.Client, name string) (*Image, error) {
	record, err := c.ImageService().Get(ctx, name)
	if err != nil {
		return nil, err
	}
	out := &Image{Image: client.NewImageWithPlatform(c, record, s.platform)}
	spec, err := out.Spec(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.suits(spec); err != nil {
		return nil, &permanent{err}
	}
	out.Config = spec.Config
	out.Chain = identity.ChainID(spec.RootFS.DiffIDs)
	if _, err := c.SnapshotService(s.o.Snapshotter).Stat(ctx, out.Chain.String()); err == nil || !errdefs.IsNotFound(err) {
		return out, err
	}
	// Another snapshotter has it, or it has never been unpacked.
	if err := out.Unpack(ctx, s.o.Snapshotter); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return out, nil
}

// suits is whether an image is for the platform that the agent runs: one that is
// not in an index is pulled whatever it is for.
func (s *Store) suits(spec ocispec.Image) error {
	if spec.Architecture == "" || s.platform.Match(spec.Platform) {
		return nil
	}
	want := s.o.Config.Platform
	if want == "" {
		want = platforms.DefaultString()
	}
	return fmt.Errorf("it is for the platform %s, and this agent runs images for %s", platforms.Format(spec.Platform), want)
}

// hold makes a container's lease, which names the image before it is looked for:
// from then on it is not collected.
func (s *Store) hold(ctx context.Context, c *client.Client, container, name string) error {
	s.names.RLock()
	defer s.names.RUnlock()
	lease := leaseOf(container)
	lease.Labels = map[string]string{labelImage: name, labelContainer: container, labelOwner: s.o.Owner}
	make := func() error {
		_, err := c.LeasesService().Create(ctx, leases.WithID(lease.ID), leases.WithLabels(lease.Labels))
		return err
	}
	err := make()
	if !errdefs.IsAlreadyExists(err) {
		return err
	}
	if old, err := s.heldBy(ctx, c, container); err != nil || old == name {
		return err
	}
	if err := c.LeasesService().Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return make()
}

// heldBy is the name of the image that a container holds; "": none.
func (s *Store) heldBy(ctx context.Context, c *client.Client, container string) (string, error) {
	list, err := c.LeasesService().List(ctx, fmt.Sprintf("id==%q", leaseOf(container).ID))
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Labels[labelImage], nil
}

// keep puts what the image is made of under the container's lease, so that it
// outlives the image's name.
func (s *Store) keep(ctx context.Context, c *client.Client, container string, image *Image) error {
	resources := []leases.Resource{
		{ID: image.Chain.String(), Type: "snapshots/" + s.o.Snapshotter},
		{ID: image.Target().Digest.String(), Type: "content"}, // and what it refers to
	}
	for _, r := range resources {
		if err := c.LeasesService().AddResource(ctx, leaseOf(container), r); err != nil && !errdefs.IsAlreadyExists(err) {
			return fmt.Errorf("keep it for the container: %w", err)
		}
	}
	s.used(ctx, c, image.Name())
	return nil
}

// usedPrecision is how exactly it is noted when an image was used: what is
// collected after days needs no write for each of a hundred launches a minute.
const usedPrecision = time.Minute

// used notes that an image is in use now. That it cannot be noted does not keep
// anybody from using it.
func (s *Store) used(ctx context.Context, c *client.Client, name string) {
	now := s.o.Now()
	record, err := c.ImageService().Get(ctx, name)
	if err == nil {
		if t, err := time.Parse(time.RFC3339, record.Labels[labelUsed]); err == nil && now.Sub(t).Abs() < usedPrecision {
			return
		}
		record = images.Image{Name: name, Labels: map[string]string{labelUsed: now.UTC().Format(time.RFC3339)}}
		_, err = c.ImageService().Update(ctx, record, "labels."+labelUsed)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		s.o.Logger.Debug("the use of an image could not be noted", "image", name, "error", err)
	}
}

// Image returns the image that a container holds, also in a process that has
// just started. errdefs.ErrNotFound when it holds none.
func (s *Store) Image(ctx context.Context, container string) (*Image, error) {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	name, err := s.heldBy(ctx, c, container)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, fmt.Errorf("container %s holds no image: %w", container, errdefs.ErrNotFound)
	}
	image, err := s.open(ctx, c, name)
	if err != nil {
		return nil, explain(name, err)
	}
	return image, nil
}

// Release ends a container's hold. It succeeds when there is none.
func (s *Store) Release(ctx context.Context, container string) error {
	ctx = s.in(ctx)
	c, err := s.o.Client()
	if err != nil {
		return err
	}
	name, err := s.heldBy(ctx, c, container)
	if err != nil {
		return err
	}
	if name != "" {
		s.used(ctx, c, name)
	}
	if err := c.LeasesService().Delete(ctx, leaseOf(container)); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// Held returns the containers of this owner that hold images, by id, with the
// image's name.
func (s *Store) Held(ctx context.Context) (map[string]string, error) {
	list, err := s.holds(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, l := range list {
		if l.Labels[labelOwner] == s.o.Owner {
			out[l.Labels[labelContainer]] = l.Labels[labelImage]
		}
	}
	return out, nil
}

// holds are the leases of all containers, whoever's they are.
func (s *Store) holds(ctx context.Context) ([]leases.Lease, error) {
	c, err := s.o.Client()
	if err != nil {
		return nil, err
	}
	return c.LeasesService().List(s.in(ctx), fmt.Sprintf("labels.%q", labelContainer))
}

// absolute refuses a path that depends on where the plugin was started.
func absolute(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("archive %q: want an absolute path", path)
	}
	return nil
}
