package ui

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// agentIdle is how long a connection to an agent is kept that nobody uses.
	agentIdle = time.Minute
	// agentConns bounds the connections to agents.
	agentConns = 256
	// downloadPiece is how much is read of a file at a time.
	downloadPiece = 512 << 10
	// downloadWrite is how long a browser may take for a piece.
	downloadWrite = time.Minute
)

// agentConn is a connection to an agent, and who uses it.
type agentConn struct {
	conn  *grpc.ClientConn
	users int
	timer *time.Timer // ends it when nobody uses it
}

// agent returns the agent that a request names, and a function to call when it
// is no longer used.
func (u *UI) agent(r *http.Request) (operatorv1.AgentOperatorClient, func(), error) {
	address, err := u.options.Agent(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, nil, err
	}
	return u.dial(address)
}

func (u *UI) dial(address string) (operatorv1.AgentOperatorClient, func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c := u.agents[address]
	switch {
	case u.closed:
		return nil, nil, fmt.Errorf("%w: the master is stopping", rpc.ErrUnavailable)
	case c == nil && len(u.agents) >= agentConns:
		return nil, nil, fmt.Errorf("%w: %d agents are being looked at; try again in a minute", rpc.ErrExhausted, agentConns)
	case c == nil:
		conn, err := u.options.Dial(address)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: agent at %s: %w", rpc.ErrUnavailable, address, err)
		}
		c = &agentConn{conn: conn}
		u.agents[address] = c
	}
	c.users++
	if c.timer != nil {
		c.timer.Stop()
	}
	return operatorv1.NewAgentOperatorClient(c.conn), func() { u.release(address, c) }, nil
}

func (u *UI) release(address string, c *agentConn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.users--; c.users > 0 || u.closed {
		return
	}
	c.timer = time.AfterFunc(agentIdle, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if c.users == 0 && u.agents[address] == c {
			delete(u.agents, address)
			c.conn.Close()
		}
	})
}

// Close ends the connections to agents.
func (u *UI) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for address, c := range u.agents {
		if c.timer != nil {
			c.timer.Stop()
		}
		c.conn.Close()
		delete(u.agents, address)
	}
}

// asked asks an agent something; its error comes back as the core's.
func asked[M proto.Message](u *UI, r *http.Request, ask func(context.Context, operatorv1.AgentOperatorClient) (M, error)) (proto.Message, error) {
	agent, done, err := u.agent(r)
	if err != nil {
		return nil, err
	}
	defer done()
	answer, err := ask(r.Context(), agent)
	if err != nil {
		return nil, rpc.FromStatus(err)
	}
	return answer, nil
}

func (u *UI) agentState(_ http.ResponseWriter, r *http.Request) (proto.Message, error) {
	return asked(u, r, func(ctx context.Context, a operatorv1.AgentOperatorClient) (*operatorv1.AgentStateResponse, error) {
		return a.GetState(ctx, &operatorv1.GetAgentStateRequest{})
	})
}

func (u *UI) agentUsage(_ http.ResponseWriter, r *http.Request) (proto.Message, error) {
	return asked(u, r, func(ctx context.Context, a operatorv1.AgentOperatorClient) (*operatorv1.ContainerUsageResponse, error) {
		return a.Usage(ctx, &operatorv1.ContainerUsageRequest{Containers: r.URL.Query()["container"]})
	})
}

func (u *UI) agentFiles(_ http.ResponseWriter, r *http.Request) (proto.Message, error) {
	path := r.URL.Query().Get("path")
	if err := u.options.Read(r.Context(), path); err != nil {
		return nil, err
	}
	return asked(u, r, func(ctx context.Context, a operatorv1.AgentOperatorClient) (*operatorv1.ListFilesResponse, error) {
		return a.ListFiles(ctx, &operatorv1.ListFilesRequest{Path: path})
	})
}

// agentRead answers with a part of a file. X-File-Size is how large it is; a
// length of 0 asks for that alone.
func (u *UI) agentRead(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, err1 := strconv.ParseUint(q.Get("offset"), 10, 64)
	length, err2 := strconv.ParseUint(q.Get("length"), 10, 64)
	if err1 != nil || err2 != nil {
		mezzohttp.Error(w, fmt.Errorf("%w: offset and length are to be whole numbers of bytes, not %q and %q", rpc.ErrInvalid, q.Get("offset"), q.Get("length")))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	part, err := u.readFile(r.WithContext(ctx), offset, length)
	if err != nil {
		mezzohttp.Error(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-File-Size", strconv.FormatUint(part.GetSize(), 10))
	_, _ = w.Write(part.GetData()) // a client that is gone is no error
}

func (u *UI) readFile(r *http.Request, offset, length uint64) (*operatorv1.ReadFileResponse, error) {
	path := r.URL.Query().Get("path")
	if err := u.options.Read(r.Context(), path); err != nil {
		return nil, err
	}
	agent, done, err := u.agent(r)
	if err != nil {
		return nil, err
	}
	defer done()
	part, err := agent.ReadFile(r.Context(), &operatorv1.ReadFileRequest{Path: path, Offset: offset, Length: length})
	if err != nil {
		return nil, rpc.FromStatus(err)
	}
	return part, nil
}

// agentDownload answers with a file as it was long when it was asked for.
func (u *UI) agentDownload(w http.ResponseWriter, r *http.Request) {
	part, err := u.readFile(r, 0, downloadPiece)
	if err != nil {
		mezzohttp.Error(w, err)
		return
	}
	size := part.GetSize()
	name := path.Base(r.URL.Query().Get("path"))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	w.Header().Set("Content-Length", strconv.FormatUint(size, 10))
	control := http.NewResponseController(w)
	for offset := uint64(0); ; {
		_ = control.SetWriteDeadline(time.Now().Add(downloadWrite)) // net/http's own can
		data := part.GetData()[:min(uint64(len(part.GetData())), size-offset)]
		if _, err := w.Write(data); err != nil || len(data) == 0 {
			return // the length that was told shows the browser what is missing
		}
		if offset += uint64(len(data)); offset == size {
			return
		}
		if part, err = u.readFile(r, offset, downloadPiece); err != nil {
			return
		}
	}
}
