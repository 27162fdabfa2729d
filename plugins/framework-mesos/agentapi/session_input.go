package agentapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/validate"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	"github.com/mezzo-os/mezzo/sdk/recordio"
)

const (
	// inputMost is the largest record of an input, in bytes.
	inputMost = 1 << 20
	// inputPiece is how much of it goes to the command at once.
	inputPiece = 32 << 10
)

// input is a request that is a stream: what is typed into a container.
type input struct {
	w       http.ResponseWriter
	r       *http.Request
	media   string // of the records
	records *recordio.Reader
}

// attachInput answers ATTACH_CONTAINER_INPUT, the one call that is a stream. It
// types what comes until the stream or the command ends. The end of the stream is
// not the end of the input: that is a record without data.
func (h *Handler) attachInput(w http.ResponseWriter, r *http.Request) *transport.Error {
	in := &input{w: w, r: r, media: r.Header.Get("Message-Content-Type"), records: recordio.NewReader(r.Body, inputMost)}
	switch in.media {
	case "":
		return transport.Failed(http.StatusBadRequest, "Expecting 'Message-Content-Type' to be set for streaming requests")
	case transport.JSON, transport.Protobuf:
	default:
		return unsupported("Expecting 'Message-Content-Type' of application/json or application/x-protobuf")
	}
	leave, failure := h.sessions.place()
	if failure != nil {
		return failure
	}
	defer leave()
	defer context.AfterFunc(r.Context(), in.interrupt)()
	call, failure := h.next(in)
	switch {
	case failure != nil:
		return failure
	case call == nil:
		return transport.Failed(http.StatusBadRequest, "Expecting a record of ATTACH_CONTAINER_INPUT, and the body is empty")
	}
	q := &request{w: w, r: r, call: call}
	if call.GetType() != agentv1.Call_ATTACH_CONTAINER_INPUT {
		return unsupported("Streaming request is not supported for '" + call.GetType().String() + "' call")
	}
	if err := validate.Agent(call); err != nil {
		return transport.Failed(http.StatusBadRequest, err.Error())
	}
	if failure := q.negotiate(); failure != nil {
		return failure
	}
	x, failure := h.typist(r, call.GetAttachContainerInput().GetContainerId())
	if failure != nil {
		return failure
	}
	defer x.detach()
	transport.LongRequest(w)
	defer context.AfterFunc(x.over, in.interrupt)()
	if failure := h.carry(in, x.session); failure != nil && x.over.Err() == nil {
		return failure
	}
	if x.over.Err() != nil {
		w.Header().Set("Connection", "close") // what still comes is for nobody
	}
	transport.Empty(w, http.StatusOK)
	return nil
}

// interrupt ends the reading of the stream.
func (in *input) interrupt() {
	_ = http.NewResponseController(in.w).SetReadDeadline(time.Unix(1, 0))
}

// target is a command that somebody types into.
type target struct {
	*session
	detach func()
}

// typist connects to the input of a session, or of a task or executor that has a
// terminal.
func (h *Handler) typist(r *http.Request, id *mezzov1.ContainerID) (*target, *transport.Error) {
	x, failure := h.sessions.find(r, id)
	switch {
	case failure != nil:
		return nil, failure
	case x != nil && x.over.Err() != nil:
		return nil, notFound(id)
	case x != nil:
		return &target{session: x, detach: func() {}}, nil
	}
	state, failure := h.known(transport.CallContext(r), id)
	if failure != nil {
		return nil, failure
	}
	if !hasTerminal(state, id.GetValue()) {
		return nil, transport.Failed(http.StatusBadRequest, "Container "+path(id)+" was launched without a terminal: it has no input to attach to")
	}
	if x, failure = h.sessions.attach(r, id, nil); failure != nil {
		return nil, failure
	}
	return &target{session: x, detach: func() { x.cancel(errDetached) }}, nil
}

