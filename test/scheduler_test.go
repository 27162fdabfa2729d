package test

import (
	"context"
	"os/user"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// runScheduler has a framework's scheduler run until the test ends. Unless info
// says otherwise its name is the test's, and its tasks run as who runs the test.
func runScheduler(t *testing.T, master string, info *mezzov1.FrameworkInfo, callbacks framework.Callbacks, can ...mezzov1.FrameworkInfo_Capability_Type) *framework.Scheduler {
	t.Helper()
	if info.User == nil {
		me, err := user.Current()
		if err != nil {
			t.Fatal(err)
		}
		info.User = proto.String(me.Username)
	}
	if info.Name == nil {
		info.Name = proto.String(t.Name())
	}
	for _, c := range can {
		info.Capabilities = append(info.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	s, err := framework.New(framework.Options{Masters: []string{master}, Info: info, Callbacks: callbacks})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return s
}
