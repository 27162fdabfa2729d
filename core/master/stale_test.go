package master_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/internal/zktest"
	"github.com/mezzo-os/mezzo/sdk/framework"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// unaware are the options of a master that never learns from the election, nor by
// looking, that another one leads: as one that was stopped and goes on, for as
// long as it has not found out.
func unaware(t testing.TB, servers []string) master.Options {
	o := oneOfSeveral(t, servers)
	o.Config.Election = config.Election{}
	o.EpochCheck = time.Hour
	return o
}

// A master that does not know that it does not lead any more gets no scheduler
// that has seen a later one, and none that is new: it finds out when it writes the
// framework down.
func TestALeaderOfBeforeGetsNoScheduler(t *testing.T) {
	servers := zktest.Start(t, zktest.Options{}).Servers()
	old, err := master.New(unaware(t, servers))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- old.Run(ctx) }()
	await(t, "the first leader", old.Ready())
	next := start(t, unaware(t, servers))

	// What a scheduler is to find, one after the other.
	var where struct {
		sync.Mutex
		address string
	}
	lead := func(address string) {
		where.Lock()
		defer where.Unlock()
		where.address = address
	}
	lead(next.Addresses()["rpc"])
	refused, began, lost := &refusals{texts: make(chan string, 1000)}, make(chan bool, 100), make(chan error, 100)
	s, err := framework.New(framework.Options{
		Resolve: func(context.Context) ([]string, error) {
			where.Lock()
			defer where.Unlock()
			return []string{where.address}, nil
		},
		Info: info("follower"), BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond, Logger: slog.New(refused),
		Callbacks: framework.Callbacks{
			Subscribed:   func(_ *framework.Scheduler, _ string, again bool) { began <- again },
			Disconnected: func(_ *framework.Scheduler, err error) { lost <- err },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	life, finish := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(life) }()
	defer func() {
		finish()
		if err := await(t, "the scheduler's end", ran); err != nil {
			t.Error(err)
		}
	}()
	await(t, "the subscription", began)

	lead(old.Addresses()["rpc"])
	if err := next.stop(); err != nil {
		t.Fatal(err)
	}
	await(t, "the subscription's end", lost)
	for range 3 {
		if text := await(t, "the refusal", refused.texts); !strings.Contains(text, "a later leader, of epoch 2, was seen") {
			t.Errorf("it tries again since %q", text)
		}
	}
	operator := operatorv1.NewOperatorClient(dial(t, old.Addresses()["rpc"]))
	status, err := operator.GetStatus(t.Context(), &operatorv1.GetStatusRequest{})
	if err != nil || status.Leadership != "leading" || status.Epoch != 1 || len(began) > 0 {
		t.Fatalf("the leader of before is %v, %v, and has %d schedulers", status, err, len(began))
	}
	// The next one is believed at once.
	third := start(t, unaware(t, servers))
	lead(third.Addresses()["rpc"])
	if again := await(t, "the subscription with the next leader", began); !again {
		t.Error("the framework began anew")
	}

	// A framework that knows nothing of this is not admitted by the old one.
	fresh := subscribe(t, old.Addresses()["rpc"], info("fresh"))
	if err := await(t, "the old leader's end", ended); !errors.Is(err, registry.ErrSuperseded) {
		t.Errorf("it ended with %v, want %v", err, registry.ErrSuperseded)
	}
	if len(fresh.subscribed) > 0 {
		t.Error("it was subscribed by a master that cannot write")
	}
}

// refusals is a log that tells when a scheduler tries again because of an epoch.
type refusals struct{ texts chan string }

func (l *refusals) Enabled(context.Context, slog.Level) bool { return true }
func (l *refusals) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *refusals) WithGroup(string) slog.Handler            { return l }
func (l *refusals) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" && strings.Contains(a.Value.String(), "of epoch") {
			l.texts <- a.Value.String()
		}
		return true
	})
	return nil
}
