// Package network gives containers their networks: the host's, none, a bridge,
// or CNI networks by name, each in a network namespace that outlives the plugin.
//
// What there is of a container is in a directory of its own below the manager's:
// a record, written before anything is made; the namespace, as a mount; and the
// files resolv.conf, hosts and hostname. So Teardown removes everything also in
// a process that has just started, and what a process did not live to finish.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/protojson"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Options are what a Manager needs.
type Options struct {
	// Dir is the manager's own; an absolute path of at most some 60 bytes below
	// which mounts are made.
	Dir    string
	Config Settings
	Logger hclog.Logger
	// LeaseDir is where the bridge's addresses are noted down; "": where CNI's
	// host-local does, for all agents of a host.
	LeaseDir string
}

// Manager makes and removes the networks of containers. Calls for different
// containers may be made at the same time, for one container only one.
type Manager struct {
	o   Options
	cni libcni.CNI

	// first is held by the first to join a network, until it has: CNI's plugins
	// make what containers share (the bridge, chains of the packet filter) where
	// it is not there yet, and fail when two do.
	first chan struct{}

	mu     sync.Mutex
	joined map[string]bool
}

// callPatience is how long the CNI plugins of one network may take.
const callPatience = time.Minute

// New returns a manager; it makes its directory.
func New(o Options) (*Manager, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "containers"), 0o700); err != nil {
		return nil, err
	}
	lines := o.Logger.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug})
	exec := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: lines}, PluginDecoder: version.PluginDecoder{}}
	return &Manager{o: o, joined: map[string]bool{}, first: make(chan struct{}, 1), cni: libcni.NewCNIConfigWithCacheDir(o.Config.BinDirs, filepath.Join(o.Dir, "cache"), exec)}, nil
}

// Request is the network that a container wants.
type Request struct {
	Container string
	Parent    string // whose network it shares with MODE_PARENT
	Network   *isolatorv1.Network
	Options   *isolatorv1.Options // dns…, extra_hosts
	Resources []*v1.Resource      // the task's; host ports must be among its ports
	Hostname  string              // "": made from the container's id
}

// Network is what a container has.
type Network struct {
	// Netns is the path of its namespace; "": the host's.
	Netns string
	// Networks are its addresses, for its status; empty for the host's network.
	Networks []*v1.NetworkInfo
	Hostname string
	// ResolvConf, Hosts and HostnameFile are files for its /etc.
	ResolvConf, Hosts, HostnameFile string
}

// record is what is checkpointed of a container.
type record struct {
	Version     int          `json:"version"`
	Netns       bool         `json:"netns"`
	Hostname    string       `json:"hostname"`
	Attachments []attachment `json:"attachments,omitempty"`
	// Ready: everything has been made, with this result.
	Ready  bool              `json:"ready"`
	Result []json.RawMessage `json:"result,omitempty"` // NetworkInfo
}

// attachment is one network that a container is in.
type attachment struct {
	Network   string          `json:"network"`
	Interface string          `json:"interface"`
	Config    json.RawMessage `json:"config"` // the network's, as it was
	Ports     []portMapping   `json:"ports,omitempty"`
	IPs       []string        `json:"ips,omitempty"`
	Info      json.RawMessage `json:"info"` // the NetworkInfo asked for
}

