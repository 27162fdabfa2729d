package operator

import (
	"bytes"
	"io"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// Encoder writes messages as Mesos does: fields of Mezzo's own are left out.
var encoder = wirejson.Options{Defaults: true, Infinity: true, ASCII: true, MaxField: 9999}.NewEncoder()

// holdLimit is how large an answer is held whole. A larger one is made twice:
// once to know its length, which clients need, and once to be sent.
const holdLimit = 1 << 20

// Write answers 200 with a message.
func Write(w http.ResponseWriter, media string, m proto.Message) {
	write := writer(media, m)
	held := &meter{limit: holdLimit}
	if err := write(held); err != nil {
		transport.Fail(w, http.StatusInternalServerError, "The answer cannot be written: "+err.Error())
		return
	}
	if held.size == held.held.Len() {
		transport.Body(w, media, held.held.Bytes())
		return
	}
	held.held = bytes.Buffer{}
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(held.size))
	_ = write(w) // an error is the client's leaving
}

// writer returns what writes a message, as often as it is wanted.
func writer(media string, m proto.Message) func(io.Writer) error {
	if media == transport.Protobuf {
		return func(out io.Writer) error { return writeProtobuf(out, m) }
	}
	return func(out io.Writer) error { return writeJSON(out, m) }
}

// meter counts what is written, and holds it while it is small.
type meter struct {
	limit int
	size  int
	held  bytes.Buffer
}

func (m *meter) Write(p []byte) (int, error) {
	m.size += len(p)
	if m.size <= m.limit {
		m.held.Write(p)
	}
	return len(p), nil
}

// pieces is about how much is written at once.
const pieces = 64 << 10

// writeProtobuf writes a message in pieces, as proto.Marshal would.
func writeProtobuf(w io.Writer, m proto.Message) error {
	if proto.Size(m) <= pieces {
		b, err := proto.Marshal(m)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	// The large fields one by one, the rest as a message of its own.
	in := m.ProtoReflect()
	rest := in.New()
	var large []protoreflect.FieldDescriptor
	in.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() != nil && !fd.IsMap() {
			large = append(large, fd)
		} else {
			rest.Set(fd, v)
		}
		return true
	})
	b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(rest.Interface())
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	batch := make([]byte, 0, pieces)
	for _, fd := range large {
		each := func(v protoreflect.Value) error {
			one := v.Message().Interface()
			size := proto.Size(one)
			batch = protowire.AppendTag(batch, fd.Number(), protowire.BytesType)
			batch = protowire.AppendVarint(batch, uint64(size))
			if size <= pieces {
				if batch, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(batch, one); err != nil || len(batch) < pieces {
					return err
				}
			}
			if _, err := w.Write(batch); err != nil {
				return err
			}
			batch = batch[:0]
			if size > pieces {
				return writeProtobuf(w, one)
			}
			return nil
		}
		v := in.Get(fd)
		if !fd.IsList() {
			if err := each(v); err != nil {
				return err
			}
			continue
		}
		for i := range v.List().Len() {
			if err := each(v.List().Get(i)); err != nil {
				return err
			}
		}
	}
	_, err = w.Write(batch)
	return err
}

// writeJSON writes a message in pieces. Answers that are lists have them also
// when they are empty, as Mesos writes them.
func writeJSON(w io.Writer, m proto.Message) error {
	j := &jsonWriter{w: w}
	j.message(m.ProtoReflect())
	j.flush(0)
	return j.err
}

// shape says how a message is written that is not left to the encoder.
type shape int

const (
	whole  shape = iota // by the encoder
	opened              // field by field, since a list is in it
	list                // its lists are written when they are empty, too
)

// shapes are those of the messages that may be large.
var shapes = func() map[protoreflect.FullName]shape {
	out := map[protoreflect.FullName]shape{}
	for _, m := range []proto.Message{&masterv1.Response{}, &masterv1.Response_GetState{}, &masterv1.Event{}, &masterv1.Event_Subscribed{}} {
		out[m.ProtoReflect().Descriptor().FullName()] = opened
	}
	for _, m := range []proto.Message{
		&masterv1.Response_GetAgents{}, &masterv1.Response_GetFrameworks{}, &masterv1.Response_GetExecutors{}, &masterv1.Response_GetTasks{},
	} {
		out[m.ProtoReflect().Descriptor().FullName()] = list
	}
	return out
}()

type jsonWriter struct {
	w   io.Writer
	b   []byte
	err error
}

func (j *jsonWriter) flush(above int) {
	if len(j.b) <= above || j.err != nil {
		return
	}
	_, j.err = j.w.Write(j.b)
	j.b = j.b[:0]
}

func (j *jsonWriter) message(m protoreflect.Message) {
	if j.err != nil {
		return
	}
	kind := shapes[m.Descriptor().FullName()]
	if kind == whole {
		j.b, j.err = encoder.Append(j.b, m.Interface())
		j.flush(pieces)
		return
	}
	j.b = append(j.b, '{')
	first := true
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		empty := !m.Has(fd)
		if empty && (kind != list || !fd.IsList() || deprecated(fd)) {
			continue
		}
		if !first {
			j.b = append(j.b, ',')
		}
		first = false
		j.b = append(append(append(j.b, '"'), fd.Name()...), '"', ':')
		j.field(fd, m.Get(fd))
	}
	j.b = append(j.b, '}')
}

func (j *jsonWriter) field(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case fd.IsList():
		j.b = append(j.b, '[')
		for i := range v.List().Len() {
			if i > 0 {
				j.b = append(j.b, ',')
			}
			j.message(v.List().Get(i).Message())
		}
		j.b = append(j.b, ']')
	case fd.Message() != nil:
		j.message(v.Message())
	case fd.Enum() != nil:
		name := fd.Enum().Values().ByNumber(v.Enum())
		if name == nil {
			j.b = append(j.b, "null"...)
			return
		}
		j.b = append(append(append(j.b, '"'), name.Name()...), '"')
	case fd.Kind() == protoreflect.DoubleKind: // seconds
		text := strconv.FormatFloat(v.Float(), 'f', -1, 64)
		if v.Float() == float64(int64(v.Float())) {
			text += ".0"
		}
		j.b = append(j.b, text...)
	}
}

func deprecated(fd protoreflect.FieldDescriptor) bool {
	return fd.Options().(*descriptorpb.FieldOptions).GetDeprecated()
}
