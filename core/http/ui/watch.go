package ui

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// watchPending bounds what has been encoded and not been written; the rest
	// waits in the watcher's own queue, which has its bound.
	watchPending = 1 << 20
	// watchPiece is about how large one event of the stream is.
	watchPiece = 128 << 10
	// watchQuiet is how often something is written when nothing happens, so that
	// both ends notice when the other is gone.
	watchQuiet = 15 * time.Second
	// watchWrite is how long a browser may take to read a piece.
	watchWrite = 30 * time.Second
)

// watch sends Operator.Watch as server-sent events. The data of each is a JSON
// list of WatchEvents. A stream that ends with the event "over" says why.
func (u *UI) watch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &eventStream{ctx: ctx, ui: u, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	over := make(chan error, 1)
	go func() { over <- u.options.Operator.Watch(&operatorv1.WatchRequest{}, s) }()
	// What fails at once is answered with its status.
	select {
	case err := <-over:
		mezzohttp.Error(w, err)
		return
	case <-s.wake:
	}
	out := newEventWriter(w, r)
	defer out.close()
	for pieces := s.take(); ; pieces = s.take() {
		if err := out.write(pieces); err != nil {
			cancel()
			<-over
			return
		}
		quiet := time.NewTimer(watchQuiet)
		select {
		case <-s.wake:
		case <-quiet.C:
		case err := <-over:
			if err != nil && ctx.Err() == nil {
				_ = out.over(err) // it may be gone
			}
			quiet.Stop()
			return
		}
		quiet.Stop()
	}
}

// eventStream takes the events of Operator.Watch.
type eventStream struct {
	grpc.ServerStream // nil: Watch calls Context and Send alone
	ctx               context.Context
	ui                *UI

	mu     sync.Mutex
	pieces [][]byte
	bytes  int
	wake   chan struct{} // something waits
	room   chan struct{} // something was taken
}

func (s *eventStream) Context() context.Context { return s.ctx }

// Send encodes an event, and waits while too many wait already.
func (s *eventStream) Send(e *operatorv1.WatchEvent) error {
	for s.full() {
		select {
		case <-s.room:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.pieces)
	if n == 0 || len(s.pieces[n-1]) > watchPiece {
		s.pieces, n = append(s.pieces, []byte("[")), n+1
	} else {
		s.pieces[n-1] = append(s.pieces[n-1], ',')
	}
	before := len(s.pieces[n-1])
	piece, err := s.ui.encoder.Append(s.pieces[n-1], e)
	if err != nil {
		return fmt.Errorf("a watched event cannot be written as JSON: %w", err)
	}
	s.pieces[n-1], s.bytes = piece, s.bytes+len(piece)-before
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

func (s *eventStream) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes > watchPending
}

// take returns what waits, as lists without their closing brackets.
func (s *eventStream) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	pieces := s.pieces
	s.pieces, s.bytes = nil, 0
	select {
	case s.room <- struct{}{}:
	default:
	}
	return pieces
}

// eventWriter writes server-sent events, compressed where the browser can read
// that.
type eventWriter struct {
	control *http.ResponseController
	out     io.Writer
	zip     *gzip.Writer // nil: plain
}

func newEventWriter(w http.ResponseWriter, r *http.Request) *eventWriter {
	e := &eventWriter{control: http.NewResponseController(w), out: w}
	w.Header().Set("Content-Type", "text/event-stream")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		e.zip, _ = gzip.NewWriterLevel(w, gzip.BestSpeed) // a level that there is
		e.out = e.zip
	}
	w.WriteHeader(http.StatusOK)
	return e
}

// write writes lists of events; none: a comment, which is a sign of life.
func (e *eventWriter) write(pieces [][]byte) error {
	if err := e.control.SetWriteDeadline(time.Now().Add(watchWrite)); err != nil {
		return err
	}
	if len(pieces) == 0 {
		if _, err := io.WriteString(e.out, ":\n\n"); err != nil {
			return err
		}
	}
	for _, piece := range pieces {
		for _, part := range [][]byte{[]byte("data: "), piece, []byte("]\n\n")} {
			if _, err := e.out.Write(part); err != nil {
				return err
			}
		}
	}
	return e.flush()
}

func (e *eventWriter) over(why error) error {
	if _, err := fmt.Fprintf(e.out, "event: over\ndata: %s\n\n", strings.ReplaceAll(why.Error(), "\n", " ")); err != nil {
		return err
	}
	return e.flush()
}

func (e *eventWriter) flush() error {
	if e.zip != nil {
		if err := e.zip.Flush(); err != nil {
			return err
		}
	}
	return e.control.Flush()
}

func (e *eventWriter) close() {
	if e.zip != nil {
		e.zip.Close() // the browser may be gone
	}
}
