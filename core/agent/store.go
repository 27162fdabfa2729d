package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/mezzo-os/mezzo/core/agent/state"
)

// lockTimeout is how long an agent waits for another process to let go of the
// database: long enough for one that is just ending.
const lockTimeout = 3 * time.Second

// maxBacklog is how many checkpoints may wait for the disk.
const maxBacklog = 4096

// store keeps the checkpoints. One goroutine writes: all that waits goes into
// one transaction.
type store struct {
	db *bolt.DB

	mu      sync.Mutex
	queue   []state.Checkpoint
	wake    chan struct{} // has room for one: something is in the queue
	written uint64        // under mu
	err     error         // under mu; of the write that failed

	// done has room for one: written or err changed.
	done chan struct{}
}

// openStore opens the database, or makes it. Its errors say what to do.
func openStore(path string) (s *store, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	db, err := guarded(func() (*bolt.DB, error) {
		return bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout})
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("agent database %s is in use by another process (%w): stop that agent, or give this one a data_dir of its own", path, err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("agent database %s: %w: run the agent as the user who owns it, or give it a data_dir of its own", path, err)
	case err != nil:
		return nil, damaged(path, err)
	}
	return &store{db: db, wake: make(chan struct{}, 1), done: make(chan struct{}, 1)}, nil
}

func damaged(path string, err error) error {
	return fmt.Errorf("agent database %s cannot be read: %w. It is left as it is: bring it back from a backup, or start the agent with --recover=skip, which moves it away. "+
		"The agent then gets a new id, and tasks that still run are ended", path, err)
}

// moveAway puts the database aside, damaged or not, unless an agent uses it.
func moveAway(path string, logger hclog.Logger) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	s, err := openStore(path)
	if errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, os.ErrPermission) {
		return err
	}
	if err == nil {
		if err := s.close(); err != nil {
			return fmt.Errorf("agent database %s: %w", path, err)
		}
	}
	aside := path + "." + time.Now().UTC().Format("20060102T150405.000Z")
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("agent database: move it away: %w", err)
	}
	logger.Warn("the agent begins as a new one; what it knew is put aside", "database", aside)
	return nil
}

// guarded runs f so that damage which makes the database code panic, or read
// where no file is, becomes an error.
func guarded[T any](f func() (T, error)) (result T, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is damaged: %v", r)
		}
	}()
	return f()
}

// load reads everything, and checks the database on the way.
func (s *store) load() ([]state.Record, error) {
	records, err := guarded(func() ([]state.Record, error) {
		var list []state.Record
		err := s.db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				return err
			}
			return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
				if string(name) == shelfBucket {
					return nil // see openShelf
				}
				return b.ForEach(func(k, v []byte) error {
					list = append(list, state.Record{Bucket: string(name), Key: string(k), Value: append([]byte{}, v...)})
					return nil
				})
			})
		})
		return list, err
	})
	if err != nil {
		return nil, damaged(s.db.Path(), err)
	}
	return records, nil
}

// put queues a checkpoint. It never blocks: the loop takes in nothing new while
// the backlog is long.
func (s *store) put(c state.Checkpoint) {
	s.mu.Lock()
	s.queue = append(s.queue, c)
	s.mu.Unlock()
	signal(s.wake)
}

// behind is whether so much waits that nothing should be added.
func (s *store) behind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) >= maxBacklog
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until the context ends; then it writes what is still queued.
func (s *store) run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
			s.flush()
		case <-ctx.Done():
			s.flush()
			return
		}
	}
}

func (s *store) flush() {
	s.mu.Lock()
	batch := s.queue
	s.queue = nil
	failed := s.err != nil
	s.mu.Unlock()
	if len(batch) == 0 || failed {
		return
	}
	err := s.write(batch)
	s.mu.Lock()
	if err != nil {
		s.err = fmt.Errorf("agent database %s cannot be written: %w: make room or mend the disk, and start the agent again; its tasks run on", s.db.Path(), err)
	} else {
		s.written = batch[len(batch)-1].Sequence
	}
	s.mu.Unlock()
	signal(s.done)
}

func (s *store) write(batch []state.Checkpoint) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, c := range batch {
			for _, r := range c.Records {
				b, err := tx.CreateBucketIfNotExists([]byte(r.Bucket))
				if err != nil {
					return err
				}
				if r.Value == nil {
					err = b.Delete([]byte(r.Key))
				} else {
					err = b.Put([]byte(r.Key), r.Value)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// state is how far it has come.
func (s *store) state() (written uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written, s.err
}

func (s *store) close() error { return s.db.Close() }
