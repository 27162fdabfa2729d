package master

import (
	"errors"
	"sync"

	"github.com/mezzo-os/mezzo/core/master/state"
)

// inboxLimit bounds what waits for the event loop, in bytes.
const inboxLimit = 64 << 20

var errStopped = errors.New("the master has stopped leading")

// inbox is how everything reaches the event loop, in one order. Peers wait for
// room in put, so that a peer that sends faster than the master works is
// slowed down by its own connection. Completions and ends of streams come by
// post: there are no more of them than of what was begun.
//
// An item is a state.Input, or one of the shell's own: see loop.handle.
type inbox struct {
	mu     sync.Mutex
	room   sync.Cond
	items  []item
	bytes  int
	closed bool
	wake   chan struct{}
}

type item struct {
	input any
	size  int
}

func newInbox() *inbox {
	b := &inbox{wake: make(chan struct{}, 1)}
	b.room.L = &b.mu
	return b
}

// put adds an input of a peer, when there is room.
func (b *inbox) put(input any, size int) error {
	b.mu.Lock()
	for b.bytes > 0 && b.bytes+size > inboxLimit && !b.closed {
		b.room.Wait()
	}
	return b.add(item{input, size})
}

// post adds an input without waiting.
func (b *inbox) post(input any) error {
	b.mu.Lock()
	return b.add(item{input, 0})
}

// add needs the lock, and gives it back.
func (b *inbox) add(i item) error {
	if b.closed {
		b.mu.Unlock()
		return errStopped
	}
	b.items = append(b.items, i)
	b.bytes += i.size
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

// take exchanges what waits for the emptied list of the turn before.
func (b *inbox) take(emptied []item) []item {
	clear(emptied)
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.items, b.bytes = emptied[:0], 0
	b.room.Broadcast()
	return items
}

// close refuses what comes from now on and wakes who waits.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.items = true, nil
	b.room.Broadcast()
}

func (b *inbox) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// step is an input for the machine.
type step = state.Input