// next reads one record; nil: there are no more.
func (h *Handler) next(in *input) (*agentv1.Call, *transport.Error) {
	bad := func(text string) (*agentv1.Call, *transport.Error) {
		return nil, &transport.Error{Code: http.StatusBadRequest, Text: text, Header: http.Header{"Connection": {"close"}}}
	}
	record, err := in.records.Next()
	var large *recordio.TooLargeError
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case errors.As(err, &large):
		_, failure := bad("The input has " + err.Error() + ": send it in smaller ones")
		failure.Code = http.StatusRequestEntityTooLarge
		return nil, failure
	case errors.Is(err, os.ErrDeadlineExceeded):
		_, failure := bad("The first record did not come in time")
		failure.Code = http.StatusRequestTimeout
		return nil, failure
	case err != nil:
		return bad("The input cannot be read: " + err.Error())
	}
	call, err := h.parser.Agent(record, in.media)
	switch {
	case err != nil:
		return bad(err.Error())
	case call.Type == nil:
		return bad("Failed to validate agent::Call: Expecting 'type' to be present")
	}
	return call, nil
}

// carry types what comes. A record that is none ends it.
func (h *Handler) carry(in *input, x *session) *transport.Error {
	for {
		call, failure := h.next(in)
		if call == nil {
			return failure
		}
		what, text := typed(call)
		if text != "" {
			return transport.Failed(http.StatusBadRequest, "Failed to validate agent::Call: "+text)
		}
		for _, one := range what {
			if err := x.send(in.r.Context(), one); err != nil {
				// Its end is near; why it ended is not the input's trouble.
				select {
				case <-x.over.Done():
				case <-in.r.Context().Done():
				}
				return ending503()
			}
		}
	}
}

// typed is what a record means to the command; an error's text if nothing.
func typed(call *agentv1.Call) (what []*operatorv1.ExecRequest, text string) {
	x := call.GetAttachContainerInput()
	switch process := x.GetProcessIo(); {
	case call.GetType() != agentv1.Call_ATTACH_CONTAINER_INPUT:
		return nil, "Expecting 'type' to be ATTACH_CONTAINER_INPUT in every record of the stream"
	case x.GetType() != agentv1.Call_AttachContainerInput_PROCESS_IO:
		return nil, "Expecting 'attach_container_input.type' to be PROCESS_IO"
	case process == nil:
		return nil, "Expecting 'attach_container_input.process_io' to be present"
	case process.GetType() == agentv1.ProcessIO_DATA:
		return data(process.GetData())
	case process.GetType() == agentv1.ProcessIO_CONTROL:
		return control(process.GetControl())
	}
	return nil, "Expecting 'process_io.type' to be DATA or CONTROL"
}

func data(d *agentv1.ProcessIO_Data) (what []*operatorv1.ExecRequest, text string) {
	if d.GetType() != agentv1.ProcessIO_Data_STDIN {
		return nil, "Expecting 'process_io.data.type' to be STDIN"
	}
	rest := d.GetData()
	if len(rest) == 0 {
		return []*operatorv1.ExecRequest{{StdinClosed: true}}, ""
	}
	for len(rest) > 0 {
		n := min(len(rest), inputPiece)
		what = append(what, &operatorv1.ExecRequest{Stdin: rest[:n]})
		rest = rest[n:]
	}
	return what, ""
}

func control(c *agentv1.ProcessIO_Control) (what []*operatorv1.ExecRequest, text string) {
	switch c.GetType() {
	case agentv1.ProcessIO_Control_HEARTBEAT:
		return nil, ""
	case agentv1.ProcessIO_Control_TTY_INFO:
		window := c.GetTtyInfo().GetWindowSize()
		if window == nil {
			return nil, "Expecting 'process_io.control.tty_info.window_size' to be present"
		}
		return []*operatorv1.ExecRequest{{Resize: &operatorv1.WindowSize{Rows: window.GetRows(), Columns: window.GetColumns()}}}, ""
	}
	return nil, "Expecting 'process_io.control.type' to be TTY_INFO or HEARTBEAT"
}
