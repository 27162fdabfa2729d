package master

import (
	"context"
	"errors"
)

// inspection is a look at the machine, by the loop.
type inspection struct {
	err chan<- error
}

// Audit proves that the master's books balance: that what it knows of tasks,
// offers and agents and what its ledger says agree. It looks at everything while
// all else waits: for tests.
func (m *Master) Audit(ctx context.Context) error {
	term, err := m.leading()
	if err != nil {
		return err
	}
	answer := make(chan error, 1)
	if err := term.inbox.put(inspection{answer}, 1); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-term.over:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *loop) inspect(in inspection) {
	auditor, ok := l.machine.(interface{ Audit() error })
	if !ok {
		in.err <- errors.New("this machine cannot be audited")
		return
	}
	in.err <- auditor.Audit()
}
