// Package recordio reads and writes streams of records as the Mesos HTTP APIs
// frame them: the length of a record in bytes, as decimal digits; a newline; then
// that many bytes, with nothing after them. A record may be empty.
//
//	20
//	{"type":"HEARTBEAT"}20
//	{"type":"HEARTBEAT"}
package recordio

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// DefaultLimit is the largest record that common clients of Mesos read: 4 MiB.
const DefaultLimit = 4 << 20

// maxDigits is how long the text of a length may be.
const maxDigits = 20

// LengthError says that a stream has something else where the length of a record
// should be, so that the rest of it cannot be read.
type LengthError struct {
	Text string // what was there, the first 21 bytes of it at most
}

func (e *LengthError) Error() string { return "Failed to decode length '" + e.Text + "'" }

// TooLargeError says that a record is larger than the reader allows.
type TooLargeError struct {
	Size  uint64 // in bytes
	Limit int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("a record of %d bytes is more than the %d that are allowed", e.Size, e.Limit)
}

// Reader reads records. It holds no more memory than twice the largest record that
// it has read, and some kilobytes; a length alone makes it take none. It must not
// be used from several goroutines at a time.
type Reader struct {
	stream *bufio.Reader
	limit  int
	buffer []byte
	err    error // once there is one, for ever
}

// NewReader returns a reader of records of up to limit bytes, at least 0.
func NewReader(r io.Reader, limit int) *Reader {
	return &Reader{stream: bufio.NewReader(r), limit: limit}
}

// Next waits for a record and returns it. It is valid until the next call. At the
// end of the stream the error is io.EOF; if that is inside a record,
// io.ErrUnexpectedEOF. A bad length (*LengthError), too large a record
// (*TooLargeError) and an error of the stream end the reading: each further call
// returns the same.
func (r *Reader) Next() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	size, err := r.length()
	if err == nil {
		err = r.fill(size)
	}
	if err != nil {
		r.err = err
		return nil, err
	}
	return r.buffer, nil
}

// length reads the length of the next record and the newline after it.
func (r *Reader) length() (int, error) {
	var text [maxDigits + 1]byte
	for n := range text {
		c, err := r.stream.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		case c == '\n':
			return r.parse(string(text[:n]))
		}
		text[n] = c
		if c < '0' || c > '9' {
			return 0, &LengthError{string(text[:n+1])}
		}
	}
	return 0, &LengthError{string(text[:])}
}

func (r *Reader) parse(text string) (int, error) {
	size, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, &LengthError{text}
	}
	if r.limit < 0 || size > uint64(r.limit) {
		return 0, &TooLargeError{size, r.limit}
	}
	return int(size), nil
}

// fill reads a record into the buffer, which grows with what has come, not with
// what was promised.
func (r *Reader) fill(size int) error {
	const first = 64 << 10
	r.buffer = r.buffer[:0]
	for len(r.buffer) < size {
		have := len(r.buffer)
		if cap(r.buffer) == have {
			grown := make([]byte, have, min(size, max(2*have, first)))
			copy(grown, r.buffer)
			r.buffer = grown
		}
		n, err := io.ReadFull(r.stream, r.buffer[have:min(size, cap(r.buffer))])
		r.buffer = r.buffer[:have+n]
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Append appends a record with its length to dst.
func Append(dst, record []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(record)), 10)
	dst = append(dst, '\n')
	return append(dst, record...)
}

// Writer writes records, each by one Write of the stream below, followed by one
// flush. Over HTTP that makes each record one chunk, sent at once, which some
// clients depend on. It must not be used from several goroutines at a time.
type Writer struct {
	stream io.Writer
	flush  func() error
	buffer []byte
}

// NewWriter returns a writer to w. flush is called after each record, for HTTP
// [net/http.ResponseController.Flush]; nil if there is nothing to flush.
func NewWriter(w io.Writer, flush func() error) *Writer {
	return &Writer{stream: w, flush: flush}
}

// Write writes one record. After an error, part of it may have been sent: the
// stream is of no more use.
func (w *Writer) Write(record []byte) error {
	const keep = 64 << 10 // many streams are open for long, and rarely send so much at once
	w.buffer = Append(w.buffer[:0], record)
	_, err := w.stream.Write(w.buffer)
	if cap(w.buffer) > keep {
		w.buffer = nil
	}
	if err != nil {
		return fmt.Errorf("write a record of %d bytes: %w", len(record), err)
	}
	if w.flush == nil {
		return nil
	}
	if err := w.flush(); err != nil {
		return fmt.Errorf("flush a record of %d bytes: %w", len(record), err)
	}
	return nil
}
