package standalone_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/mezzo-os/mezzo/core/election"
	"github.com/mezzo-os/mezzo/core/election/standalone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLeadership(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := standalone.New()
	watch := e.Watch(ctx)
	if leader := <-watch; leader != nil {
		t.Errorf("before a campaign the leader is %v", leader)
	}
	first, err := e.Campaign(ctx, election.Candidate{ID: "m1", Endpoints: map[string]string{"rpc": "127.0.0.1:5061"}})
	if err != nil {
		t.Fatal(err)
	}
	if leader := <-watch; leader == nil || leader.ID != "m1" || leader.Endpoints["rpc"] != "127.0.0.1:5061" {
		t.Errorf("the leader is %v, want m1", leader)
	}

	// A second candidate waits until the first resigns.
	second := make(chan election.Term)
	go func() {
		term, err := e.Campaign(ctx, election.Candidate{ID: "m2"})
		if err != nil {
			t.Error(err)
		}
		second <- term
	}()
	select {
	case <-second:
		t.Fatal("two candidates lead")
	case <-first.Done():
		t.Fatal("the first term ended by itself")
	default:
	}
	first.Resign()
	first.Resign()
	<-first.Done()
	term := <-second
	for leader := range watch {
		if leader != nil && leader.ID == "m2" {
			break
		}
	}

	// Closing ends the term, the watch and whoever waits.
	waiting, done := e.Watch(ctx), make(chan error)
	go func() {
		_, err := e.Campaign(ctx, election.Candidate{ID: "m3"})
		done <- err
	}()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	<-term.Done()
	if err := <-done; err == nil {
		t.Error("a campaign in a closed election succeeded")
	}
	for range waiting {
	}
}

func TestCampaignEndsWithItsContext(t *testing.T) {
	e := standalone.New()
	defer e.Close()
	if _, err := e.Campaign(context.Background(), election.Candidate{ID: "m1"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Campaign(ctx, election.Candidate{ID: "m2"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestUpdateReachesWatchers(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := standalone.New()
	defer e.Close()
	at := func(id, mesos string) election.Candidate {
		return election.Candidate{ID: id, Endpoints: map[string]string{"mesos": mesos}}
	}
	e.Update(at("m1", "too early"))
	first, err := e.Campaign(ctx, at("m1", "h1:5050"))
	if err != nil {
		t.Fatal(err)
	}
	watch := e.Watch(ctx)
	want := func(id, mesos string) {
		t.Helper()
		for leader := range watch {
			if leader != nil {
				if leader.ID != id || leader.Endpoints["mesos"] != mesos {
					t.Errorf("the leader is %v, want %s at %s", leader, id, mesos)
				}
				return
			}
		}
		t.Error("the watch has ended")
	}
	want("m1", "h1:5050")
	e.Update(at("m1", "h1:5052"))
	want("m1", "h1:5052")
	e.Update(at("nobody", "h9:1"))

	// One that waits campaigns with what was said last.
	won := make(chan struct{})
	go func() {
		defer close(won)
		if _, err := e.Campaign(ctx, at("m2", "h2:5050")); err != nil {
			t.Error(err)
		}
	}()
	first.Resign()
	<-won
	want("m2", "h2:5050")
	e.Update(at("m2", "h2:5051"))
	want("m2", "h2:5051")
}
