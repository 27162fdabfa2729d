package zookeeper_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/core/rpc/rpctest"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
	"github.com/mezzo-os/mezzo/sdk/client"
)

const patience = 90 * time.Second

var shared zktest.Shared

func TestMain(m *testing.M) { zktest.Main(m, &shared) }

func connect(t *testing.T, o zookeeper.Options) *zookeeper.Session {
	t.Helper()
	s, err := zookeeper.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func exists(ctx context.Context, s *zookeeper.Session) error {
	_, err := zookeeper.Do(ctx, s, func(c *zk.Conn) (bool, error) {
		there, _, err := c.Exists("/zookeeper")
		return there, err
	})
	return err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// The ensemble gives another timeout than was asked for: that one counts.
func TestTimeoutIsTheEnsembles(t *testing.T) {
	s := connect(t, zookeeper.Options{Servers: shared.Servers(t), Timeout: time.Hour})
	if err := exists(within(t), s); err != nil {
		t.Fatal(err)
	}
	if got := s.Timeout(); got != time.Minute {
		t.Errorf("the session's timeout is %s, want the ensemble's most, 1m", got)
	}
	if silence := s.Silence(); silence > patience {
		t.Errorf("the silence is %s", silence)
	}
}

// Nobody answers: calls last as long as their context, and Close ends them.
func TestNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // takes connections and says nothing
	s := connect(t, zookeeper.Options{Servers: []string{l.Addr().String(), "no-such-host.invalid:2181"}, Timeout: 2 * time.Second, Auth: "a:b"})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := exists(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- exists(context.Background(), s) }()
	s.Close()
	if err := <-ended; !errors.Is(err, zookeeper.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

// TLS is spoken to members that want a certificate, and to no others.
func TestTLS(t *testing.T) {
	ours, theirs := rpctest.NewAuthority(t), rpctest.NewAuthority(t)
	address := secured(t, ours.Issue("zookeeper"), shared.Servers(t)[0])
	config := func(files client.Files) *tls.Config {
		c, err := files.Client()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := connect(t, zookeeper.Options{Servers: []string{address}, Timeout: 10 * time.Second, TLS: config(ours.Issue("master"))})
	if err := exists(within(t), good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*tls.Config{"plain": nil, "a stranger": config(theirs.Issue("stranger"))} {
		s := connect(t, zookeeper.Options{Servers: []string{address}, Timeout: 2 * time.Second, TLS: c})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := exists(ctx, s); err == nil {
			t.Errorf("%s was served", name)
		}
		cancel()
	}
}

// secured is a listener that demands a certificate, in front of a member.
func secured(t *testing.T, files client.Files, member string) string {
	t.Helper()
	config, err := files.Server()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			outside, err := l.Accept()
			if err != nil {
				return
			}
			inside, err := net.Dial("tcp", member)
			if err != nil {
				outside.Close()
				continue
			}
			both := sync.OnceFunc(func() { outside.Close(); inside.Close() })
			running.Go(func() { defer both(); _, _ = io.Copy(inside, outside) })
			running.Go(func() { defer both(); _, _ = io.Copy(outside, inside) })
		}
	})
	// After the sessions, which are closed first.
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().String()
}
