package legacy

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// encoder writes messages as Mesos does: fields of Mezzo's own are left out.
var encoder = wirejson.Options{Defaults: true, Infinity: true, ASCII: true, MaxField: 9999}.NewEncoder()

// pieces is about how much is written at once.
const pieces = 64 << 10

// JSON writes JSON that is shaped by hand, in pieces. Within an object a Key comes
// before each value; commas are put where they belong.
type JSON struct {
	w     io.Writer
	b     []byte
	comma bool
	err   error
	flat  Flat // for resources, to be used again
}

// Object writes an object of what members writes.
func (j *JSON) Object(members func()) {
	j.open('{')
	members()
	j.close('}')
}

// Array writes a list of what elements writes.
func (j *JSON) Array(elements func()) {
	j.open('[')
	elements()
	j.close(']')
}

func (j *JSON) open(c byte) {
	j.separate()
	j.b = append(j.b, c)
	j.comma = false
}

func (j *JSON) close(c byte) {
	j.b = append(j.b, c)
	j.comma = true
	if len(j.b) >= pieces {
		j.flush()
	}
}

func (j *JSON) separate() {
	if j.comma {
		j.b = append(j.b, ',')
	}
	j.comma = true
}

func (j *JSON) flush() {
	if j.err == nil && len(j.b) > 0 {
		_, j.err = j.w.Write(j.b)
	}
	j.b = j.b[:0]
}

// Key begins a member.
func (j *JSON) Key(name string) *JSON {
	j.Text(name)
	j.b = append(j.b, ':')
	j.comma = false
	return j
}

// Text writes a string, in ASCII.
func (j *JSON) Text(s string) {
	j.separate()
	plain := true
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		j.b = append(append(append(j.b, '"'), s...), '"')
		return
	}
	text, err := json.Marshal(s)
	if err != nil {
		text = []byte(`""`)
	}
	for _, r := range string(text) {
		switch {
		case r < 0x80:
			j.b = append(j.b, byte(r))
		case r >= 0x10000:
			r -= 0x10000
			j.escape(0xd800 + r>>10)
			j.escape(0xdc00 + r&0x3ff)
		default:
			j.escape(r)
		}
	}
}

func (j *JSON) escape(r rune) {
	const hex = "0123456789abcdef"
	j.b = append(j.b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// Float writes a number with a point, as Mesos does.
func (j *JSON) Float(v float64) {
	j.separate()
	if math.IsNaN(v) || math.IsInf(v, 0) {
		v = 0
	}
	j.b = strconv.AppendFloat(j.b, v, 'f', -1, 64)
	if v == math.Trunc(v) {
		j.b = append(j.b, '.', '0')
	}
}

// Int writes a whole number.
func (j *JSON) Int(v int) {
	j.separate()
	j.b = strconv.AppendInt(j.b, int64(v), 10)
}

// Bool writes a truth value.
func (j *JSON) Bool(v bool) {
	j.separate()
	j.b = strconv.AppendBool(j.b, v)
}

// Texts writes a list of strings.
func (j *JSON) Texts(list []string) {
	j.Array(func() {
		for _, s := range list {
			j.Text(s)
		}
	})
}

// Message writes a message as the API does.
func (j *JSON) Message(m proto.Message) {
	j.separate()
	text, err := encoder.Append(j.b, m)
	if err != nil {
		text = append(j.b, "{}"...)
	}
	j.b = text
	if len(j.b) >= pieces {
		j.flush()
	}
}

// heldMost is how large an answer is held whole, so that it has its length.
const heldMost = 1 << 20

// spill holds an answer while it is small, and sends it on once it is not.
type spill struct {
	w    http.ResponseWriter
	r    *http.Request
	held []byte
	out  *transport.LegacyStream
}

func (s *spill) Write(p []byte) (int, error) {
	if s.out != nil {
		return s.out.Write(p)
	}
	if s.held = append(s.held, p...); len(s.held) <= heldMost {
		return len(p), nil
	}
	out, failure := transport.LegacyWriter(s.w, s.r)
	if failure != nil {
		return 0, failure
	}
	held := s.held
	s.out, s.held = out, nil
	if _, err := out.Write(held); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Answer answers 200 with what write writes, of any size.
func Answer(w http.ResponseWriter, r *http.Request, write func(*JSON)) {
	s := &spill{w: w, r: r}
	j := &JSON{w: s}
	write(j)
	j.flush()
	switch failure, ok := j.err.(*transport.Error); {
	case ok && s.out == nil:
		failure.Write(w)
	case s.out != nil:
		_ = s.out.Close() // an error is the client's leaving
	default:
		transport.Legacy(w, r, s.held)
	}
}
