package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// budget is what all bodies together may take.
type budget struct {
	mu   sync.Mutex
	free int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.free {
		return false
	}
	b.free -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
}

// ReadBody reads a request's body whole, within the server's limits, and calls
// use with it. The bytes are the caller's until use returns.
func ReadBody(w http.ResponseWriter, r *http.Request, use func(body []byte) *Error) *Error {
	limits, bodies := Limits{}.complete(), &budget{free: 1 << 40}
	if s := serverOf(r); s != nil {
		limits, bodies = s.limits, &s.bodies
	}
	tooLarge := func() *Error {
		return &Error{
			Code: http.StatusRequestEntityTooLarge, Header: http.Header{"Connection": {"close"}},
			Text: fmt.Sprintf("The body is larger than the %d bytes that a request may have", limits.Body),
		}
	}
	if r.ContentLength > limits.Body {
		return tooLarge()
	}
	taken := int64(0)
	defer func() { bodies.give(taken) }()
	var body bytes.Buffer
	in := http.MaxBytesReader(w, r.Body, limits.Body)
	for {
		// Space is taken as bytes come, not as a header promises them.
		piece := min(max(int64(body.Len()), 4<<10), 1<<20)
		if !bodies.take(piece) {
			return &Error{Code: http.StatusServiceUnavailable, Text: "The bodies of other requests take all the memory that they may; try again", Header: http.Header{"Connection": {"close"}}}
		}
		taken += piece
		n, err := io.CopyN(&body, in, piece)
		if err == nil {
			continue
		}
		bodies.give(piece - n)
		taken -= piece - n
		var large *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			LongRequest(w) // what follows on the connection has its own time
			return use(body.Bytes())
		case errors.As(err, &large):
			return tooLarge()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &Error{Code: http.StatusRequestTimeout, Text: "The body did not come in time", Header: http.Header{"Connection": {"close"}}}
		}
		return &Error{Code: http.StatusBadRequest, Text: "The body cannot be read: " + err.Error(), Header: http.Header{"Connection": {"close"}}}
	}
}

// ReadCall reads a request's body, in JSON or protobuf, as a call, and checks it.
// What is wrong with it is answered with 400.
func ReadCall[C any](w http.ResponseWriter, r *http.Request, parse func(body []byte, media string) (C, error), validate func(C) error) (call C, failure *Error) {
	media, failure := ContentType(r)
	if failure != nil {
		return call, failure
	}
	failure = ReadBody(w, r, func(body []byte) *Error {
		var err error
		if call, err = parse(body, media); err == nil {
			err = validate(call)
		}
		if err != nil {
			return Failed(http.StatusBadRequest, err.Error())
		}
		return nil
	})
	return call, failure
}

// LongRequest lifts the time limit of the request's body, for a handler that
// reads it as a stream.
func LongRequest(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}
