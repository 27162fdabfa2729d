package pluginhost

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// The test binary is also the plugin, in many states of repair, and the host
// that is killed: what it is comes in its environment, or in its name.
const (
	modeEnv = "MEZZO_TEST_MODE"
	hostEnv = "MEZZO_TEST_HOST"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(hostEnv) != "":
		runHost(os.Getenv(hostEnv))
	case os.Getenv(modeEnv) != "":
		runPlugin(os.Getenv(modeEnv))
	case strings.HasPrefix(filepath.Base(os.Args[0]), "mezzo-"):
		runPlugin("good")
	default:
		goleak.VerifyTestMain(m)
	}
}

// settings is the test plugin's configuration.
type settings struct {
	Greeting string        `hcl:"greeting" default:"hello" help:"What it says."`
	Wait     time.Duration `hcl:"wait" help:"How long Configure takes."`
	Refuse   bool          `hcl:"refuse"`
	Warn     bool          `hcl:"warn"`
	Exit     bool          `hcl:"exit" help:"Die in Configure."`
}

func (c *settings) Validate() []plugin.Diagnostic {
	if c.Greeting == "" {
		return []plugin.Diagnostic{plugin.Errorf("empty greeting", "greeting", "Say something.")}
	}
	return nil
}

// runPlugin is the plugin's main.
func runPlugin(mode string) {
	def := definition()
	mode, argument, _ := strings.Cut(mode, ":")
	switch mode {
	case "good":
	case "foreign": // without go-plugin and the SDK
		runForeign("")
		return
	case "metrics": // of its own, right or wrong
		runForeign(argument)
		return
	case "garbage": // and then silence
		fmt.Println("Welcome to the wrong program!")
		os.Exit(0)
	case "flood":
		for {
			fmt.Println("la la la la la la la la la la")
		}
	case "exit":
		fmt.Fprintln(os.Stderr, "first line")
		fmt.Fprintln(os.Stderr, "cannot open /dev/policy")
		os.Exit(3)
	case "silent":
		io.Copy(io.Discard, os.NewFile(hostPipeFD, "host")) // until the host goes
		os.Exit(0)
	case "mute":
		os.Stdout.Close()
		io.Copy(io.Discard, os.NewFile(hostPipeFD, "host"))
		os.Exit(0)
	case "chatty": // stray prints before the handshake
		fmt.Println("loading policies…")
		fmt.Println("done")
	case "kind":
		def.Kind = plugin.Isolator
	case "name":
		def.Name = argument
	case "contract":
		n, _ := strconv.ParseUint(argument, 10, 32)
		def.ContractVersions = []uint32{uint32(n)}
	case "companion":
		def.Capabilities = []string{"companion:" + argument}
	case "crash": // as long as a file says so
		if _, err := os.Stat(argument); err == nil {
			fmt.Fprintln(os.Stderr, "still broken")
			os.Exit(4)
		}
	case "stubborn": // neither Shutdown nor SIGTERM moves it
		def.Shutdown = func(context.Context) { select {} }
	case "bye":
		def.Shutdown = func(context.Context) { os.WriteFile(argument, []byte("bye"), 0o600) }
	default:
		fmt.Fprintf(os.Stderr, "unknown mode %q\n", mode)
		os.Exit(9)
	}
	plugin.Serve(def)
}

func definition() plugin.Definition {
	control := &control{}
	return plugin.Definition{
		Name: "test", Version: "1.2.3", Kind: plugin.Allocator, Summary: "A plugin for tests.",
		Capabilities: []string{"talks"},
		NewConfig:    func() any { return new(settings) },
		Configure: func(ctx context.Context, c any, env plugin.Environment) []plugin.Diagnostic {
			cfg := c.(*settings)
			control.config, control.env = cfg, env
			switch {
			case cfg.Exit:
				fmt.Println("dying in Configure")
				os.Exit(5)
			case cfg.Refuse:
				return []plugin.Diagnostic{plugin.Errorf("bad greeting", "greeting", "It is not said here.")}
			case cfg.Warn:
				return []plugin.Diagnostic{plugin.Warningf("odd greeting", "greeting", "Nobody says that.")}
			}
			<-time.After(cfg.Wait) // whatever the host's patience
			return nil
		},
		Register: func(s grpc.ServiceRegistrar) { s.RegisterService(&controlService, control) },
	}
}

// control is the service of the test plugin's kind: it does what it is told.
type control struct {
	config *settings
	env    plugin.Environment
}

func (c *control) do(ctx context.Context, command string) (string, error) {
	verb, argument, _ := strings.Cut(command, " ")
	switch verb {
	case "greet":
		return c.config.Greeting, nil
	case "exit":
		code, _ := strconv.Atoi(argument)
		fmt.Fprintln(os.Stderr, "told to exit")
		os.Exit(code)
	case "panic":
		go func() { panic(argument) }()
		<-ctx.Done()
	case "print":
		fmt.Println(argument)
	case "log":
		c.env.Logger.Named("engine").Debug("counted", "sheep", 7, "word", argument)
		c.env.Logger.Error(argument)
	case "unhealthy":
		c.env.Health.Unhealthy(argument)
	case "degraded":
		c.env.Health.Degraded(argument)
	case "healthy":
		c.env.Health.Healthy()
	case "env":
		return strings.Join(os.Environ(), "\n"), nil
	case "datadir":
		return c.env.DataDir, nil
	case "fds":
		entries, err := os.ReadDir("/proc/self/fd")
		return strconv.Itoa(len(entries)), err
	case "child": // something that holds stderr after the plugin's death
		cmd := exec.Command("sleep", argument)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return "", err
		}
		return strconv.Itoa(cmd.Process.Pid), nil
	case "dial":
		id, _ := strconv.ParseUint(argument, 10, 32)
		conn, err := c.env.Dial(uint32(id))
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return do(ctx, conn, "whoami")
	}
	return "", nil
}

type doer interface {
	do(ctx context.Context, command string) (string, error)
}

var controlService = grpc.ServiceDesc{
	ServiceName: "test.Control",
	HandlerType: (*doer)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Do",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			out, err := srv.(doer).do(ctx, in.GetValue())
			return wrapperspb.String(out), err
		},
	}},
}

func do(ctx context.Context, conn *grpc.ClientConn, command string) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/test.Control/Do", wrapperspb.String(command), out)
	return out.GetValue(), err
}

// runHost is the host that is killed: it starts the plugin and says its pid.
func runHost(dataDir string) {
	host, err := New(Options{DataDir: dataDir, Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr})})
	if err == nil {
		var i *Instance
		i, err = host.Start(context.Background(), Spec{
			Kind: plugin.Allocator, Name: "test", Path: os.Getenv("MEZZO_TEST_BINARY"), Env: map[string]string{modeEnv: "good"},
		})
		if err == nil {
			fmt.Println(i.Status().PID)
			bufio.NewReader(os.Stdin).ReadByte() // for ever
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
