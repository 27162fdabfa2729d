package transport

import (
	"errors"
	"net/http"
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
	answer  http.ResponseWriter
	cut     atomic.Bool
}

// OpenRecords begins a 200 answer of records, which the client sees at once.
// media is the Content-Type; further headers are set on w before.
func OpenRecords(w http.ResponseWriter, media string) (*RecordWriter, error) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	if out, ok := w.(*writer); ok {
		out.streams()
	}
	s := &RecordWriter{control: http.NewResponseController(w), answer: w}
	s.records = recordio.NewWriter(w, s.control.Flush)
	return s, s.control.Flush()
}

// Write writes one record. After an error the stream is over.
func (s *RecordWriter) Write(record []byte) error {
	if s.cut.Load() {
		return ErrStreamEnded
	}
	err := s.records.Write(record)
	if stalled(err) && !s.cut.Swap(true) {
		CountCut(s.answer, CutStalled)
	}
	return err
}

// Cut has the stream end at once, also in the middle of a Write that waits for
// its reader. It may be called from any goroutine until the handler returns.
func (s *RecordWriter) Cut() {
	s.cut.Store(true)
	_ = s.control.SetWriteDeadline(time.Unix(1, 0))
}

// ErrStreamEnded means that a stream takes no more records.
var ErrStreamEnded = errors.New("the stream has ended")
