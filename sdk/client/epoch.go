package client

import (
	"fmt"
	"sync"
)

// Epochs remembers the highest epoch of a leader that a client has seen. Each
// leader's is higher than those of all before it, so whoever leads with a lower
// one was stopped or cut off, and does not know yet that it does not lead any
// more. Zero is ready to use, and nil remembers nothing. Safe for concurrent use.
type Epochs struct {
	mu      sync.Mutex
	highest uint64
}

// Admit notes a leader's epoch. The error says that a later one has led. An epoch
// of 0, that of a master that does not tell, is admitted.
func (e *Epochs) Admit(epoch uint64) error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.compare(epoch); err != nil {
		return err
	}
	e.highest = max(e.highest, epoch)
	return nil
}

// admits is Admit of an epoch that is not to be noted yet.
func (e *Epochs) admits(epoch uint64) error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.compare(epoch)
}

func (e *Epochs) compare(epoch uint64) error {
	if epoch != 0 && epoch < e.highest {
		return fmt.Errorf("its epoch is %d and a later leader, of epoch %d, was seen: it does not lead any more", epoch, e.highest)
	}
	return nil
}
