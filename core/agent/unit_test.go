package agent

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		command *mezzov1.CommandInfo
		want    []string
	}{
		{&mezzov1.CommandInfo{Value: proto.String("echo a b")}, []string{"/bin/sh", "-c", "echo a b"}},
		{&mezzov1.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/bin/true")}, []string{"/bin/true"}},
		{&mezzov1.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/bin/echo"), Arguments: []string{"echo", "a b"}}, []string{"/bin/echo", "a b"}},
		{&mezzov1.CommandInfo{Shell: proto.Bool(false), Arguments: []string{"serve"}}, []string{"serve"}},
	} {
		if diff := cmp.Diff(c.want, arguments(c.command)); diff != "" {
			t.Errorf("%v: %s", c.command, diff)
		}
	}
}

func TestResourceLimits(t *testing.T) {
	limits := func(text string, list ...*isolatorv1.Limit) *isolatorv1.Task {
		return &isolatorv1.Task{Resources: resource.MustParse(text).ToProto(), Limits: list}
	}
	r := resourceLimits(limits("cpus:0.001;mem:32"))
	if *r.CPU.Shares != 2 || r.CPU.Quota != nil || *r.Memory.Limit != 32<<20 || r.Memory.Reservation != nil {
		t.Errorf("cpu %+v memory %+v", r.CPU, r.Memory)
	}
	r = resourceLimits(limits("cpus:2;mem:32;pids:50", &isolatorv1.Limit{Name: "cpus", Thousandths: 2500}, &isolatorv1.Limit{Name: "mem", Thousandths: 64_000}))
	if *r.CPU.Shares != 2048 || *r.CPU.Quota != 250_000 || *r.CPU.Period != 100_000 {
		t.Errorf("cpu %+v", r.CPU)
	}
	if *r.Memory.Limit != 64<<20 || *r.Memory.Reservation != 32<<20 || *r.Pids.Limit != 50 {
		t.Errorf("memory %+v pids %+v", r.Memory, r.Pids)
	}
	r = resourceLimits(limits("cpus:1;mem:32", &isolatorv1.Limit{Name: "cpus", Thousandths: -1}, &isolatorv1.Limit{Name: "mem", Thousandths: -1}))
	if r.CPU.Quota != nil || *r.Memory.Limit != -1 {
		t.Errorf("without limits: cpu %+v memory %+v", r.CPU, r.Memory)
	}
}

func TestResourceLimitTypes(t *testing.T) {
	kind := func(t mezzov1.RLimitInfo_RLimit_Type, hard, soft *uint64) *mezzov1.RLimitInfo {
		return &mezzov1.RLimitInfo{Rlimits: []*mezzov1.RLimitInfo_RLimit{{Type: t.Enum(), Hard: hard, Soft: soft}}}
	}
	list, err := rlimits(kind(mezzov1.RLimitInfo_RLimit_RLMT_NOFILE, proto.Uint64(20), proto.Uint64(10)))
	if err != nil || list[0].Type != "RLIMIT_NOFILE" || list[0].Hard != 20 || list[0].Soft != 10 {
		t.Errorf("%+v, %v", list, err)
	}
	if list, err = rlimits(kind(mezzov1.RLimitInfo_RLimit_RLMT_CORE, nil, nil)); err != nil || list[0].Hard != math.MaxUint64 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := rlimits(kind(mezzov1.RLimitInfo_RLimit_RLMT_CORE, proto.Uint64(1), nil)); err == nil {
		t.Error("only one of hard and soft is no error")
	}
	if _, err := rlimits(kind(mezzov1.RLimitInfo_RLimit_UNKNOWN, nil, nil)); err == nil {
		t.Error("an unknown limit is no error")
	}
}

func TestDetect(t *testing.T) {
	r, err := detect(filepath.Join(t.TempDir(), "not", "made", "yet"))
	if err != nil {
		t.Fatal(err)
	}
	q := r.Quantities()
	for _, name := range []string{"cpus", "mem", "disk"} {
		if q.Get(name) <= 0 {
			t.Errorf("%s: %v in %v", name, q.Get(name), r)
		}
	}
	if !strings.Contains(r.String(), "ports:[31000-32000]") {
		t.Errorf("ports: %v", r)
	}
}

// TestNestedSandboxStaysInItsParent: a task owns its sandbox and may put a link
// where the next container of its group is to get its own.
func TestNestedSandboxStaysInItsParent(t *testing.T) {
	w := &workDir{root: t.TempDir()}
	who, err := lookupUser("")
	if err != nil {
		t.Fatal(err)
	}
	parent := "agents/A/frameworks/F/executors/e/runs/root"
	if _, err := w.make(&state.Plan{Container: "root", Sandbox: parent}, who); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(w.path(parent), "containers")); err != nil {
		t.Fatal(err)
	}
	nested := &state.Plan{Container: "c", Parent: "root", Sandbox: parent + "/containers/c", Latest: parent + "/tasks/t"}
	if path, err := w.make(nested, who); err == nil {
		t.Errorf("a sandbox was made at %s", path)
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("something was made outside: %v", entries)
	}
	if err := os.Remove(filepath.Join(w.path(parent), "containers")); err != nil {
		t.Fatal(err)
	}
	made, err := w.make(nested, who)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := filepath.EvalSymlinks(filepath.Join(w.path(parent), "tasks", "t")); err != nil || target != made {
		t.Errorf("the task's link leads to %s, %v; want %s", target, err, made)
	}
	if _, err := w.make(&state.Plan{Sandbox: "../x"}, who); err == nil {
		t.Error("a sandbox outside the work directory was made")
	}
}

// A message that is not there says DOCKER when it is asked for its type.
func TestArgumentsWithoutAContainer(t *testing.T) {
	command := &mezzov1.CommandInfo{Shell: proto.Bool(false), Value: proto.String("/bin/ls"), Arguments: []string{"ls", "-l"}}
	for _, c := range []struct {
		container *mezzov1.ContainerInfo
		want      []string
	}{
		{nil, []string{"/bin/ls", "-l"}},
		{&mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum()}, []string{"/bin/ls", "-l"}},
		{&mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_DOCKER.Enum()}, []string{"/bin/ls", "ls", "-l"}},
	} {
		text, err := baseSpec(&state.Plan{Command: command, Task: &isolatorv1.Task{Container: c.container}}, "/box", &account{}, "", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var spec specs.Spec
		if err := json.Unmarshal(text, &spec); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, spec.Process.Args); diff != "" {
			t.Errorf("%v: %s", c.container, diff)
		}
	}
}

// TestNothingIsTracedAtNoCost is that what is not traced costs no memory.
func TestNothingIsTracedAtNoCost(t *testing.T) {
	traces, ctx := newTraces(nil), context.Background()
	message := state.LinkMessage{Message: &linkv1.MasterMessage{}}
	cost := testing.AllocsPerRun(100, func() {
		traces.input(message)
		_, done := span(traces.within(ctx, "c"), ctx, "prepare", "cgroups")
		done(nil)
	})
	if traces != nil || cost > 1 { // the message becomes an input
		t.Errorf("what is not traced costs %v allocations", cost)
	}
}
