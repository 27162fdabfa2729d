package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/secret"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// probe looks at a task once, beside whatever else is done with its container.
func (c *containers) probe(o state.Probe) {
	c.mu.Lock()
	w := c.worker(o.Plan.Container)
	if w.probing == nil {
		w.life, w.probing = context.WithCancel(context.Background())
	}
	life := w.life
	c.mu.Unlock()
	c.run(func(ctx context.Context) {
		ctx, cancel := merge(ctx, life)
		defer cancel()
		looking, stop := ctx, context.CancelFunc(func() {})
		if o.Timeout > 0 {
			looking, stop = context.WithTimeout(ctx, o.Timeout)
		}
		defer stop()
		in := state.Probed{Container: o.Plan.Container, Serial: o.Serial}
		switch {
		case o.Look.Command != nil:
			c.lookByCommand(looking, o, &in)
		case o.Look.Scheme != "":
			lookByHTTP(looking, o, &in)
		default:
			lookByTCP(looking, o, &in)
		}
		if ctx.Err() != nil {
			return // the container is being cleaned up, or the agent ends
		}
		if looking.Err() != nil && !in.Void {
			in.Err, in.Refused = late(o.Timeout), false
		}
		c.post(ctx, in)
	})
}

func late(timeout time.Duration) string { return fmt.Sprintf("no answer within %v", timeout) }

// lookByCommand runs a command in the container.
func (c *containers) lookByCommand(ctx context.Context, o state.Probe, in *state.Probed) {
	process, err := c.process(o.Plan, o.Look.Command, false)
	if err != nil {
		in.Err = err.Error()
		return
	}
	launcher, err := c.isolator(state.Launcher(o.Plan.Chain))
	if err != nil {
		in.Void = true
		return
	}
	client, err := launcher.await(ctx)
	if err != nil {
		in.Void = true
		return
	}
	exit, err := execute(ctx, client, o.Plan.Container, process)
	switch {
	case status.Code(err) == codes.Unavailable:
		in.Void = true // the plugin went away, not the task
	case status.Code(err) == codes.Canceled, status.Code(err) == codes.DeadlineExceeded:
		in.Err = late(o.Timeout) // the plugin's clock was the first
	case err != nil:
		in.Err = fmt.Sprintf("the command could not be run: %s", reason(err))
	case !exit.GetKnown():
		in.Void = true
	case exit.GetSignal() != 0:
		in.Err = fmt.Sprintf("the command was ended by signal %d", exit.GetSignal())
	default:
		in.Code = exit.GetCode()
	}
}

// process is a further process in a container: as the task's own, with another
// command, whose environment comes on top.
func (c *containers) process(p *state.Plan, command *mezzov1.CommandInfo, tty bool) ([]byte, error) {
	if secret.InEnvironment(command) {
		return nil, errors.New("the command has a secret in its environment: it finds those of the task")
	}
	p, err := c.revealed(p)
	if err != nil {
		return nil, err
	}
	user, err := accountOf(p.Task)
	if err != nil {
		return nil, err
	}
	text, err := baseSpec(p, c.work.path(p.Sandbox), user, c.endpoint, c.hostname, nil)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, err
	}
	if spec.Process == nil {
		return nil, errors.New("the container has no process of its own to run a command beside")
	}
	process := spec.Process
	process.Terminal, process.Args = tty, arguments(command)
	for _, v := range command.GetEnvironment().GetVariables() {
		process.Env = append(process.Env, v.GetName()+"="+v.GetValue())
	}
	return json.Marshal(process)
}

// execute runs a process to its end. What it writes is nobody's.
func execute(ctx context.Context, client isolatorv1.IsolatorClient, container string, process []byte) (*isolatorv1.ExitStatus, error) {
	stream, err := client.Exec(ctx)
	if err != nil {
		return nil, err
	}
	start := &isolatorv1.ExecInput{Start: &isolatorv1.ExecStart{Container: container, Process: process}, StdinClosed: true}
	if err := stream.Send(start); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for {
		out, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if out.GetStatus() != nil {
			return out.GetStatus(), nil
		}
	}
}

func lookByTCP(ctx context.Context, o state.Probe, in *state.Probed) {
	conn, err := dialIn(ctx, o.Netns, address(o.Look))
	if err != nil {
		in.Err, in.Refused = err.Error(), true
		return
	}
	conn.Close()
}

func address(l state.Look) string {
	host := "127.0.0.1"
	if l.IPv6 {
		host = "::1"
	}
	return net.JoinHostPort(host, strconv.FormatUint(uint64(l.Port), 10))
}

// maxRedirects is how many redirects a check follows.
const maxRedirects = 10

// lookByHTTP makes a request. A certificate is the task's own affair.
func lookByHTTP(ctx context.Context, o state.Probe, in *state.Probed) {
	path := o.Look.Path
	if path == "" {
		path = "/"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Look.Scheme+"://"+address(o.Look)+path, nil)
	if err != nil {
		in.Err = err.Error()
		return
	}
	request.Header.Set("User-Agent", "mezzo-check")
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		// A redirect may not lead the agent out of the task's own addresses.
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(to)
			if host == "localhost" {
				host = "127.0.0.1"
			}
			if err != nil || !net.ParseIP(host).IsLoopback() {
				return nil, fmt.Errorf("%s is not the task's: a check follows redirects on the loopback address only", to)
			}
			return dialIn(ctx, o.Netns, net.JoinHostPort(host, port))
		},
	}
	follow := func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		return nil
	}
	answer, err := (&http.Client{Transport: transport, CheckRedirect: follow}).Do(request)
	if err != nil {
		in.Err = err.Error()
		return
	}
	answer.Body.Close()
	in.Code = int32(answer.StatusCode)
}

// dialIn connects from within a network namespace.
func dialIn(ctx context.Context, netns, to string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: time.Minute}
	if netns == "" {
		return dialer.DialContext(ctx, "tcp", to)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	// A socket belongs to the namespace that its thread is in when it is made. The
	// thread is this goroutine's alone, and ends with it.
	go func() {
		runtime.LockOSThread()
		file, err := os.Open(netns)
		if err == nil {
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
			file.Close()
		}
		if err != nil {
			done <- result{err: fmt.Errorf("the task's network cannot be entered: %w", err)}
			return
		}
		conn, err := dialer.DialContext(ctx, "tcp", to)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
