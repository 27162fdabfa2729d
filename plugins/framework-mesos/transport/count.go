package transport

import (
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/mezzo-os/mezzo/sdk/metric"
)

// Counts are what a server counts, and those who serve by it; each may be nil.
// An endpoint is its path, "/api/v1/scheduler"; "other" where there is none.
type Counts struct {
	Requests    *metric.Counter   // by endpoint and code of the answer
	Took        *metric.Histogram // seconds, by endpoint; but of streams
	Streams     *metric.Gauge     // answers of records that are open, by endpoint
	Cut         *metric.Counter   // streams that this side has ended, by endpoint and why
	Connections *metric.Gauge
	Refused     *metric.Counter // connections, at the bound
}

// Why a stream was ended, as the label of Counts.Cut.
const (
	CutStalled = "stalled"  // the client took nothing for the Write limit
	CutSlow    = "too_slow" // what waited for it reached its bound
	CutCrowded = "crowded"  // it had to make room for newer ones
	CutFeed    = "feed"     // what it was fed from broke off, as at a change of leader
)

// began counts an answer when it begins.
func (w *writer) began(code int) {
	if !w.wrote {
		w.wrote = true
		w.counts.Requests.Inc(w.endpoint, codeText(code))
	}
}

// codeText is a status as a label; handlers make no others than these.
func codeText(code int) string {
	if code < 100 || code > 599 {
		return "other"
	}
	return string([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)})
}

// over counts a request whose handler has returned, or panicked.
func (w *writer) over(since time.Time) {
	if w.stream {
		w.counts.Streams.Add(-1, w.endpoint)
	} else if w.wrote {
		w.counts.Took.Observe(time.Since(since).Seconds(), w.endpoint)
	}
}

// streams marks an answer as a stream.
func (w *writer) streams() {
	if !w.stream {
		w.stream = true
		w.counts.Streams.Add(1, w.endpoint)
	}
}

// CountCut counts a stream that is ended for a reason; w is what its handler was
// given.
func CountCut(w http.ResponseWriter, reason string) {
	if out, ok := w.(*writer); ok {
		out.counts.Cut.Inc(out.endpoint, reason)
	}
}

// stalled is whether a write has failed since nobody read.
func stalled(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
