package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent"
	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func (p *plugin) Provision(r *isolatorv1.ProvisionRequest, stream isolatorv1.Isolator_ProvisionServer) error {
	p.mu.Lock()
	err, provision, pulled := p.note("provision", r.Container), p.provision, p.pulled
	p.mu.Unlock()
	if err != nil || provision == nil {
		return err
	}
	if pulled != nil {
		defer func() { _ = stream.Send(&isolatorv1.ProvisionProgress{Pulled: pulled}) }()
	}
	return provision(stream.Context(), r, func(text string) error { return stream.Send(&isolatorv1.ProvisionProgress{Message: text}) })
}

func (p *plugin) ListImages(ctx context.Context, r *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.images == nil {
		return p.UnimplementedIsolatorServer.ListImages(ctx, r)
	}
	answer := &isolatorv1.ListImagesResponse{}
	for name, content := range p.images {
		i := &isolatorv1.Image{Name: name, Bytes: uint64(len(content)), Pinned: content == "pinned"}
		if content == "used" {
			i.Containers = 1
		}
		answer.Images = append(answer.Images, i)
	}
	return answer, nil
}

func (p *plugin) ImportImage(stream isolatorv1.Isolator_ImportImageServer) error {
	name, content := "", ""
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.mu.Lock()
			_ = p.note("import broken off", name)
			p.mu.Unlock()
			return err
		}
		if r.GetStart() != nil {
			name = r.GetStart().GetName()
			p.mu.Lock()
			_ = p.note("import", name)
			p.mu.Unlock()
		}
		content += string(r.GetData())
		if content == "garbage" {
			return status.Error(codes.InvalidArgument, "this is no archive")
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[name] = content
	return stream.SendAndClose(&isolatorv1.ImportImageResponse{Images: []*isolatorv1.Image{{Name: name, Bytes: uint64(len(content))}}})
}

func (p *plugin) RemoveImage(_ context.Context, r *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch content, there := p.images[r.Name]; {
	case !there:
		return nil, status.Error(codes.NotFound, "no such image")
	case content == "wanted":
		return nil, status.Error(codes.FailedPrecondition, "containers use it")
	case content == "stuck":
		return nil, status.Error(codes.Unavailable, "the disk is away")
	}
	delete(p.images, r.Name)
	return &isolatorv1.RemoveImageResponse{}, nil
}

func withImage(id, image string) *mezzov1.TaskInfo {
	t := task(id)
	t.Container = &mezzov1.ContainerInfo{
		Type:  mezzov1.ContainerInfo_MESOS.Enum(),
		Mesos: &mezzov1.ContainerInfo_MesosInfo{Image: &mezzov1.Image{Type: mezzov1.Image_DOCKER.Enum(), Docker: &mezzov1.Image_Docker{Name: proto.String(image)}}},
	}
	return t
}

// pair is two isolators: one for the host's processes, one that has images.
func pair(t *testing.T) (host, oci *isolator) {
	host, oci = newIsolator(t, newKernel()), newIsolator(t, newKernel())
	host.name, oci.name = "host", "oci"
	host.kernel.claim = func(task *isolatorv1.Task) *isolatorv1.ClaimResponse {
		if task.GetImage() != nil {
			return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: "it has no images"}
		}
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_LAUNCH}
	}
	oci.kernel.images = map[string]string{}
	return host.up(), oci.up()
}

// The first isolator that launches is the default; an image goes to one that has
// images, wherever it stands.
func TestTaskDecidesWhoLaunches(t *testing.T) {
	for _, c := range []struct {
		name, plain string
		order       func(host, oci agent.Isolator) []agent.Isolator
	}{
		{"host first", "host", func(host, oci agent.Isolator) []agent.Isolator { return []agent.Isolator{host, oci} }},
		{"images first", "oci", func(host, oci agent.Isolator) []agent.Isolator { return []agent.Isolator{oci, host} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMaster(t)
			host, oci := pair(t)
			o := options(t, m, host)
			o.Isolators = c.order(host, oci)
			start(t, o)
			m.registered()
			m.ready()
			kernels := map[string]*kernel{"host": host.kernel, "oci": oci.kernel}
			m.run(task("plain"))
			id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
			if kernels[c.plain].get(id) == nil {
				t.Errorf("a task without an image was not launched by %s", c.plain)
			}
			m.run(withImage("imaged", "busybox"))
			id = m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
			if oci.kernel.get(id) == nil {
				t.Error("a task with an image was not launched by the isolator that has images")
			}
		})
	}
}

