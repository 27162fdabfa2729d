package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const printProcessors = `while :; do grep Cpus_allowed_list /proc/self/status | tr -d '\t' >now.new; mv now.new now; sleep 0.02; done`

// runsOn waits until a container runs on certain processors.
func (n *node) runsOn(id, list string) {
	n.t.Helper()
	n.eventually(id+" to run on "+list, func() bool {
		text, err := os.ReadFile(filepath.Join(n.sandbox(id), "now"))
		return err == nil && strings.TrimSpace(string(text)) == "Cpus_allowed_list:"+list
	})
}

// end kills a container and cleans it up.
func (n *node) end(ids ...string) {
	n.t.Helper()
	for _, id := range ids {
		if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: id, Signal: int32(unix.SIGKILL)}); err != nil {
			n.t.Fatal(err)
		}
		n.wait(id)
		n.cleanup(id)
	}
}

// TestExclusiveCPUs: whole processors are a task's own, across a crash of the
// plugin, until it is cleaned up; one is always left to share.
func TestExclusiveCPUs(t *testing.T) {
	n := prepareNode(t, map[string]any{"controllers": []string{"cpu", "memory", "pids", "cpuset"}, "exclusive_cpus": true, "cpus": "0-1"})
	if os.Geteuid() != 0 {
		lacking(t, "root", "processors are given by root alone here")
	}
	n.serveProcess(os.Geteuid())
	run := func(id string, cpus float64) {
		t.Helper()
		b := n.shell(id, printProcessors)
		b.task.Resources = []*v1.Resource{scalar("cpus", cpus), scalar("mem", 64)}
		n.run(b)
	}
	run("shares", 0.5)
	n.runsOn("shares", "0-1")
	run("whole", 1)
	n.runsOn("whole", "1")
	n.runsOn("shares", "0")
	run("late", 1) // the last is shared
	n.runsOn("late", "0")
	if _, err := n.Update(n.ctx(), &isolatorv1.UpdateRequest{Container: "shares", Task: &isolatorv1.Task{
		TaskId: "shares", Resources: []*v1.Resource{scalar("cpus", 0.7), scalar("mem", 64)},
	}}); err != nil {
		t.Fatal(err)
	}
	n.runsOn("shares", "0")
	n.crash()
	n.serveProcess(os.Geteuid())
	n.recover("shares", "whole", "late")
	run("later", 0.5)
	n.runsOn("later", "0")
	n.runsOn("whole", "1")
	n.end("whole")
	n.runsOn("shares", "0-1")
	n.runsOn("late", "0-1")
	n.end("shares", "late", "later")
}

// twoDevices are any that can be opened and that no task may use unasked.
func twoDevices(t *testing.T) (list []string) {
	t.Helper()
	for _, path := range []string{"/dev/kmsg", "/dev/fuse", "/dev/loop-control", "/dev/btrfs-control", "/dev/vhost-net"} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		f.Close()
		if list = append(list, path); len(list) == 2 {
			return list
		}
	}
	lacking(t, "devices", "only %v can be opened", list)
	return nil
}

// TestGPUs: a task is given GPUs by number, and cannot open another's.
func TestGPUs(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "root", "limits on devices are for root alone")
	}
	gpus := twoDevices(t)
	n := prepareNode(t, map[string]any{"controllers": []string{"cpu", "memory", "pids", "devices"}, "gpu_devices": gpus})
	n.serveProcess(0)
	script := `for d in ` + strings.Join(gpus, " ") + `; do (: < $d) 2>/dev/null && printf y || printf n; done; echo " $NVIDIA_VISIBLE_DEVICES"; while :; do sleep 0.1; done`
	box := func(id string, gpus float64) *box {
		b := n.shell(id, script)
		b.task.Resources = []*v1.Resource{scalar("cpus", 1), scalar("mem", 64)}
		if gpus > 0 {
			b.task.Resources = append(b.task.Resources, scalar("gpus", gpus))
		}
		return b
	}
	n.run(box("none", 0))
	n.awaitOutput("none", "nn ")
	n.run(box("first", 1))
	n.awaitOutput("first", "yn 0")
	n.crash()
	n.serveProcess(0)
	n.recover("none", "first")
	n.run(box("second", 1))
	n.awaitOutput("second", "ny 1")
	if _, err := n.create(box("third", 1)); err == nil || !strings.Contains(err.Error(), "1 GPUs are asked for, and 0 of 2 are free") {
		t.Errorf("a third: %v", err)
	}
	n.end("first")
	n.run(box("fourth", 1))
	n.awaitOutput("fourth", "yn 0")
	for asked, want := range map[float64]string{3: "knows 2 on this host", 0.5: "whole GPUs"} {
		r, err := n.Claim(n.ctx(), &isolatorv1.ClaimRequest{Container: "x", Task: box("x", asked).task})
		if err != nil || r.GetClaim() != isolatorv1.ClaimResponse_CLAIM_NONE || !strings.Contains(r.GetReason(), want) {
			t.Errorf("%g GPUs: %v, %v", asked, r, err)
		}
	}
	n.end("none", "second", "fourth")
}

// TestGPUsInGroup: the tasks of a group have theirs by themselves.
func TestGPUsInGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		lacking(t, "root", "limits on devices are for root alone")
	}
	path := twoDevices(t)[0]
	n := withControllers(t, map[string]any{"gpu_devices": []string{path}}, "devices")
	root := n.shell("root", "")
	root.spec.Process, root.task.SandboxOnly, root.task.TaskId = nil, true, ""
	n.run(root)
	for id, gpus := range map[string]float64{"with": 1, "without": 0} {
		b := n.shell(id, `(: < `+path+`) 2>/dev/null && echo "can $NVIDIA_VISIBLE_DEVICES" || echo cannot; while :; do sleep 0.1; done`)
		b.task.Parent, b.task.ShareCgroups = "root", true
		if gpus > 0 {
			b.task.Resources = append(b.task.Resources, scalar("gpus", gpus))
		}
		n.run(b)
	}
	n.awaitOutput("with", "can 0")
	n.awaitOutput("without", "cannot")
	n.end("with", "without", "root")
}
