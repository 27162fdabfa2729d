package walk_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/walk"
)

func named(name protoreflect.Name) func(protoreflect.FieldDescriptor) bool {
	return func(fd protoreflect.FieldDescriptor) bool { return fd.Name() == name }
}

func visited(t *testing.T, w *walk.Walker, m proto.Message) (found []string) {
	t.Helper()
	err := w.Visit(m.ProtoReflect(), func(m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
		found = append(found, string(fd.FullName())+"="+m.Get(fd).String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func container(ids ...string) *mezzov1.ContainerID {
	if len(ids) == 0 {
		return nil
	}
	return &mezzov1.ContainerID{Value: &ids[0], Parent: container(ids[1:]...)}
}

func TestVisit(t *testing.T) {
	values := walk.New(named("value"))
	for _, test := range []struct {
		message proto.Message
		want    []string
	}{
		{&schedulerv1.Call{}, nil},
		// Types that hold themselves.
		{container("a", "b", "c"), []string{"mezzo.v1.ContainerID.value=a", "mezzo.v1.ContainerID.value=b", "mezzo.v1.ContainerID.value=c"}},
		// Lists and maps.
		{&schedulerv1.Call_Decline{OfferIds: []*mezzov1.OfferID{{Value: proto.String("x")}, {}, {Value: proto.String("y")}}},
			[]string{"mezzo.v1.OfferID.value=x", "mezzo.v1.OfferID.value=y"}},
		{&mezzov1.TaskInfo{Limits: map[string]*mezzov1.Value_Scalar{"cpus": {Value: proto.Float64(2)}}, TaskId: &mezzov1.TaskID{Value: proto.String("t")}},
			[]string{"mezzo.v1.TaskID.value=t", "mezzo.v1.Value.Scalar.value=2"}},
		// A type that was met inside another before.
		{&mezzov1.TaskStatus{ContainerStatus: &mezzov1.ContainerStatus{ContainerId: container("a")}}, []string{"mezzo.v1.ContainerID.value=a"}},
	} {
		if diff := cmp.Diff(test.want, visited(t, values, test.message)); diff != "" {
			t.Errorf("%v: %s", test.message, diff)
		}
	}
	if got := visited(t, walk.New(named("no_such_field")), container("a")); got != nil {
		t.Errorf("found %q", got)
	}
}

// What is in a field that was visited is the visitor's affair.
func TestNotInsideVisited(t *testing.T) {
	got := visited(t, walk.New(named("parent")), container("a", "b", "c"))
	if len(got) != 1 {
		t.Errorf("visited %q", got)
	}
}

func TestError(t *testing.T) {
	stop, visits := errors.New("stop"), 0
	message := &schedulerv1.Call{
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String("f")},
		Decline:     &schedulerv1.Call_Decline{OfferIds: []*mezzov1.OfferID{{Value: proto.String("x")}, {Value: proto.String("y")}}},
	}
	err := walk.New(named("value")).Visit(message.ProtoReflect(), func(protoreflect.Message, protoreflect.FieldDescriptor) error {
		if visits++; visits == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || visits != 2 {
		t.Errorf("%v after %d visits", err, visits)
	}
}

func TestConcurrentUse(t *testing.T) {
	w := walk.New(named("value"))
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			message := []proto.Message{container("a"), &mezzov1.TaskStatus{ContainerStatus: &mezzov1.ContainerStatus{ContainerId: container("a")}}}[i%2]
			if err := w.Visit(message.ProtoReflect(), func(protoreflect.Message, protoreflect.FieldDescriptor) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}