func TestImageWithoutAnIsolatorForIt(t *testing.T) {
	m := newMaster(t)
	host, _ := pair(t)
	start(t, options(t, m, host))
	m.registered()
	m.ready()
	m.run(withImage("t1", "busybox"))
	s := m.update(mezzov1.TaskState_TASK_FAILED)
	if s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(s.GetMessage(), "host: it has no images") {
		t.Errorf("status %v", s)
	}
	// What no isolator could honour is wrong with the task itself.
	wrong := task("t2")
	wrong.Container = &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_DOCKER.Enum(), Docker: &mezzov1.ContainerInfo_DockerInfo{
		Image: proto.String("busybox"), Parameters: []*mezzov1.Parameter{{Key: proto.String("link"), Value: proto.String("db")}},
	}}
	m.run(wrong)
	s = m.update(mezzov1.TaskState_TASK_ERROR)
	if s.GetReason() != mezzov1.TaskStatus_REASON_TASK_INVALID || !strings.Contains(s.GetMessage(), `docker parameter "link"`) {
		t.Errorf("status %v", s)
	}
}

// imageAgent is an agent with one isolator, which has images.
func imageAgent(t *testing.T, change func(*agent.Options)) (*master, *isolator, *process) {
	m := newMaster(t)
	_, oci := pair(t)
	o := options(t, m, oci)
	if change != nil {
		change(&o)
	}
	p := start(t, o)
	m.registered()
	m.ready()
	return m, oci, p
}

