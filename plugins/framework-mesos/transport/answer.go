package transport

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The media types of the APIs, as answers name them.
const (
	JSON     = "application/json"
	Protobuf = "application/x-protobuf"
	RecordIO = "application/recordio"
	Script   = "text/javascript"
	plain    = "text/plain; charset=utf-8"
)

// Error is an answer that is not a success.
type Error struct {
	Code int
	// Text is the body; empty: what Mesos says for the code.
	Text string
	// Header has what is to be added to the answer's.
	Header http.Header
}

// Failed returns an Error.
func Failed(code int, text string) *Error { return &Error{Code: code, Text: text} }

func (e *Error) Error() string {
	if e.Text == "" {
		return bare(e.Code)
	}
	return e.Text
}

// Write answers with the error.
func (e *Error) Write(w http.ResponseWriter) {
	for name, values := range e.Header {
		w.Header()[name] = values
	}
	if e.Code == http.StatusTemporaryRedirect {
		Empty(w, e.Code)
		return
	}
	Text(w, e.Code, e.Error())
}

// Fail answers with an error; an empty text is what Mesos says for the code.
func Fail(w http.ResponseWriter, code int, text string) { Failed(code, text).Write(w) }

// bare is the body of an error for which there is nothing more to say.
func bare(code int) string { return strconv.Itoa(code) + " " + http.StatusText(code) + "." }

// Text answers with a bare text.
func Text(w http.ResponseWriter, code int, text string) { whole(w, code, plain, []byte(text)) }

// Empty answers without a body, and so without a Content-Type.
func Empty(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(code)
}

// Body answers 200 with a body of one of the API's media types. It is never
// compressed: clients tell a body from a stream by its Content-Length, which
// their HTTP libraries forget of what they decompress.
func Body(w http.ResponseWriter, media string, body []byte) { whole(w, http.StatusOK, media, body) }

func whole(w http.ResponseWriter, code int, media string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	for len(body) > 0 {
		n := min(len(body), writePiece)
		if _, err := w.Write(body[:n]); err != nil {
			return // the client is gone
		}
		body = body[n:]
	}
}

// compressFrom is how long a body must be to be worth compressing.
const compressFrom = 1024

// Legacy answers 200 with JSON of the legacy endpoints: as a script's call when
// the client asks for JSONP, compressed when it can read that.
func Legacy(w http.ResponseWriter, r *http.Request, body []byte) {
	if len(body) >= compressFrom {
		out, failure := LegacyWriter(w, r)
		if failure != nil {
			failure.Write(w)
			return
		}
		if out.compressed != nil {
			_, _ = out.Write(body)
			_ = out.Close()
			return
		}
	}
	call, failure := script(r)
	if failure != nil {
		failure.Write(w)
		return
	}
	media := JSON
	if call != "" {
		media, body = Script, append(append([]byte(call+"("), body...), ')')
	}
	whole(w, http.StatusOK, media, body)
}

// script is the name that a client wants called with the answer; empty: none.
// It becomes part of a script, so it can only be a name.
func script(r *http.Request) (string, *Error) {
	if !strings.Contains(r.URL.RawQuery, "jsonp=") {
		return "", nil
	}
	name := r.URL.Query().Get("jsonp")
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c == '.' || c == '[' || c == ']') {
			return "", Failed(http.StatusBadRequest, "The parameter 'jsonp' must be the name of a function")
		}
	}
	return name, nil
}

// LegacyStream is a JSON answer of a legacy endpoint that is written in parts.
type LegacyStream struct {
	w          http.ResponseWriter
	compressed *gzip.Writer
	end        string
}

// LegacyWriter begins a 200 answer of JSON whose length is not known, for those
// that are too large to be held whole. The header goes out with the first Write;
// Close ends the answer. JSONP and compression are as for Legacy.
func LegacyWriter(w http.ResponseWriter, r *http.Request) (*LegacyStream, *Error) {
	call, failure := script(r)
	if failure != nil {
		return nil, failure
	}
	s := &LegacyStream{w: w}
	media := JSON
	if call != "" {
		media, s.end = Script, ")"
	}
	if compressible(r) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", media)
		s.compressed, _ = gzip.NewWriterLevel(w, gzip.BestSpeed)
	} else {
		w.Header().Set("Content-Type", media)
	}
	if call != "" {
		_, _ = io.WriteString(s, call+"(")
	}
	return s, nil
}

func (s *LegacyStream) Write(p []byte) (int, error) {
	if s.compressed != nil {
		return s.compressed.Write(p)
	}
	return s.w.Write(p)
}

// Close ends the answer.
func (s *LegacyStream) Close() error {
	if _, err := io.WriteString(s, s.end); err != nil {
		return err
	}
	if s.compressed != nil {
		return s.compressed.Close()
	}
	return nil
}

// compressible is whether the client reads gzip.
func compressible(r *http.Request) bool {
	accepted, ok := quality(strings.Join(r.Header.Values("Accept-Encoding"), ","), "gzip", "*")
	return ok && accepted
}

// writePiece is how much is written at once, so that a slow reader is told from
// one that does not read.
const writePiece = 64 << 10

// writeRate is the least that a reader takes of a large record, in bytes a
// second.
const writeRate = 256 << 10

// writer gives each write a deadline of its own: a reader may be slow for as
// long as it reads.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	limits  Limits
	wrote   bool

	counts   Counts
	endpoint string
	stream   bool
}

func newWriter(w http.ResponseWriter, limits Limits, counts Counts) *writer {
	return &writer{ResponseWriter: w, control: http.NewResponseController(w), limits: limits, counts: counts, endpoint: "other"}
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) arm(size int) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.limits.Write + time.Duration(size)*time.Second/writeRate))
}

func (w *writer) WriteHeader(code int) {
	w.began(code)
	w.arm(0)
	w.ResponseWriter.WriteHeader(code)
}

func (w *writer) Write(p []byte) (int, error) {
	w.began(http.StatusOK)
	w.arm(len(p))
	return w.ResponseWriter.Write(p)
}

// finish arms the write of what net/http still holds.
func (w *writer) finish() { w.arm(0) }
