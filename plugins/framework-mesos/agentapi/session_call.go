package agentapi

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
)

// container answers the calls about containers (E.3).
func (h *Handler) container(q *request) *transport.Error {
	switch call := q.call; call.GetType() {
	case agentv1.Call_LAUNCH_NESTED_CONTAINER_SESSION:
		x := call.GetLaunchNestedContainerSession()
		return h.launchSession(q, plan{id: x.GetContainerId(), command: x.GetCommand(), bound: true}, x.GetContainer())
	case agentv1.Call_LAUNCH_NESTED_CONTAINER:
		x := call.GetLaunchNestedContainer()
		return h.launch(q, plan{id: x.GetContainerId(), command: x.GetCommand()}, x.GetContainer())
	case agentv1.Call_LAUNCH_CONTAINER:
		x := call.GetLaunchContainer()
		switch {
		case x.GetContainerId().Parent == nil:
			return h.launchStandalone(q, x)
		case len(x.GetResources()) > 0 || len(x.GetLimits()) > 0:
			return transport.Failed(http.StatusBadRequest, "A nested container has no resources and limits of its own: it takes its part of its parent's")
		}
		return h.launch(q, plan{id: x.GetContainerId(), command: x.GetCommand()}, x.GetContainer())
	case agentv1.Call_ATTACH_CONTAINER_OUTPUT:
		return h.attachOutput(q, call.GetAttachContainerOutput().GetContainerId())
	case agentv1.Call_WAIT_NESTED_CONTAINER:
		return h.wait(q, call.GetWaitNestedContainer().GetContainerId())
	case agentv1.Call_WAIT_CONTAINER:
		return h.wait(q, call.GetWaitContainer().GetContainerId())
	case agentv1.Call_KILL_NESTED_CONTAINER:
		x := call.GetKillNestedContainer()
		return h.kill(q, x.GetContainerId(), x.Signal)
	case agentv1.Call_KILL_CONTAINER:
		x := call.GetKillContainer()
		return h.kill(q, x.GetContainerId(), x.Signal)
	case agentv1.Call_REMOVE_NESTED_CONTAINER:
		return h.remove(q, call.GetRemoveNestedContainer().GetContainerId())
	default:
		return h.remove(q, call.GetRemoveContainer().GetContainerId())
	}
}

// launch starts a command that lives by no connection.
func (h *Handler) launch(q *request, p plan, container *mezzov1.ContainerInfo) *transport.Error {
	failure := p.complete(container)
	if failure == nil {
		_, failure = h.sessions.launch(q.r, p)
	}
	if failure == nil || failure == errRunsAlready {
		launched(q.w, failure)
		return nil
	}
	return failure
}

func launched(w http.ResponseWriter, already *transport.Error) {
	code := http.StatusOK
	if already != nil {
		code = already.Code
	}
	transport.Empty(w, code)
}

// launchSession starts a command, and is its reader.
func (h *Handler) launchSession(q *request, p plan, container *mezzov1.ContainerInfo) *transport.Error {
	if failure := p.complete(container); failure != nil {
		return failure
	}
	x, failure := h.sessions.launch(q.r, p)
	if failure == errRunsAlready {
		launched(q.w, failure)
		return nil
	}
	if failure != nil {
		return failure
	}
	defer x.cancel(errDetached)
	h.stream(q, x, x.main)
	return nil
}

// complete takes from the description of the container what a command that runs
// in its parent's container can have. For anything else it is refused.
func (p *plan) complete(container *mezzov1.ContainerInfo) *transport.Error {
	bad := func(text string) *transport.Error { return transport.Failed(http.StatusBadRequest, text) }
	if p.command.GetValue() == "" && len(p.command.GetArguments()) == 0 {
		return bad("Expecting 'command' to have something to run: a nested container runs in its parent's, which has no command of its own to fall back on")
	}
	if container == nil {
		return nil
	}
	rest := proto.CloneOf(container)
	rest.Type, rest.TtyInfo = mezzov1.ContainerInfo_MESOS.Enum(), nil
	if container.GetType() != mezzov1.ContainerInfo_MESOS || !proto.Equal(rest, &mezzov1.ContainerInfo{Type: rest.Type}) {
		return bad("The provided ContainerInfo is not supported: a nested container runs in its parent's, and has nothing of its own but a terminal ('tty_info')")
	}
	p.tty, p.size = container.TtyInfo != nil, container.GetTtyInfo().GetWindowSize()
	return nil
}