func TestImageIsProvisioned(t *testing.T) {
	m, oci, p := imageAgent(t, nil)
	told := make(chan struct{})
	oci.kernel.pulled = &isolatorv1.Pulled{Bytes: 1000, DurationMs: 2500}
	oci.kernel.provision = func(_ context.Context, r *isolatorv1.ProvisionRequest, tell func(string) error) error {
		if r.GetTask().GetImage().GetReference() != "busybox" {
			return status.Errorf(codes.InvalidArgument, "image %v", r.GetTask().GetImage())
		}
		err := tell("pulling layer 1 of 2")
		<-told // the framework knows
		return err
	}
	oci.kernel.created = &isolatorv1.CreateResponse{
		Netns: "/proc/self/ns/net", CgroupInfo: &mezzov1.CgroupInfo{NetCls: &mezzov1.CgroupInfo_NetCls{Classid: proto.Uint32(7)}},
		Networks: []*mezzov1.NetworkInfo{{Name: proto.String("blue"), IpAddresses: []*mezzov1.NetworkInfo_IPAddress{{IpAddress: proto.String("10.9.0.2")}}}},
	}
	m.run(withImage("t1", "busybox"))
	if s := m.update(mezzov1.TaskState_TASK_STARTING); s.GetMessage() != "pulling layer 1 of 2" {
		t.Errorf("status %v", s)
	}
	close(told)
	s := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus()
	if n := s.GetNetworkInfos(); len(n) != 1 || n[0].GetName() != "blue" || n[0].GetIpAddresses()[0].GetIpAddress() != "10.9.0.2" {
		t.Errorf("networks %v", n)
	}
	if s.GetExecutorPid() != 4711 || s.GetCgroupInfo().GetNetCls().GetClassid() != 7 {
		t.Errorf("container status %v", s)
	}
	got := p.numbers(t)
	for name, want := range map[string]float64{
		"mezzo_agent_image_pulls_total isolator=oci outcome=succeeded": 1, "mezzo_agent_image_pulled_bytes_total isolator=oci": 1000,
		"mezzo_agent_image_pull_seconds isolator=oci": 2.5,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	var spec specs.Spec
	box := oci.kernel.get(s.GetContainerId().GetValue())
	if err := json.Unmarshal(box.spec, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.Root != nil || spec.Process.Cwd != "/mnt/mesos/sandbox" || len(spec.Mounts) != 1 || spec.Mounts[0].Source != box.sandbox {
		t.Errorf("spec %s", box.spec)
	}
	for _, v := range spec.Process.Env {
		if name, value, _ := strings.Cut(v, "="); slices.Contains([]string{"PATH", "HOME", "LANG"}, name) || name == "MESOS_SANDBOX" && value != "/mnt/mesos/sandbox" {
			t.Errorf("the environment has %s, which is the host's", v)
		}
	}
}

// A pull may take longer than any call, while it gets further, and no longer than
// the bound when it does not.
func TestImageThatStalls(t *testing.T) {
	m, oci, p := imageAgent(t, func(o *agent.Options) { o.ProvisionStall = 200 * time.Millisecond })
	given := make(chan struct{})
	oci.kernel.provision = func(ctx context.Context, _ *isolatorv1.ProvisionRequest, _ func(string) error) error {
		<-ctx.Done()
		close(given)
		return ctx.Err()
	}
	m.run(withImage("t1", "busybox"))
	s := m.update(mezzov1.TaskState_TASK_FAILED)
	if s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(s.GetMessage(), "nothing was heard of the image") {
		t.Errorf("status %v", s)
	}
	if n := p.numbers(t)["mezzo_agent_image_pulls_total isolator=oci outcome=failed"]; n != 1 {
		t.Errorf("%v pulls failed, want 1", n)
	}
	<-given
	oci.kernel.await(t, "cleanup", oci.kernel.called("cleanup"))
}

func TestImageKilledWhileItIsPulled(t *testing.T) {
	m, oci, _ := imageAgent(t, nil)
	begun, given := make(chan struct{}), make(chan struct{})
	oci.kernel.provision = func(ctx context.Context, _ *isolatorv1.ProvisionRequest, _ func(string) error) error {
		close(begun)
		<-ctx.Done()
		close(given)
		return ctx.Err()
	}
	m.run(withImage("t1", "busybox"))
	<-begun
	m.kill("t1", time.Second)
	if s := m.update(mezzov1.TaskState_TASK_KILLED); s.GetReason() != mezzov1.TaskStatus_REASON_TASK_KILLED_DURING_LAUNCH {
		t.Errorf("status %v", s)
	}
	<-given
	oci.kernel.await(t, "cleanup", oci.kernel.called("cleanup"))
	oci.kernel.mu.Lock()
	defer oci.kernel.mu.Unlock()
	if oci.kernel.called("create")(oci.kernel) {
		t.Error("the container was made all the same")
	}
}

// An image may be an archive, which the agent fetches.
func TestImageOfAnArchive(t *testing.T) {
	content := make(chan string, 1)
	m, oci, p := imageAgent(t, func(o *agent.Options) {
		f, err := fetcher.New(fetcher.Options{MaxBytes: 1 << 20, Stall: patience})
		if err != nil {
			t.Fatal(err)
		}
		o.Fetcher = f
	})
	archive := filepath.Join(t.TempDir(), "web.tar")
	if err := os.WriteFile(archive, []byte("an archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	oci.kernel.provision = func(_ context.Context, r *isolatorv1.ProvisionRequest, _ func(string) error) error {
		text, err := os.ReadFile(r.GetArchive())
		content <- string(text)
		return err
	}
	m.run(withImage("t1", "file://"+archive))
	m.update(mezzov1.TaskState_TASK_RUNNING)
	if got := <-content; got != "an archive" {
		t.Errorf("the isolator was given %q", got)
	}
	left, err := os.ReadDir(filepath.Join(p.options.DataDir, "archives"))
	if err != nil || len(left) != 0 {
		t.Errorf("archives are left: %v, %v", left, err)
	}
}

func TestImagesOfAnAgent(t *testing.T) {
	_, oci, p := imageAgent(t, func(o *agent.Options) {
		host, _ := pair(t)
		o.Isolators = append([]agent.Isolator{host}, o.Isolators...)
	})
	c, ctx := operatorClient(t, p), within(t)
	send := func(parts ...string) (*operatorv1.ImportImageResponse, error) {
		stream, err := c.ImportImage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&operatorv1.ImportImageRequest{Start: &operatorv1.ImportImageStart{Name: "web:1"}}); err != nil {
			t.Fatal(err)
		}
		for _, part := range parts {
			if stream.Send(&operatorv1.ImportImageRequest{Data: []byte(part)}) != nil {
				break
			}
		}
		return stream.CloseAndRecv()
	}
	if got, err := send("one", "two"); err != nil || len(got.GetImages()) != 1 || got.GetImages()[0].GetIsolator() != "oci" || got.GetImages()[0].GetAgentId() != "A1" {
		t.Errorf("imported: %v, %v", got, err)
	}
	if _, err := send("garbage", "more"); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "isolator oci: this is no archive") {
		t.Errorf("of garbage: %v", err)
	}
	if got, err := c.ListImages(ctx, &operatorv1.ListImagesRequest{}); err != nil || len(got.GetImages()) != 1 || got.GetImages()[0].GetBytes() != 6 {
		t.Errorf("list: %v, %v", got, err)
	}
	if _, err := c.ListImages(ctx, &operatorv1.ListImagesRequest{Isolator: "host"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("list of an isolator without images: %v", err)
	}
	if _, err := c.RemoveImage(ctx, &operatorv1.RemoveImageRequest{Name: "web:2"}); status.Code(err) != codes.NotFound {
		t.Errorf("remove of what is not there: %v", err)
	}
	if _, err := c.RemoveImage(ctx, &operatorv1.RemoveImageRequest{Name: "web:1"}); err != nil {
		t.Error(err)
	}
	broken, cancel := context.WithCancel(ctx)
	stream, err := c.ImportImage(broken)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&operatorv1.ImportImageRequest{Start: &operatorv1.ImportImageStart{Name: "half"}}); err != nil {
		t.Fatal(err)
	}
	oci.kernel.await(t, "the import", oci.kernel.called("import half"))
	cancel()
	oci.kernel.await(t, "the end of the import", oci.kernel.called("import broken off half"))
	if got, err := c.ListImages(ctx, &operatorv1.ListImagesRequest{}); err != nil || len(got.GetImages()) != 0 {
		t.Errorf("after all: %v, %v", got, err)
	}
}

// An archive of a web server is fetched once for all, unless a task wants what is
// there now.
func TestImageOfAnArchiveIsCached(t *testing.T) {
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			asked.Add(1)
		}
		_, _ = io.WriteString(w, "an archive")
	}))
	t.Cleanup(web.Close)
	m, oci, _ := imageAgent(t, func(o *agent.Options) {
		f, err := fetcher.New(fetcher.Options{CacheDir: t.TempDir(), CacheBytes: 1 << 20, MaxBytes: 1 << 20, Stall: patience})
		if err != nil {
			t.Fatal(err)
		}
		o.Fetcher = f
	})
	contents := make(chan string, 1)
	oci.kernel.provision = func(_ context.Context, r *isolatorv1.ProvisionRequest, _ func(string) error) error {
		text, err := os.ReadFile(r.GetArchive())
		contents <- string(text)
		return err
	}
	for i, want := range []int32{1, 1, 2} {
		task := withImage(fmt.Sprint("t", i), web.URL+"/web.tar")
		if i == 2 {
			task.Container.PullPolicy = mezzov1.ContainerInfo_PULL_ALWAYS.Enum()
		}
		m.run(task)
		m.update(mezzov1.TaskState_TASK_RUNNING)
		if got := <-contents; got != "an archive" {
			t.Errorf("task %d was given %q", i, got)
		}
		if n := asked.Load(); n != want {
			t.Errorf("after task %d the server was asked %d times, want %d", i, n, want)
		}
	}
}

