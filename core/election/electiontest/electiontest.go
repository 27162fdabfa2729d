// Package electiontest holds what every implementation of election.Election
// must do, as tests.
package electiontest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/core/election"
)

// patience is for machines that are busy with other tests.
const patience = 60 * time.Second

// Run tests an implementation. fresh gives a new group of masters each time it
// is called; what it gives joins the group: another process's Election, or the
// same one where the group has only one process. The suite closes them.
func Run(t *testing.T, fresh func(t *testing.T) (join func() election.Election)) {
	tests := map[string]func(*testing.T, func() election.Election){
		"one leads, until it resigns":      oneLeads,
		"a campaign ends with its context": contextEnds,
		"updates reach watchers":           updates,
		"close ends all":                   closes,
		"terms follow one another":         terms,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

func at(id, mesos string) election.Candidate {
	return election.Candidate{ID: id, Endpoints: map[string]string{"rpc": "127.0.0.1:5061", "mesos": mesos}}
}

func lead(t *testing.T, e election.Election, c election.Candidate) election.Term {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	term, err := e.Campaign(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return term
}

// sees waits for a leader of this kind.
func sees(t *testing.T, watch <-chan *election.Candidate, what string, is func(*election.Candidate) bool) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case leader, open := <-watch:
			if !open {
				t.Fatalf("the watch ended before it told %s", what)
			}
			if is(leader) {
				return
			}
		case <-late:
			t.Fatalf("the watch did not tell %s", what)
		}
	}
}

func seesLeader(t *testing.T, watch <-chan *election.Candidate, id, mesos string) {
	t.Helper()
	sees(t, watch, fmt.Sprintf("%s at %s", id, mesos), func(c *election.Candidate) bool {
		return c != nil && c.ID == id && c.Endpoints["mesos"] == mesos && c.Endpoints["rpc"] == "127.0.0.1:5061"
	})
}

func over(t *testing.T, term election.Term) {
	t.Helper()
	select {
	case <-term.Done():
	case <-time.After(patience):
		t.Fatal("the term is not over")
	}
}

func oneLeads(t *testing.T, join func() election.Election) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, second := join(), join()
	defer first.Close()
	defer second.Close()
	watch := second.Watch(ctx)
	sees(t, watch, "that nobody leads", func(c *election.Candidate) bool { return c == nil })
	term := lead(t, first, at("m1", "h1:5050"))
	seesLeader(t, watch, "m1", "h1:5050")

	next := make(chan election.Term, 1)
	go func() {
		term, err := second.Campaign(ctx, at("m2", "h2:5050"))
		if err != nil {
			t.Error(err)
		}
		next <- term
	}()
	// The second's endpoints are told of it when it waits, too; by then it does.
	select {
	case <-next:
		t.Fatal("two candidates lead")
	case <-term.Done():
		t.Fatal("the first term ended by itself")
	case <-time.After(200 * time.Millisecond):
	}
	term.Resign()
	term.Resign()
	over(t, term)
	after := <-next
	if after == nil {
		t.FailNow()
	}
	seesLeader(t, watch, "m2", "h2:5050")
	after.Resign()
	sees(t, watch, "that nobody leads", func(c *election.Candidate) bool { return c == nil })
}

func contextEnds(t *testing.T, join func() election.Election) {
	first, second := join(), join()
	defer first.Close()
	defer second.Close()
	defer lead(t, first, at("m1", "h1:1")).Resign()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := second.Campaign(ctx, at("m2", "h2:1"))
		ended <- err
	}()
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Fatal("the campaign goes on")
	}
}

func updates(t *testing.T, join func() election.Election) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, second := join(), join()
	defer first.Close()
	defer second.Close()
	first.Update(at("m1", "too early"))
	term := lead(t, first, at("m1", "h1:5050"))
	watch := second.Watch(ctx)
	seesLeader(t, watch, "m1", "h1:5050")
	first.Update(at("m1", "h1:5052"))
	seesLeader(t, watch, "m1", "h1:5052")
	first.Update(at("nobody", "h9:1"))

	won := make(chan election.Term, 1)
	go func() {
		term, err := second.Campaign(ctx, at("m2", "h2:5050"))
		if err != nil {
			t.Error(err)
		}
		won <- term
	}()
	term.Resign()
	after := <-won
	if after == nil {
		t.FailNow()
	}
	defer after.Resign()
	seesLeader(t, watch, "m2", "h2:5050")
	second.Update(at("m2", "h2:5051"))
	seesLeader(t, watch, "m2", "h2:5051")
}

func closes(t *testing.T, join func() election.Election) {
	e := join()
	term := lead(t, e, at("m1", "h1:1"))
	watch, ended := e.Watch(context.Background()), make(chan error, 1)
	go func() {
		_, err := e.Campaign(context.Background(), at("m2", "h2:1"))
		ended <- err
	}()
	seesLeader(t, watch, "m1", "h1:1")
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	over(t, term)
	if err := <-ended; err == nil {
		t.Error("a campaign in a closed election succeeded")
	}
	for range watch {
	}
	if _, err := e.Campaign(context.Background(), at("m3", "h3:1")); err == nil {
		t.Error("a campaign after Close succeeded")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// terms has three candidates lead in turns: never two at a time.
func terms(t *testing.T, join func() election.Election) {
	const masters, rounds = 3, 4
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	leading := make(chan string, 1)
	ended := make(chan error, masters)
	for i := range masters {
		e := join()
		defer e.Close()
		go func() {
			id := fmt.Sprint("m", i)
			for range rounds {
				term, err := e.Campaign(ctx, at(id, "h:1"))
				if err != nil {
					ended <- err
					return
				}
				select {
				case leading <- id:
				default:
					ended <- fmt.Errorf("%s and %s lead at a time", id, <-leading)
					return
				}
				<-leading
				term.Resign()
			}
			ended <- nil
		}()
	}
	for range masters {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
