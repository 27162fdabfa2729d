package rpc_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/core/rpc"
)

// gate is a stream whose sends wait until the test lets them.
type gate struct {
	entered chan string
	leave   chan error
	sent    []string
}

func newGate() *gate { return &gate{entered: make(chan string), leave: make(chan error)} }

func (g *gate) send(m string) error {
	g.entered <- m
	err := <-g.leave
	if err == nil {
		g.sent = append(g.sent, m)
	}
	return err
}

// pass lets one send through and returns its message.
func (g *gate) pass() string {
	m := <-g.entered
	g.leave <- nil
	return m
}

func push(t *testing.T, s *rpc.Sender[string], m string, class rpc.Class) {
	t.Helper()
	if err := s.Push(m, len(m), class); err != nil {
		t.Fatalf("pushing %s: %v", m, err)
	}
}

func TestControlGoesBeforeBulk(t *testing.T) {
	g := newGate()
	s := rpc.NewSender(100, g.send)
	push(t, s, "b1", rpc.Bulk)
	<-g.entered // b1 is under way
	push(t, s, "b2", rpc.Bulk)
	push(t, s, "b3", rpc.Bulk)
	push(t, s, "c1", rpc.Control)
	push(t, s, "c2", rpc.Control)
	s.Close()
	g.leave <- nil
	for range 4 {
		g.pass()
	}
	<-s.Done()
	if got := strings.Join(g.sent, " "); got != "b1 c1 c2 b2 b3" {
		t.Errorf("sent %s", got)
	}
	if err := s.Push("late", 4, rpc.Control); !errors.Is(err, rpc.ErrSenderClosed) {
		t.Errorf("a push after Close gave %v", err)
	}
	if s.Err() != nil || s.Bytes() != 0 {
		t.Errorf("err %v, %d bytes", s.Err(), s.Bytes())
	}
}

func TestBoundInBytes(t *testing.T) {
	g := newGate()
	s := rpc.NewSender(10, g.send)
	push(t, s, strings.Repeat("x", 50), rpc.Control) // alone, it may be larger
	<-g.entered
	if err := s.Push("y", 1, rpc.Control); !errors.Is(err, rpc.ErrQueueFull) {
		t.Fatalf("got %v, want ErrQueueFull", err)
	}
	g.leave <- nil
	// The slow peer is told why, past whatever else waits.
	push2 := func(m string) bool { return s.Push(m, len(m), rpc.Control) == nil }
	for !push2("123456") {
	}
	<-g.entered
	if push2("7890a") {
		t.Error("eleven bytes were taken")
	}
	push(t, s, "789", rpc.Control)
	s.CloseWith("too slow")
	g.leave <- nil
	if got := g.pass(); got != "too slow" {
		t.Errorf("the last message is %q", got)
	}
	<-s.Done()
}

func TestFailedSendEndsTheSender(t *testing.T) {
	g := newGate()
	s := rpc.NewSender(100, g.send)
	push(t, s, "a", rpc.Control)
	push(t, s, "b", rpc.Bulk)
	<-g.entered
	g.leave <- errors.New("the peer is gone")
	<-s.Done()
	if s.Err() == nil || s.Push("c", 1, rpc.Control) == nil {
		t.Errorf("err %v, and it still takes messages", s.Err())
	}
}

func TestAbort(t *testing.T) {
	g := newGate()
	s := rpc.NewSender(100, g.send)
	push(t, s, "a", rpc.Control)
	push(t, s, "b", rpc.Bulk)
	<-g.entered
	reason := errors.New("leader changed")
	s.Abort(reason)
	g.leave <- nil
	<-s.Done()
	if !errors.Is(s.Err(), reason) || len(g.sent) != 1 {
		t.Errorf("err %v, sent %v", s.Err(), g.sent)
	}
	idle := rpc.NewSender(100, g.send)
	idle.Abort(reason)
	<-idle.Done()
}