// An archive that is not there fails its task, and nothing else.
func TestImageOfAnArchiveThatIsNotThere(t *testing.T) {
	m, _, _ := imageAgent(t, func(o *agent.Options) {
		f, err := fetcher.New(fetcher.Options{MaxBytes: 1 << 20, Stall: patience})
		if err != nil {
			t.Fatal(err)
		}
		o.Fetcher = f
	})
	m.run(withImage("t1", "file:///no/such/archive.tar"))
	if s := m.update(mezzov1.TaskState_TASK_FAILED); s.GetReason() != mezzov1.TaskStatus_REASON_CONTAINER_LAUNCH_FAILED || !strings.Contains(s.GetMessage(), "/no/such/archive.tar") {
		t.Errorf("status %v", s)
	}
	m.run(withImage("t2", "busybox"))
	m.update(mezzov1.TaskState_TASK_RUNNING)
}

// What nobody uses, has pinned or wants to be kept is removed, and nothing else.
func TestImagesArePruned(t *testing.T) {
	_, oci, p := imageAgent(t, nil)
	c, ctx := operatorClient(t, p), within(t)
	kept := map[string]string{
		"docker.io/library/busybox:latest": "x", "docker.io/team/app:1": "x", "reg.example/app:2": "x",
		"reg.example/used:1": "used", "reg.example/pinned:1": "pinned", "reg.example/wanted:1": "wanted",
	}
	oci.kernel.mu.Lock()
	oci.kernel.images = maps.Clone(kept)
	oci.kernel.images["docker.io/library/nginx:latest"], oci.kernel.images["reg.example/app:20"] = "x", "x"
	oci.kernel.mu.Unlock()
	excluded := []string{"busybox", "team/app:1", "reg.example/app:2"}
	got, err := c.PruneImages(ctx, &operatorv1.PruneImagesRequest{Excluded: excluded})
	if err != nil || len(got.GetImages()) != 2 {
		t.Errorf("removed: %v, %v", got, err)
	}
	oci.kernel.mu.Lock()
	if diff := cmp.Diff(kept, oci.kernel.images); diff != "" {
		t.Errorf("-kept +there:\n%s", diff)
	}
	oci.kernel.images["reg.example/free:1"], oci.kernel.images["reg.example/stuck:1"] = "x", "stuck"
	oci.kernel.mu.Unlock()
	_, err = c.PruneImages(ctx, &operatorv1.PruneImagesRequest{Excluded: excluded})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "1 images were removed, not all: isolator oci: the disk is away") {
		t.Errorf("where one cannot be removed: %v", err)
	}
}

