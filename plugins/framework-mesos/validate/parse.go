// Package validate reads the bodies of Mesos v1 calls and checks them, as far as a
// call shows by itself whether it can be one. Every error is the text of an answer
// with status 400, in the words of Mesos.
//
//	parser := validate.NewParser() // keep it
//	call, err := parser.Scheduler(body, validate.JSON)
//	if err == nil {
//		err = validate.Scheduler(call, principal)
//	}
package validate

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/wirejson"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/walk"
)

// The media types of calls.
const (
	JSON     = "application/json"
	Protobuf = "application/x-protobuf"
)

// firstOwn is the number from which on fields are Mezzo's own, not Mesos's.
const firstOwn = 10000

// A body may hold so many messages, as parts of its call: enough for 10,000 tasks in
// an ACCEPT, or 100,000 in a RECONCILE. Two bytes may stand for a message that takes
// hundreds in memory, so the size of the body is no bound.
const maxMessages = 1 << 19

// maxDepth is how deep messages may be inside each other.
const maxDepth = 100

// text is an error that is an answer as it stands.
type text string

func (t text) Error() string { return string(t) }

// Parser turns bodies into calls. It is safe for concurrent use.
type Parser struct {
	json *wirejson.Decoder
	odd  *walk.Walker // fields of enums, and those that are Mezzo's own
}

// NewParser returns a parser. It learns each type of call once, so keep it.
func NewParser() *Parser {
	return &Parser{
		json: wirejson.Options{MaxField: firstOwn - 1, MaxMessages: maxMessages}.NewDecoder(),
		odd: walk.New(func(fd protoreflect.FieldDescriptor) bool {
			return fd.Enum() != nil || fd.Number() >= firstOwn
		}),
	}
}

// Scheduler reads a scheduler's call. media is JSON or Protobuf. Fields that are
// Mezzo's own are left out, since they are not for a client to set.
func (p *Parser) Scheduler(body []byte, media string) (*schedulerv1.Call, error) {
	call := &schedulerv1.Call{}
	if err := p.call(body, media, call); err != nil {
		return nil, err
	}
	return call, nil
}

// Executor reads an executor's call, as [Parser.Scheduler] does. One that lacks an
// id can be read, and is not valid.
func (p *Parser) Executor(body []byte, media string) (*executorv1.Call, error) {
	call := &executorv1.Call{}
	err := p.call(body, media, call)
	if err == nil {
		return call, nil
	}
	if !partial(body, media, err) {
		return nil, err
	}
	// The ids are required fields, which is all that is wrong with it.
	switch {
	case call.Type == nil:
		return nil, failed("Executor::Call", expecting("type"))
	case call.ExecutorId == nil:
		return nil, failed("Executor::Call", expecting("executor_id"))
	case call.FrameworkId == nil:
		return nil, failed("Executor::Call", expecting("framework_id"))
	}
	return nil, err
}

// partial is whether a body could not be read only since required fields are
// missing.
func partial(body []byte, media string, err error) bool {
	if media == Protobuf {
		return (proto.UnmarshalOptions{RecursionLimit: maxDepth, AllowPartial: true}).Unmarshal(body, &executorv1.Call{}) == nil
	}
	return strings.Contains(err.Error(), "Missing required fields: ")
}

// Master reads a call of the master's operator API.
func (p *Parser) Master(body []byte, media string) (*masterv1.Call, error) {
	call := &masterv1.Call{}
	if err := p.call(body, media, call); err != nil {
		return nil, err
	}
	return call, nil
}

// Agent reads a call of the agent's operator API, where errors have words of their
// own. Of a stream of calls it reads one record.
func (p *Parser) Agent(body []byte, media string) (*agentv1.Call, error) {
	call := &agentv1.Call{}
	if media == Protobuf {
		if p.protobuf(body, call) != nil {
			return nil, text("Failed to parse body into a protobuf object")
		}
		return call, nil
	}
	if err := p.json.Unmarshal(body, call); err != nil {
		return nil, jsonError("", err)
	}
	return call, nil
}

func (p *Parser) call(body []byte, media string, call proto.Message) error {
	if media == Protobuf {
		if p.protobuf(body, call) != nil {
			return text("Failed to parse body into Call protobuf")
		}
		return nil
	}
	if err := p.json.Unmarshal(body, call); err != nil {
		return jsonError("Failed to convert JSON into Call protobuf: ", err)
	}
	return nil
}

// protobuf decodes a body, without fields that are Mezzo's own. A number that an
// enum does not have counts as not set, as it does in other languages; Go keeps it.
func (p *Parser) protobuf(body []byte, call proto.Message) error {
	if len(body) > maxMessages { // else there cannot be too many
		if left := count(body, call.ProtoReflect().Descriptor(), maxMessages, maxDepth); left < 0 {
			return text("The body holds more messages than are allowed")
		}
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(body, call); err != nil {
		return err
	}
	unset := false
	err := p.odd.Visit(call.ProtoReflect(), func(m protoreflect.Message, fd protoreflect.FieldDescriptor) error {
		if fd.Number() >= firstOwn {
			m.Clear(fd)
			return nil
		}
		numbers := fd.Enum().Values()
		if !fd.IsList() {
			if numbers.ByNumber(m.Get(fd).Enum()) == nil {
				m.Clear(fd)
				unset = true
			}
			return nil
		}
		list, kept := m.Mutable(fd).List(), 0
		for i := range list.Len() {
			if v := list.Get(i); numbers.ByNumber(v.Enum()) != nil {
				list.Set(kept, v)
				kept++
			}
		}
		list.Truncate(kept)
		return nil
	})
	if err == nil && unset {
		err = proto.CheckInitialized(call)
	}
	return err
}

// count takes the messages in an encoded message from those that are left, until
// none are. What is not well formed is left to the decoder.
func count(b []byte, d protoreflect.MessageDescriptor, left, depth int) int {
	for len(b) > 0 && left >= 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return left
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(number, typ, b)
		if size < 0 {
			return left
		}
		fd := d.Fields().ByNumber(number)
		if fd != nil && fd.Message() != nil && typ == protowire.BytesType && depth > 0 {
			inner, _ := protowire.ConsumeBytes(b)
			left = count(inner, fd.Message(), left-1, depth-1)
		}
		b = b[size:]
	}
	return left
}

func jsonError(misfit string, err error) error {
	var syntax *wirejson.SyntaxError
	if errors.As(err, &syntax) {
		return text("Failed to parse body into JSON: " + err.Error())
	}
	return text(misfit + err.Error())
}