// attachOutput shows what a container writes from now on.
func (h *Handler) attachOutput(q *request, id *mezzov1.ContainerID) *transport.Error {
	leave, failure := h.sessions.place()
	if failure != nil {
		return failure
	}
	defer leave()
	x, failure := h.sessions.find(q.r, id)
	if failure != nil {
		return failure
	}
	if x != nil {
		r, leave := x.attach()
		defer leave()
		h.stream(q, x, r)
		return nil
	}
	if _, failure := h.known(transport.CallContext(q.r), id); failure != nil {
		return failure
	}
	if x, failure = h.sessions.attach(q.r, id, newReader(0)); failure != nil {
		return failure
	}
	defer x.cancel(errDetached)
	h.stream(q, x, x.main)
	return nil
}

// waited is the answer about a container that has ended, as far as that is known.
func waited(end ending) *agentv1.Response_WaitContainer {
	out := &agentv1.Response_WaitContainer{ExitStatus: end.status, Message: proto.String(end.text)}
	if end.status == nil {
		out.State = mezzov1.TaskState_TASK_FAILED.Enum()
	}
	return out
}

// wait answers when a container has ended.
func (h *Handler) wait(q *request, id *mezzov1.ContainerID) *transport.Error {
	x, failure := h.sessions.find(q.r, id)
	if failure != nil {
		return failure
	}
	var end *agentv1.Response_WaitContainer
	if x == nil {
		if end, failure = h.waitStandalone(q.r, id); end == nil && failure == nil {
			end, failure = h.waitTask(q.r, id)
		}
	} else {
		select {
		case <-x.over.Done():
		case <-q.r.Context().Done():
			return ending503()
		}
		if x.end.failed != nil {
			failure = notFound(id)
		}
		end = waited(x.end)
	}
	if failure != nil {
		return failure
	}
	if q.call.GetType() == agentv1.Call_WAIT_CONTAINER {
		return q.respond(agentv1.Response_WAIT_CONTAINER, &agentv1.Response{WaitContainer: end})
	}
	return q.respond(agentv1.Response_WAIT_NESTED_CONTAINER, &agentv1.Response{WaitNestedContainer: &agentv1.Response_WaitNestedContainer{
		ExitStatus: end.ExitStatus, State: end.State, Reason: end.Reason, Limitation: end.Limitation, Message: end.Message,
	}})
}

// ending503 is the answer when the adapter ends, or to one who has left.
func ending503() *transport.Error {
	return transport.Failed(http.StatusServiceUnavailable, "The adapter is ending")
}

func notFound(id *mezzov1.ContainerID) *transport.Error {
	return transport.Failed(http.StatusNotFound, "Container "+path(id)+" cannot be found")
}

// kill signals a container.
func (h *Handler) kill(q *request, id *mezzov1.ContainerID, number *int32) *transport.Error {
	signal := int32(unix.SIGKILL)
	if number != nil {
		signal = *number
	}
	if signal < 1 || signal > 64 {
		return transport.Failed(http.StatusBadRequest, "Expecting 'signal' to be from 1 to 64")
	}
	x, failure := h.sessions.find(q.r, id)
	if failure != nil {
		return failure
	}
	ctx, cancel := context.WithTimeout(transport.CallContext(q.r), startPatience)
	defer cancel()
	if x == nil {
		if _, failure := h.known(ctx, id); failure != nil {
			return failure
		}
		if _, err := h.options.Agent.Signal(ctx, &operatorv1.SignalRequest{ContainerId: id.GetValue(), Signal: signal}); err != nil {
			if failure = refusal(err); failure.Code == http.StatusBadRequest {
				return notFound(id) // it ended meanwhile
			}
			return failure
		}
		transport.Empty(q.w, http.StatusOK)
		return nil
	}
	if x.over.Err() != nil {
		return notFound(id)
	}
	if err := x.signal(ctx, signal); err != nil && x.over.Err() == nil {
		return transport.Failed(http.StatusServiceUnavailable, "The command cannot be signalled: it does not read its input, behind which the signal waits")
	}
	transport.Empty(q.w, http.StatusOK)
	return nil
}