// The containers of a group have images of their own and one network, which is
// their root's.
func TestGroupOfImages(t *testing.T) {
	m, oci, _ := imageAgent(t, nil)
	oci.kernel.created = &isolatorv1.CreateResponse{
		Netns: "/proc/self/ns/net", Networks: []*mezzov1.NetworkInfo{{Name: proto.String("blue"), IpAddresses: []*mezzov1.NetworkInfo_IPAddress{{IpAddress: proto.String("10.9.0.2")}}}},
	}
	executor := &mezzov1.ExecutorInfo{
		Type: mezzov1.ExecutorInfo_DEFAULT.Enum(), ExecutorId: &mezzov1.ExecutorID{Value: proto.String("pod")},
		Resources: resource.MustParse("cpus:0.1;mem:32;disk:32").ToProto(),
		Container: &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum(), NetworkInfos: []*mezzov1.NetworkInfo{{Name: proto.String("blue")}}},
	}
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Run{Run: &linkv1.Run{
		Framework: &mezzov1.FrameworkInfo{User: proto.String(me()), Name: proto.String("f"), Id: &mezzov1.FrameworkID{Value: proto.String("F1")}},
		Executor:  executor, Group: true, Tasks: []*mezzov1.TaskInfo{withImage("web", "nginx"), withImage("side", "busybox")},
	}}})
	seen := map[string]string{}
	for range 2 {
		s := m.update(mezzov1.TaskState_TASK_RUNNING)
		status := s.GetContainerStatus()
		if n := status.GetNetworkInfos(); len(n) != 1 || n[0].GetIpAddresses()[0].GetIpAddress() != "10.9.0.2" {
			t.Errorf("%s is in %v", s.GetTaskId().GetValue(), n)
		}
		box, root := oci.kernel.get(status.GetContainerId().GetValue()), oci.kernel.get(status.GetContainerId().GetParent().GetValue())
		if box == nil || root == nil {
			t.Fatalf("container %v", status.GetContainerId())
		}
		seen[s.GetTaskId().GetValue()] = box.task.GetImage().GetReference()
		if box.task.GetNetwork().GetMode() != isolatorv1.Network_MODE_PARENT || root.task.GetNetwork().GetMode() != isolatorv1.Network_MODE_NAMED || root.task.GetImage() != nil {
			t.Errorf("networks %v and %v", box.task.GetNetwork(), root.task.GetNetwork())
		}
	}
	if seen["web"] != "nginx" || seen["side"] != "busybox" {
		t.Errorf("images %v", seen)
	}
}

