package master

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestFindFramework(t *testing.T) {
	view := func(id, name string, s state.FrameworkState) *state.FrameworkView {
		return &state.FrameworkView{ID: id, State: s, Info: &mezzov1.FrameworkInfo{Name: proto.String(name)}}
	}
	all := []*state.FrameworkView{
		view("a1-0001", "spark", state.FrameworkActive),
		view("a1-0002", "run job", state.FrameworkDisconnected),
		view("a1-0003", "run other", state.FrameworkActive),
		view("a1-00031", "cron", state.FrameworkActive),
		view("b2-0001", "spark", state.FrameworkCompleted),
		view("b2-0002", "gone", state.FrameworkCompleted),
	}
	for text, want := range map[string]string{
		"a1-0003":  "a1-0003", // an id, though another begins with it
		"spark":    "a1-0001", // of the two the one that lives
		"run job":  "a1-0002",
		"a1-00031": "a1-00031",
		"job":      "a1-0002",
		"b2-0001":  "b2-0001",
		"gone":     "b2-0002",
		"b2-0002":  "b2-0002",
	} {
		if f, err := findFramework(all, text); err != nil || f.ID != want {
			t.Errorf("%q: %v, %v; want %s", text, f, err, want)
		}
	}
	for text, want := range map[string]error{"": rpc.ErrInvalid, "a1": rpc.ErrConflict, "run": rpc.ErrConflict, "b2": rpc.ErrConflict, "zzz": rpc.ErrNotFound} {
		if f, err := findFramework(all, text); !errors.Is(err, want) {
			t.Errorf("%q: %v, %v; want %v", text, f, err, want)
		}
	}
}
