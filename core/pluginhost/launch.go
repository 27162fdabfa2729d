package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// launcher is what the launch of one process needs.
type launcher struct {
	spec         Spec
	path         string // what is executed, links resolved
	versions     []uint32
	socketDir    string // a new directory for this process, removed with it
	startTimeout time.Duration
	logger       hclog.Logger // named <kind>.<name>
	onCall       func(plugin, method string, took time.Duration, err error)
}

// launch starts the process and shakes hands. With an error nothing is left of
// it.
func (l launcher) launch(ctx context.Context) (*process, *Error) {
	p := l.prepare()
	// go-plugin knows no context: at the deadline the process is killed, and
	// go-plugin's calls return.
	ctx, cancel := context.WithTimeout(ctx, l.startTimeout)
	defer cancel()
	connected := make(chan error, 1)
	go func() { connected <- p.connect() }()
	var err error
	select {
	case err = <-connected:
		if err == nil {
			p.child.adopted.Store(true)
			return p, nil
		}
		p.child.settle(ctx)
	case <-ctx.Done():
		err = ctx.Err()
		defer func() { <-connected }()
	}
	problem := l.explain(p, err)
	p.kill()
	return nil, problem
}

// prepare makes all that a launch needs and starts nothing.
func (l launcher) prepare() *process {
	out := &output{}
	forward := &logForwarder{logger: l.logger, name: l.spec.logName()}
	stray := func(line string) { l.logger.Info(line, "stream", "stdout") }
	p := &process{out: out, dir: l.socketDir, child: newChild(l.path, l.environment(), out, forward.line, stray)}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake(),
		VersionedPlugins: pluginSets(l.versions),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
			p.child.cmd.Env = append(p.child.cmd.Env, cmd.Env...)
			return p.child, nil
		},
		StartTimeout:     2 * l.startTimeout, // the context of launch is the limit
		AutoMTLS:         true,
		SkipHostEnv:      true,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: l.socketDir},
		Logger:           hclog.NewNullLogger(), // errors are returned; lines are forwarded by child
		SyncStdout:       &strayWriter{line: stray},
		SyncStderr:       &strayWriter{line: func(line string) { l.logger.Info(line, "stream", "stderr") }},
		GRPCDialOptions:  l.dialOptions(),
	})
	return p
}

// dialOptions raise the limits of messages and measure calls.
func (l launcher) dialOptions() []grpc.DialOption {
	out := []grpc.DialOption{grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(plugin.MaxMessageSize), grpc.MaxCallSendMsgSize(plugin.MaxMessageSize))}
	if l.onCall == nil {
		return out
	}
	return append(out, grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		began := time.Now()
		err := invoke(ctx, method, req, reply, conn, opts...)
		l.onCall(l.spec.ID(), method, time.Since(began), err)
		return err
	}))
}

// environment is all that a plugin inherits: no secret of the host's, and the
// same whatever shell the host was started from.
func (l launcher) environment() []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		fmt.Sprintf("%s=%d", plugin.EnvHostPipe, hostPipeFD),
		fmt.Sprintf("%s=%s", plugin.EnvLogLevel, l.logger.GetLevel()),
	}
	if tz, ok := os.LookupEnv("TZ"); ok {
		env = append(env, "TZ="+tz)
	}
	for _, name := range slices.Sorted(maps.Keys(l.spec.Env)) {
		env = append(env, name+"="+l.spec.Env[name])
	}
	return env
}

// settle waits a moment for a process that has said its last word, so that the
// error can tell how it ended.
func (c *child) settle(ctx context.Context) {
	select {
	case <-c.noMore:
	default:
		return
	}
	if c.pid() == 0 || c.tooMuch.Load() {
		return
	}
	select {
	case <-c.exited:
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
	}
}

// explain turns a failed launch into words, from what is known of the process.
func (l launcher) explain(p *process, err error) *Error {
	e := &Error{Plugin: l.spec.title(), Path: l.path, Step: StepLaunch, Output: p.out.get(), Err: err}
	served := uint32(p.child.plugin.Load())
	select {
	case <-p.child.exited:
		e.Problem = "it " + p.child.ending() + " before it was ready"
		e.Remedy = "check that this file is a Mezzo plugin: run by hand, one says what it is"
		return e
	default:
	}
	switch {
	case errors.Is(err, context.Canceled):
		e.Problem = "its start was cancelled" // wherever it had got to
	case p.child.pid() == 0:
		e.Problem = fmt.Sprintf("it cannot be started: %v", rootCause(err))
		e.Remedy = "check that the file is a program for this machine, and that this user may run it"
	case p.child.tooMuch.Load():
		e.Problem = "it writes on stdout, but not the plugin handshake"
		e.Remedy = "check that this file is a Mezzo plugin; a plugin calls Serve and prints nothing on stdout before"
	case served != 0 && !slices.Contains(l.versions, served):
		v := &VersionError{Plugin: l.spec.title(), Path: l.path, PluginServes: []uint32{served}, HostSpeaks: l.versions}
		return l.spec.versionError(v)
	case errors.Is(err, context.DeadlineExceeded) && served == 0:
		e.Problem = fmt.Sprintf("it did not shake hands within %v", l.startTimeout)
		e.Remedy = "check that this file is a Mezzo plugin; a plugin calls Serve before it does anything that takes time"
	case served == 0:
		e.Problem = "it closed stdout without the plugin handshake, and runs on"
		e.Remedy = "check that this file is a Mezzo plugin"
	default:
		e.Problem = fmt.Sprintf("the connection to it failed: %v", err)
		e.Remedy = "build the plugin with a current Mezzo SDK"
	}
	return e
}

// rootCause leaves out "fork/exec /the/path:", since the error names the file.
func rootCause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// textBusy says that the file was still open for writing somewhere when it was
// executed, as just after a copy: trying again helps.
func textBusy(err error) bool { return errors.Is(err, syscall.ETXTBSY) }