// What a framework of Mesos sends for Docker is what isolators are told in the
// one form that there is.
func TestDockerContainer(t *testing.T) {
	m, oci, _ := imageAgent(t, nil)
	docker := task("t1")
	docker.Command = &mezzov1.CommandInfo{Shell: proto.Bool(false), Arguments: []string{"-v"}, Environment: docker.Command.Environment}
	docker.Container = &mezzov1.ContainerInfo{
		Type: mezzov1.ContainerInfo_DOCKER.Enum(),
		Docker: &mezzov1.ContainerInfo_DockerInfo{
			Image: proto.String("nginx:1.25"), Network: mezzov1.ContainerInfo_DockerInfo_BRIDGE.Enum(), Privileged: proto.Bool(true), ForcePullImage: proto.Bool(true),
			PortMappings: []*mezzov1.ContainerInfo_DockerInfo_PortMapping{{HostPort: proto.Uint32(31001), ContainerPort: proto.Uint32(80)}},
			Parameters: []*mezzov1.Parameter{
				{Key: proto.String("env"), Value: proto.String("COLOUR=red")}, {Key: proto.String("env"), Value: proto.String("GREETING=lost")},
				{Key: proto.String("hostname"), Value: proto.String("web")}, {Key: proto.String("cap-drop"), Value: proto.String("ALL")},
			},
		},
	}
	m.run(docker)
	box := oci.kernel.get(m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue())
	var spec specs.Spec
	if err := json.Unmarshal(box.spec, &spec); err != nil {
		t.Fatal(err)
	}
	x := box.task
	if x.GetImage().GetReference() != "nginx:1.25" || x.GetImage().GetPull() != isolatorv1.TaskImage_PULL_ALWAYS || !x.GetEntrypoint() || x.GetOwnUser() {
		t.Errorf("image %v, entrypoint %v, own user %v", x.GetImage(), x.GetEntrypoint(), x.GetOwnUser())
	}
	if !x.GetOptions().GetPrivileged() || !slices.Equal(x.GetOptions().GetCapDrop(), []string{"ALL"}) || spec.Hostname != "web" {
		t.Errorf("options %v, hostname %q", x.GetOptions(), spec.Hostname)
	}
	if n := x.GetNetwork(); n.GetMode() != isolatorv1.Network_MODE_BRIDGE || n.GetNetworks()[0].GetPortMappings()[0].GetHostPort() != 31001 {
		t.Errorf("network %v", n)
	}
	if !slices.Equal(spec.Process.Args, []string{"-v"}) || !slices.Contains(spec.Process.Env, "COLOUR=red") || !slices.Contains(spec.Process.Env, "GREETING=hello") {
		t.Errorf("process %v", spec.Process)
	}
}
