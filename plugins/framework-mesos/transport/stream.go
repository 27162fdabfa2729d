package transport

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

// RecordWriter writes an answer that is a stream of records: each is one chunk,
// and goes out at once. A client that takes nothing for the server's Write limit
// is cut off. One goroutine at a time, but for Cut.
type RecordWriter struct {
	control *http.ResponseController
	records *recordio.Writer
	cut     atomic.Bool
}

// OpenRecords begins a 200 answer of records, which the client sees at once.
// media is the Content-Type; further headers are set on w before.
func OpenRecords(w http.ResponseWriter, media string) (*RecordWriter, error) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	s := &RecordWriter{control: http.NewResponseController(w)}
	s.records = recordio.NewWriter(w, s.control.Flush)
	return s, s.control.Flush()
}

// Write writes one record. After an error the stream is over.
func (s *RecordWriter) Write(record []byte) error {
	if s.cut.Load() {
		return ErrStreamEnded
	}
	return s.records.Write(record)
}

// Cut has the stream end at once, also in the middle of a Write that waits for
// its reader. It may be called from any goroutine until the handler returns.
func (s *RecordWriter) Cut() {
	s.cut.Store(true)
	_ = s.control.SetWriteDeadline(time.Unix(1, 0))
}

// ErrSlowReader means that what waits for a stream's reader has reached its
// bound.
var ErrSlowReader = errors.New("the reader is too slow: what waits for it has reached its bound")

// ErrStreamEnded means that a stream takes no more records.
var ErrStreamEnded = errors.New("the stream has ended")

// Queue stands between those who have records and a RecordWriter: Push never
// blocks, and what waits is bounded in bytes. Safe for concurrent use.
type Queue struct {
	limit int

	mu     sync.Mutex
	wait   [][]byte
	bytes  int
	closed bool
	err    error
	ready  chan struct{} // has room for one signal
}

// NewQueue returns a queue that holds at most limit bytes. A single record that
// is larger passes when nothing else waits.
func NewQueue(limit int) *Queue { return &Queue{limit: limit, ready: make(chan struct{}, 1)} }

// Push queues a record, which must not be changed afterwards. When there is no
// room the reader is cut off, and Push returns ErrSlowReader; after the end it
// returns ErrStreamEnded.
func (q *Queue) Push(record []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrStreamEnded
	}
	if q.bytes > 0 && q.bytes+len(record) > q.limit {
		q.wait, q.closed, q.err = nil, true, ErrSlowReader
		q.signal()
		return ErrSlowReader
	}
	q.bytes += len(record)
	q.wait = append(q.wait, record)
	q.signal()
	return nil
}

// Close ends the stream after what is queued.
func (q *Queue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

func (q *Queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Run writes what is pushed until the queue is closed, ctx ends (that of the
// request ends when the client leaves), or the client takes nothing any more.
// Afterwards Push fails. It returns nil only after Close.
func (q *Queue) Run(ctx context.Context, out *RecordWriter) error {
	defer q.Close()
	for {
		q.mu.Lock()
		records, closed, err := q.wait, q.closed, q.err
		q.wait = nil
		q.mu.Unlock()
		for _, record := range records {
			if err := out.Write(record); err != nil {
				return err
			}
			q.mu.Lock()
			q.bytes -= len(record)
			q.mu.Unlock()
		}
		if len(records) > 0 {
			continue
		}
		if closed {
			return err
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
