package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// describeGPUs writes a CDI specification as NVIDIA's tools do: GPUs by number,
// one name for all, and what every container with a GPU needs, among it a hook,
// which here leaves a file.
func describeGPUs(t *testing.T, names ...string) (dir, hooked string) {
	t.Helper()
	dir = t.TempDir()
	hooked = filepath.Join(dir, "hooked")
	s := cdi.Spec{Version: "0.6.0", Kind: nvidiaGPU, ContainerEdits: cdi.ContainerEdits{
		Env:   []string{"NVIDIA_VISIBLE_DEVICES=void"},
		Hooks: []*cdi.Hook{{HookName: "createContainer", Path: "/bin/touch", Args: []string{"touch", hooked}}},
	}}
	for _, name := range names {
		s.Devices = append(s.Devices, cdi.Device{Name: name, ContainerEdits: cdi.ContainerEdits{
			Env: []string{"GPU_" + name + "=yes"}, DeviceNodes: []*cdi.DeviceNode{{Path: "/dev/gpu" + name, HostPath: "/dev/null"}},
		}})
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "nvidia.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, hooked
}

// withGPUs is a container that prints its GPUs and stays.
func (n *node) withGPUs(id string, gpus float64) *box {
	b := n.shell(id, `echo gpus $(ls /dev | grep gpu) $NVIDIA_VISIBLE_DEVICES $(env | grep ^GPU_ | sort); while :; do sleep 0.05; done`)
	if gpus > 0 {
		b.task.Resources = append(b.task.Resources, scalar("gpus", gpus))
	}
	return b
}

// TestGPUs: a task has so many GPUs as it asks for, which nobody else has until
// it is cleaned up, also across a restart of the plugin.
func TestGPUs(t *testing.T) {
	t.Parallel()
	dir, hooked := describeGPUs(t, "10", "2", "all", "GPU-0f")
	n := withImage(t, map[string]any{"cdi_dirs": []string{dir}})
	n.run(n.withGPUs("none", 0))
	n.output("none", "gpus")
	if _, err := os.Stat(hooked); err == nil {
		t.Error("a container without a GPU was given what belongs to one")
	}
	n.run(n.withGPUs("first", 1))
	n.output("first", "gpus gpu2 void GPU_2=yes")
	if _, err := os.Stat(hooked); err != nil {
		t.Errorf("the hook has not run: %v", err)
	}
	n.restart()
	n.recover("none", "first")
	n.run(n.withGPUs("second", 1))
	n.output("second", "gpus gpu10 void GPU_10=yes")
	if _, err := n.create(n.withGPUs("third", 1)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "1 GPUs are asked for, and 0 of 2 are free") {
		t.Errorf("a third: %v", err)
	}
	for _, id := range []string{"first", "second"} {
		if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: id, Signal: 9}); err != nil {
			t.Fatal(err)
		}
		n.wait(id)
		if _, err := n.Cleanup(n.ctx(), &isolatorv1.CleanupRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
	}
	n.run(n.withGPUs("both", 2))
	n.output("both", "gpus gpu10 gpu2 void GPU_10=yes GPU_2=yes")
	for asked, want := range map[float64]string{3: "isolator containerd knows 2 on this host", 0.5: "whole GPUs"} {
		r, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "x", Task: n.withGPUs("x", asked).task})
		if err != nil || r.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(r.GetReason(), want) {
			t.Errorf("%g GPUs: %v, %v", asked, r, err)
		}
	}
}

// unusualDevice is one that can be opened and that containers have not by themselves.
func unusualDevice(t *testing.T) string {
	t.Helper()
	for _, path := range []string{"/dev/fuse", "/dev/loop-control", "/dev/ram0"} {
		if f, err := os.Open(path); err == nil {
			f.Close()
			return path
		}
	}
	t.Skip("this machine has no device to try")
	return ""
}

// group makes a task group's root container.
func (n *node) group(id string) {
	n.t.Helper()
	root := &box{id: id, task: &isolatorv1.Task{ExecutorId: "e", SandboxOnly: true, Resources: []*v1.Resource{scalar("mem", 64), scalar("gpus", 1)}}, spec: n.shell("", "").spec}
	root.spec.Process = nil
	n.run(root)
}

// TestGPUsInGroup: the tasks of a group have theirs by themselves; their root has
// no process to have any.
func TestGPUsInGroup(t *testing.T) {
	t.Parallel()
	dir, _ := describeGPUs(t, "0")
	n := withImage(t, map[string]any{"cdi_dirs": []string{dir}})
	n.group("root")
	with, without := n.withGPUs("with", 1), n.withGPUs("without", 0)
	with.task.Parent, without.task.Parent = "root", "root"
	n.run(with)
	n.run(without)
	n.output("with", "gpus gpu0 void GPU_0=yes")
	n.output("without", "gpus")
}

// TestDeviceInGroup: a task of a group may have a device, and only that.
func TestDeviceInGroup(t *testing.T) {
	t.Parallel()
	device := unusualDevice(t)
	n := withImage(t, map[string]any{"allowed_devices": []string{device}})
	n.group("root")
	b := n.shell("device", `(: < `+device+`) && echo opened; mknod /dev/other c 1 11 && (: < /dev/other) 2>/dev/null || echo refused`)
	b.task.Parent, b.task.Options = "root", &isolatorv1.Options{Devices: []string{device}}
	if got := n.outcome(b); got != "opened\nrefused\n" {
		t.Errorf("%q", got)
	}
}

// TestGPUSettings: the operator may say which GPUs there are; what nothing
// describes is an error with its place.
func TestGPUSettings(t *testing.T) {
	t.Parallel()
	dir, _ := describeGPUs(t, "0", "1")
	n := withImage(t, map[string]any{"cdi_dirs": []string{dir}, "gpu_devices": []string{"nvidia.com/gpu=1"}})
	n.run(n.withGPUs("one", 1))
	n.output("one", "gpus gpu1 void GPU_1=yes")
	var said []string
	for _, d := range (&Config{GPUs: []string{"/dev/nvidia0", "nvidia.com/gpu=0", "nvidia.com/gpu=0"}}).Validate() {
		if strings.HasPrefix(strings.Join(d.Path, "."), "gpu_devices") {
			said = append(said, d.Summary+": "+strings.Join(d.Path, "."))
		}
	}
	if diff := cmp.Diff([]string{"malformed device: gpu_devices.0", "malformed device: gpu_devices.2"}, said); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	n.p.config.GPUs = []string{"nvidia.com/gpu=7"}
	if got := n.p.unknownGPU(); got != "nvidia.com/gpu=7" {
		t.Errorf("unknown GPU %q", got)
	}
	n.p.config.GPUs = nil
}
