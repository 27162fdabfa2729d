package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
)

// preface is what every HTTP/2 client says first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// greeter is the server's side of a connection's beginning: the credentials'
// own handshake, then the client's first words. Whoever says something else,
// or nothing in time, is logged (rarely) and cut off before gRPC sees it.
type greeter struct {
	credentials.TransportCredentials
	complaints *complaints
}

func (g *greeter) Clone() credentials.TransportCredentials {
	return &greeter{g.TransportCredentials.Clone(), g.complaints}
}

// ServerHandshake is called with a deadline set on the connection.
func (g *greeter) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := g.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, g.refuse(raw, describe("TLS handshake", err))
	}
	first := make([]byte, len(preface))
	n, err := io.ReadFull(conn, first)
	switch {
	case bytes.Equal(first, []byte(preface)):
		return &greeted{Conn: conn, rest: first}, info, nil
	case n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		// Somebody looked whether the port is open. That is no complaint.
		conn.Close()
		return nil, nil, err
	case n > 0 && !bytes.HasPrefix([]byte(preface), first[:n]):
		err = fmt.Errorf("it does not speak gRPC; its first bytes are %q", first[:n])
	default:
		err = describe("greeting", err)
	}
	conn.Close()
	return nil, nil, g.refuse(raw, err)
}

func describe(step string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s: it said nothing, or not enough, in time", step)
	}
	return fmt.Errorf("%s: %w", step, err)
}

func (g *greeter) refuse(raw net.Conn, err error) error {
	g.complaints.say(raw.RemoteAddr(), err)
	return err
}

// greeted gives back the bytes that were read for the greeting.
type greeted struct {
	net.Conn
	rest []byte
}

func (c *greeted) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

// complaints logs bad connections once a minute a host, so that a port scan
// or a misconfigured health check does not fill the log.
type complaints struct {
	logger hclog.Logger
	now    func() time.Time

	mu    sync.Mutex
	hosts map[string]*complaint
}

type complaint struct {
	said       time.Time
	suppressed int
}

const (
	complaintInterval = time.Minute
	complaintHosts    = 1024
)

func (c *complaints) say(from net.Addr, reason error) {
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	now := c.now()
	c.mu.Lock()
	known := c.hosts[host]
	if known != nil && now.Sub(known.said) < complaintInterval {
		known.suppressed++
		c.mu.Unlock()
		return
	}
	suppressed := 0
	if known != nil {
		suppressed = known.suppressed
	}
	if len(c.hosts) >= complaintHosts {
		clear(c.hosts)
	}
	c.hosts[host] = &complaint{said: now}
	c.mu.Unlock()
	c.logger.Warn("refused a connection", "from", from.String(), "reason", reason.Error(), "not_logged_before", suppressed)
}

// streamCancel is put into every stream's context by the server's tap.
type streamCancel struct{}

// CancelStream ends the gRPC stream that ctx belongs to: a Recv or Send that
// waits in it fails, and the client sees the code Canceled. It wakes a handler
// that waits in Recv, and saves the second goroutine that it would need to
// wait for anything else. A handler that does not receive returns instead,
// with a status that says why; its Sender's waiting Send then fails.
func CancelStream(ctx context.Context, cause error) {
	if cancel, ok := ctx.Value(streamCancel{}).(context.CancelCauseFunc); ok {
		cancel(cause)
	}
}
