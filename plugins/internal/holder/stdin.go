package holder

import (
	"os"
	"sync"
)

// stdinBuffer is how much input waits for a process that does not read. When it
// is full, what else the stream brings waits, too.
const stdinBuffer = 1 << 20

// stdin is the input of a session on its way to the process. A goroutine of its
// own writes it, so that a process which does not read is signalled and resized
// all the same.
type stdin struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting [][]byte
	bytes   int
	closed  bool // nothing more comes
	over    bool // nothing more is written
}

func newStdin() *stdin {
	s := &stdin{}
	s.changed.L = &s.mu
	return s
}

// put queues what the far end sent, and waits while the queue is full.
func (s *stdin) put(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes > 0 && s.bytes+len(b) > stdinBuffer && !s.over {
		s.changed.Wait()
	}
	if s.over || s.closed || len(b) == 0 {
		return
	}
	s.waiting = append(s.waiting, b)
	s.bytes += len(b)
	s.changed.Broadcast()
}

// close says that nothing more comes. It may be called again.
func (s *stdin) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

// end gives up what waits.
func (s *stdin) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.waiting = true, nil
	s.changed.Broadcast()
}

// next is what is to be written next; false: nothing comes any more.
func (s *stdin) next() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) == 0 && !s.closed && !s.over {
		s.changed.Wait()
	}
	if s.over || len(s.waiting) == 0 {
		return nil, false
	}
	b := s.waiting[0]
	s.waiting = s.waiting[1:]
	return b, true
}

// written makes room for as much.
func (s *stdin) written(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= n
	s.changed.Broadcast()
}

// write writes all to a file, and calls then when the input has ended.
func (s *stdin) write(to *os.File, then func()) {
	for {
		b, more := s.next()
		if !more {
			break
		}
		_, _ = to.Write(b) // one that does not read any more has closed it
		s.written(len(b))
	}
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	if !over {
		then()
	}
}
