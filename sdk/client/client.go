// Package client connects to Mezzo's gRPC services: one address, or the
// leading master among several.
//
// Example:
//
//	conn, err := client.Leader(ctx, []string{"127.0.0.1:5061"}, client.Options{})
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	agents, err := operatorv1.NewOperatorClient(conn).ListAgents(ctx, &operatorv1.ListAgentsRequest{})
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// MaxMessage is the largest message, in bytes, that either end takes.
	// Senders keep well below it: what is larger than 256 KiB goes in parts.
	MaxMessage = 64 << 20

	// The keepalive notices a peer that is gone without a word.
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second

	streamWindow     = 1 << 20
	connectionWindow = 8 << 20

	// askTimeout bounds the question to one master whether it leads.
	askTimeout = 5 * time.Second
	// contestTime is how long the other masters have to say that they lead, too,
	// once one has said so.
	contestTime = 200 * time.Millisecond
)

// ErrNoLeader means that masters may have answered, but none of them leads.
var ErrNoLeader = errors.New("no leading master")

// Options say how to connect.
type Options struct {
	// TLS is the client's side of mutual TLS (see Files.Client); nil: plain text.
	TLS *tls.Config
	// Dial holds further gRPC options; they win over those of this package.
	Dial []grpc.DialOption
	// Epochs is what the client has seen of leaders; nil: nothing is remembered.
	// See Leader.
	Epochs *Epochs

	contest time.Duration // 0: contestTime
}

// Dial returns a connection to the process at address, host:port. It does not
// wait for the connection to come about; calls do. The connection is made
// again with back-off whenever it is lost, until it is closed.
func Dial(address string, o Options) (*grpc.ClientConn, error) {
	if err := check(address); err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if o.TLS != nil {
		transport = credentials.NewTLS(o.TLS)
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.3, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		// A proxy of the environment is not meant for the cluster's own traffic.
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}, o.Dial...)
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", address, err)
	}
	return conn, nil
}

func check(address string) error {
	if scheme, _, ok := strings.Cut(address, "://"); ok {
		return fmt.Errorf("a %s:// address cannot be dialed; write host:port, of any master", scheme)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	return nil
}

// dialing is what gRPC says around the error of a connection that did not come
// about, handshaking around that of TLS.
var (
	dialing     = regexp.MustCompile(`^connection error: desc = "transport: Error while dialing: (.*)"$`)
	handshaking = regexp.MustCompile(`^connection error: desc = "transport: authentication handshake failed: (.*)"$`)
)

// Reason is an error of a call in words for people, without gRPC's wrapping.
// TLS 1.3 and gRPC say little of a peer that hangs up, as one does that demands
// TLS or a certificate, or knows none: then this is said.
func Reason(err error) string {
	s, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	message := dialing.ReplaceAllString(s.Message(), "$1")
	switch shake := handshaking.FindStringSubmatch(message); {
	case shake != nil && (strings.HasSuffix(shake[1], "connection reset by peer") || strings.HasSuffix(shake[1], "EOF") || strings.Contains(shake[1], "does not look like a TLS handshake")):
		return "it speaks no TLS, or hung up on this certificate: leave the certificates out, or give one that its authority has signed (" + shake[1] + ")"
	case shake != nil:
		return shake[1]
	case strings.Contains(message, "looked like an HTTP/1.1 header"):
		return "it serves HTTP, not rpc"
	case strings.Contains(message, "tls:"):
	case strings.Contains(message, "error reading server preface"), strings.HasSuffix(message, "write: broken pipe"), strings.HasSuffix(message, "connection reset by peer"):
		return "it closed the connection: it may demand TLS and a certificate of its authority, or have ended (" + message + ")"
	}
	return message
}

// Leader returns a connection to the leading master. All addresses are asked at
// once; a master that is still recovering after its election leads too, and one
// that does not lead tells who does. A master that was stopped or cut off may say
// that it leads when it does not any more: of several the one with the highest
// epoch is taken, and none whose epoch is lower than Options.Epochs has seen.
// The error says of each address why it was not it, and wraps ErrNoLeader; it is
// an ordinary event while masters change, so try again.
func Leader(ctx context.Context, addresses []string, o Options) (*grpc.ClientConn, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no master's address given")
	}
	conn, told, err := leaderAmong(ctx, addresses, o)
	if conn != nil || len(told) == 0 {
		return conn, err
	}
	conn, _, again := leaderAmong(ctx, told, o)
	if conn != nil {
		return conn, nil
	}
	return nil, fmt.Errorf("%w: %w", err, again)
}

// answer is what one master says of who leads.
type answer struct {
	place int
	conn  *grpc.ClientConn // nil: it does not lead
	epoch uint64           // 0: it does not know it yet
	told  string           // the leader's address, by a master that does not lead
	err   error
}

// leaderAmong asks all addresses. told are leaders that others name and that
// were not asked.
func leaderAmong(ctx context.Context, addresses []string, o Options) (leader *grpc.ClientConn, told []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make(chan answer, len(addresses))
	for i, address := range addresses {
		go func() {
			a := ask(ctx, address, o)
			a.place = i
			answers <- a
		}()
	}
	reasons := make([]error, len(addresses))
	var best answer
	for range addresses {
		a := <-answers
		if a.told != "" && !slices.Contains(addresses, a.told) && !slices.Contains(told, a.told) {
			told = append(told, a.told)
		}
		switch {
		case a.err != nil:
			reasons[a.place] = a.err
		case best.conn != nil && best.epoch >= a.epoch:
			a.conn.Close()
		default:
			if best.conn != nil {
				best.conn.Close()
			} else {
				// The others have a moment to contradict.
				defer time.AfterFunc(cmp.Or(o.contest, contestTime), cancel).Stop()
			}
			best = a
		}
	}
	if best.conn == nil {
		return nil, told, fmt.Errorf("%w: %w", ErrNoLeader, errors.Join(reasons...))
	}
	// Another question of the same client may have seen a later one meanwhile.
	if err := o.Epochs.Admit(best.epoch); err != nil {
		best.conn.Close()
		return nil, told, fmt.Errorf("%w: %s: %w", ErrNoLeader, addresses[best.place], err)
	}
	return best.conn, nil, nil
}

// ask asks the master at address whether it leads.
func ask(ctx context.Context, address string, o Options) answer {
	conn, err := Dial(address, o)
	if err != nil {
		return answer{err: err}
	}
	said, err := operatorv1.NewOperatorClient(conn).GetStatus(ctx, &operatorv1.GetStatusRequest{})
	if err == nil && (said.Leadership == "leading" || said.Leadership == "recovering") {
		if err = o.Epochs.admits(said.Epoch); err == nil {
			return answer{conn: conn, epoch: said.Epoch}
		}
		conn.Close()
		return answer{err: fmt.Errorf("%s: %w", address, err)}
	}
	conn.Close()
	switch {
	case err == nil:
		a := answer{err: fmt.Errorf("%s: its leadership is %q", address, said.Leadership)}
		if said.Trouble != "" {
			a.err = fmt.Errorf("%s: its leadership is %q; it was elected and could not lead: %s", address, said.Leadership, said.Trouble)
		}
		for _, e := range said.Leader {
			if e.Name == "rpc" {
				a.told = e.Address
			}
		}
		return a
	case status.Code(err) == codes.Unimplemented:
		return answer{err: fmt.Errorf("%s: it is not a Mezzo master", address)}
	default:
		return answer{err: fmt.Errorf("%s: %s", address, Reason(err))}
	}
}