// remove forgets a container that has ended.
func (h *Handler) remove(q *request, id *mezzov1.ContainerID) *transport.Error {
	runs := transport.Failed(http.StatusInternalServerError, "Container "+path(id)+" has not terminated yet")
	x, failure := h.sessions.find(q.r, id)
	switch {
	case failure != nil:
		return failure
	case x != nil && x.over.Err() == nil:
		return runs
	case x != nil:
		h.sessions.remove(x)
	default:
		if removed, failure := h.removeStandalone(q.r, id); removed || failure != nil {
			if failure == nil {
				transport.Empty(q.w, http.StatusOK)
			}
			return failure
		}
		// What there is no more is removed, as it is with Mesos.
		switch _, failure := h.known(transport.CallContext(q.r), id); {
		case failure == nil:
			return runs
		case failure.Code != http.StatusNotFound:
			return failure
		}
	}
	transport.Empty(q.w, http.StatusOK)
	return nil
}

// stream answers with what a reader gets, and heartbeats, until the command has
// ended. When it is cut off before, the connection is broken.
func (h *Handler) stream(q *request, x *session, from *reader) {
	if q.media == transport.RecordIO {
		q.w.Header().Set("Message-Content-Type", q.inner)
	}
	records, err := transport.OpenRecords(q.w, q.media)
	if err != nil {
		return
	}
	write := func(io *agentv1.ProcessIO) bool {
		record, err := h.encode(q, io)
		return err == nil && records.Write(record) == nil
	}
	beat := time.NewTicker(h.options.Heartbeat)
	defer beat.Stop()
	// pass writes one piece; false: nobody reads any more.
	pass := func(out *operatorv1.ExecResponse, open bool) bool {
		if !open { // too slow
			panic(http.ErrAbortHandler)
		}
		from.behind.Add(-size(out))
		return pieces(out, write)
	}
	for {
		select {
		case out, open := <-from.out:
			if !pass(out, open) {
				return
			}
			continue
		case <-beat.C:
			if !write(heartbeat(h.options.Heartbeat)) {
				return
			}
			continue
		case <-q.r.Context().Done():
			return
		case <-x.over.Done():
		}
		break
	}
	for {
		select {
		case out, open := <-from.out:
			if !pass(out, open) {
				return
			}
			continue
		default:
		}
		break
	}
	if x.end.status == nil {
		panic(http.ErrAbortHandler)
	}
}

// pieces writes output as records.
func pieces(out *operatorv1.ExecResponse, write func(*agentv1.ProcessIO) bool) bool {
	data := func(kind agentv1.ProcessIO_Data_Type, b []byte) bool {
		return len(b) == 0 || write(&agentv1.ProcessIO{
			Type: agentv1.ProcessIO_DATA.Enum(), Data: &agentv1.ProcessIO_Data{Type: kind.Enum(), Data: b},
		})
	}
	return data(agentv1.ProcessIO_Data_STDOUT, out.GetStdout()) && data(agentv1.ProcessIO_Data_STDERR, out.GetStderr())
}

func heartbeat(interval time.Duration) *agentv1.ProcessIO {
	return &agentv1.ProcessIO{Type: agentv1.ProcessIO_CONTROL.Enum(), Control: &agentv1.ProcessIO_Control{
		Type:      agentv1.ProcessIO_Control_HEARTBEAT.Enum(),
		Heartbeat: &agentv1.ProcessIO_Control_Heartbeat{Interval: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(interval))}},
	}}
}

// encode is a record as the client reads it.
func (h *Handler) encode(q *request, io *agentv1.ProcessIO) ([]byte, error) {
	if q.media == transport.Protobuf || q.media == transport.RecordIO && q.inner == transport.Protobuf {
		return proto.Marshal(io)
	}
	return h.json.Append(nil, io)
}
