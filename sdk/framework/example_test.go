package framework_test

import (
	"context"
	"errors"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// docs/framework-authors.md quotes this file; a test holds it to that.

// store is where a framework keeps what it must not forget: a database, or here
// a file.
type store struct{ path string }

func (s store) frameworkID() string {
	text, err := os.ReadFile(s.path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (s store) saveFrameworkID(id string) error { return os.WriteFile(s.path, []byte(id+"\n"), 0o600) }

func (s store) saveStatus(*mezzov1.TaskStatus) error { return nil }

// A scheduler that may die and come back: it keeps its framework's id, has a
// failover timeout, and acknowledges an update once it has been made durable.
func Example_failover() {
	kept := store{path: "/var/lib/my-framework/id"}
	ctx, cancel := context.WithCancelCause(context.Background())

	info := &mezzov1.FrameworkInfo{
		User: proto.String("nobody"), Name: proto.String("my-framework"), Roles: []string{"services"},
		FailoverTimeout: proto.Float64((24 * time.Hour).Seconds()),
		Capabilities: []*mezzov1.FrameworkInfo_Capability{
			{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
			{Type: mezzov1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
		},
	}
	if id := kept.frameworkID(); id != "" {
		info.Id = &mezzov1.FrameworkID{Value: proto.String(id)}
	}
	s, err := framework.New(framework.Options{
		Masters:           []string{"m1:5061", "m2:5061", "m3:5061"},
		Info:              info,
		ManualAcknowledge: true,
		Callbacks: framework.Callbacks{
			Subscribed: func(s *framework.Scheduler, id string, again bool) {
				if err := kept.saveFrameworkID(id); err != nil {
					cancel(err) // without it the next process would be another framework
					return
				}
				if !again {
					s.Reconcile(ctx) // what happened while no process of ours was there
				}
			},
			Update: func(s *framework.Scheduler, status *mezzov1.TaskStatus) {
				if err := kept.saveStatus(status); err != nil {
					return // not acknowledged: it comes again
				}
				s.Acknowledge(ctx, status)
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	err = s.Run(ctx)
	switch {
	case errors.Is(err, framework.ErrEnded):
		log.Fatal("torn down, refused, or taken over by another scheduler: ", err)
	case context.Cause(ctx) != nil:
		log.Fatal(context.Cause(ctx))
	}
}