// portMapping has the form of CNI's convention.
type portMapping struct {
	HostPort      uint32 `json:"hostPort"`
	ContainerPort uint32 `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

func (m *Manager) dir(container string) string {
	return filepath.Join(m.o.Dir, "containers", container)
}
func (m *Manager) netns(container string) string { return filepath.Join(m.dir(container), "netns") }

// validID refuses what would lead out of the manager's directory.
func validID(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("container %q: its id is no file name", id)
	}
	return nil
}

// Setup makes a container's network. What an earlier attempt left is removed
// first; when it fails nothing is left, as far as that can be done: what cannot
// be removed stays on record for Teardown.
func (m *Manager) Setup(ctx context.Context, r Request) (*Network, error) {
	if err := validID(r.Container); err != nil {
		return nil, err
	}
	if r.Network.GetMode() == isolatorv1.Network_MODE_PARENT {
		return m.Get(r.Parent)
	}
	rec, err := m.plan(r)
	if err != nil {
		return nil, err
	}
	if err := m.Teardown(ctx, r.Container); err != nil {
		return nil, fmt.Errorf("what an earlier attempt left: %w", err)
	}
	if err := os.Mkdir(m.dir(r.Container), 0o700); err != nil {
		return nil, err
	}
	if err := m.make(ctx, r, rec); err != nil {
		// The caller's time may be over; what was made is removed all the same.
		if undo := m.Teardown(context.WithoutCancel(ctx), r.Container); undo != nil {
			m.o.Logger.Warn("what a failed launch made of a network stays until it can be removed", "container_id", r.Container, "error", undo)
		}
		return nil, err
	}
	return m.Get(r.Container)
}

// Check says what is wrong with a request, without making anything.
func (m *Manager) Check(r Request) error {
	if r.Network.GetMode() == isolatorv1.Network_MODE_PARENT {
		return nil
	}
	_, err := m.plan(r)
	return err
}

// make carries a plan out.
func (m *Manager) make(ctx context.Context, r Request, rec *record) error {
	if err := m.save(r.Container, rec); err != nil {
		return err
	}
	var dns []types.DNS
	var infos []*v1.NetworkInfo
	if rec.Netns {
		if err := makeNetns(m.netns(r.Container)); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
	}
	for _, a := range rec.Attachments {
		result, err := m.add(ctx, r.Container, a)
		if err != nil {
			return err
		}
		info, err := a.info(result)
		if err != nil {
			return err
		}
		infos, dns = append(infos, info), append(dns, result.DNS)
	}
	if err := m.writeFiles(r, rec, infos, dns); err != nil {
		return err
	}
	for _, i := range infos {
		text, err := protojson.Marshal(i)
		if err != nil {
			return err
		}
		rec.Result = append(rec.Result, text)
	}
	rec.Ready = true
	return m.save(r.Container, rec)
}

// add joins a container to a network.
func (m *Manager) add(ctx context.Context, container string, a attachment) (*types100.Result, error) {
	list, rt, err := m.call(container, a)
	if err != nil {
		return nil, err
	}
	leave, err := m.join(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", a.Network, err)
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	result, err := m.cni.AddNetworkList(ctx, list, rt)
	if err != nil && transient(err) && m.undo(ctx, container, a, list, rt, err) {
		result, err = m.cni.AddNetworkList(ctx, list, rt)
	}
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", a.Network, cause(ctx, err))
	}
	m.mu.Lock()
	m.joined[a.kind()] = true
	m.mu.Unlock()
	out, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("network %q: its plugin's answer: %w", a.Network, err)
	}
	return out, nil
}

// retryPause is how long a network is left alone before it is joined once more;
// up to as long again is added.
const retryPause = 300 * time.Millisecond

// transient is whether an ADD that failed may work the next time: a plugin says
// so, or fails for a reason of its own, as CNI's own do while another holds the
// lock on the packet filter. What is wrong with the network's configuration, or
// with the call, stays wrong.
func transient(err error) bool {
	var failed *types.Error
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.Code {
	case types.ErrUnknown, types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity, types.ErrInternal:
		return true
	}
	return false
}

// undo takes back what a failed ADD has made, as CNI wants it before the next,
// and waits a little; false: there is to be no next.
func (m *Manager) undo(ctx context.Context, container string, a attachment, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf, why error) bool {
	if err := m.cni.DelNetworkList(ctx, list, rt); err != nil {
		return false // Teardown will try again
	}
	m.o.Logger.Info("a network could not be joined, and is tried once more", "container_id", container, "network", a.Network, "error", why)
	select {
	case <-time.After(retryPause + rand.N(retryPause)):
		return true
	case <-ctx.Done():
		return false
	}
}

// kind is what attachments share of what plugins make for them.
func (a attachment) kind() string { return fmt.Sprintf("%s %v", a.Network, len(a.Ports) > 0) }

// join waits until an attachment may be made; what it returns is to be called
// when that has been tried.
func (m *Manager) join(ctx context.Context, a attachment) (func(), error) {
	known := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.joined[a.kind()]
	}
	if known() {
		return func() {}, nil
	}
	select {
	case m.first <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	leave := func() { <-m.first }
	if known() { // by now
		leave()
		return func() {}, nil
	}
	return leave, nil
}

// cause tells a plugin that was too slow from one that failed.
func cause(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("its plugin has not answered for %v", callPatience)
	}
	return err
}

// call is what CNI plugins are told of an attachment, at ADD and DEL alike.
func (m *Manager) call(container string, a attachment) (*libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := libcni.NetworkConfFromBytes(a.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("network %q: %w", a.Network, err)
	}
	for i, p := range list.Plugins {
		// Plugins made for Mesos read the task's wishes and labels here.
		args := map[string]any{"org.apache.mesos": map[string]any{"network_info": a.Info}}
		var own struct{ Args map[string]any }
		if err := json.Unmarshal(p.Bytes, &own); err != nil {
			return nil, nil, fmt.Errorf("network %q: %w", a.Network, err)
		}
		for k, v := range own.Args {
			args[k] = v
		}
		if list.Plugins[i], err = libcni.InjectConf(p, map[string]any{"args": args}); err != nil {
			return nil, nil, fmt.Errorf("network %q: %w", a.Network, err)
		}
	}
	rt := &libcni.RuntimeConf{
		ContainerID: container, NetNS: m.netns(container), IfName: a.Interface,
		Args: [][2]string{{"IgnoreUnknown", "1"}}, CapabilityArgs: map[string]any{},
	}
	if len(a.Ports) > 0 {
		rt.CapabilityArgs["portMappings"] = a.Ports
	}
	if len(a.IPs) > 0 {
		rt.CapabilityArgs["ips"] = a.IPs
	}
	return list, rt, nil
}

// info is what a container's status says of an attachment.
func (a attachment) info(result *types100.Result) (*v1.NetworkInfo, error) {
	out := &v1.NetworkInfo{}
	if err := protojson.Unmarshal(a.Info, out); err != nil {
		return nil, fmt.Errorf("network %q: %w", a.Network, err)
	}
	out.IpAddresses = nil
	for _, ip := range result.IPs {
		protocol := v1.NetworkInfo_IPv4
		if ip.Address.IP.To4() == nil {
			protocol = v1.NetworkInfo_IPv6
		}
		address := ip.Address.IP.String()
		out.IpAddresses = append(out.IpAddresses, &v1.NetworkInfo_IPAddress{Protocol: protocol.Enum(), IpAddress: &address})
	}
	return out, nil
}

// Get returns a container's network, also in a process that has just started.
// The error is fs.ErrNotExist when it has none.
func (m *Manager) Get(container string) (*Network, error) {
	if err := validID(container); err != nil {
		return nil, err
	}
	rec, err := m.load(container)
	if err != nil {
		return nil, err
	}
	if !rec.Ready {
		return nil, fmt.Errorf("container %s: its network was never finished: %w", container, fs.ErrNotExist)
	}
	dir := m.dir(container)
	out := &Network{
		Hostname: rec.Hostname, ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"), HostnameFile: filepath.Join(dir, "hostname"),
	}
	if rec.Netns {
		out.Netns = m.netns(container)
	}
	for _, text := range rec.Result {
		info := &v1.NetworkInfo{}
		if err := protojson.Unmarshal(text, info); err != nil {
			return nil, fmt.Errorf("container %s: the record of its network: %w", container, err)
		}
		out.Networks = append(out.Networks, info)
	}
	return out, nil
}

// Teardown removes a container's network. It succeeds when there is none; after
// an error it can be called again.
func (m *Manager) Teardown(ctx context.Context, container string) error {
	if err := validID(container); err != nil {
		return err
	}
	rec, err := m.load(container)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if rec != nil {
		var failed []error
		for i := len(rec.Attachments) - 1; i >= 0; i-- {
			failed = append(failed, m.del(ctx, container, rec.Attachments[i]))
		}
		if err := errors.Join(failed...); err != nil {
			return err
		}
	}
	if err := removeNetns(m.netns(container)); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	return os.RemoveAll(m.dir(container))
}

func (m *Manager) del(ctx context.Context, container string, a attachment) error {
	list, rt, err := m.call(container, a)
	if err != nil {
		return err
	}
	if !isNetns(rt.NetNS) {
		rt.NetNS = "" // after a host's reboot; plugins give back what they hold outside it
	}
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	if err := m.cni.DelNetworkList(ctx, list, rt); err != nil {
		return fmt.Errorf("leave network %q: %w", a.Network, cause(ctx, err))
	}
	return nil
}

// Containers are those that something is kept of, finished or not.
func (m *Manager) Containers() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(m.o.Dir, "containers"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

const recordVersion = 1

func (m *Manager) load(container string) (*record, error) {
	text, err := os.ReadFile(filepath.Join(m.dir(container), "record.json"))
	if err != nil {
		return nil, err
	}
	if len(text) == 0 { // the host lost power; one with attachments would be whole
		return &record{}, nil
	}
	rec := &record{}
	if err := json.Unmarshal(text, rec); err != nil {
		return nil, fmt.Errorf("container %s: the record of its network in %s: %w", container, m.dir(container), err)
	}
	if rec.Version != recordVersion {
		return nil, fmt.Errorf("container %s: the record of its network is of version %d, and this plugin reads %d: use the plugin that wrote it", container, rec.Version, recordVersion)
	}
	return rec, nil
}

// save writes the record whole or not at all.
func (m *Manager) save(container string, rec *record) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	// What CNI plugins hold outlives the host's loss of power, and so must the
	// record of it; nothing else does.
	return replace(filepath.Join(m.dir(container), "record.json"), text, len(rec.Attachments) > 0)
}

// replace writes a file whole or not at all.
func replace(path string, content []byte, durable bool) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if durable {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
