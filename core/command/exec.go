package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// execOptions are the flags of `mezzo exec` and `mezzo attach`.
type execOptions struct {
	stdin, tty bool
	framework  string
	env        []string
}

func (o *execOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&o.stdin, "stdin", "i", false, "pass on your standard input (default: when it is a terminal)")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal (default: when input and output are one)")
	f.StringVar(&o.framework, "framework", "", "the framework, by its id or its name, when several have such a task")
}

func (c *cli) execCommand() *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use: "exec TASK -- COMMAND [ARG…]", Short: "Run a command in the container of a task",
		Long: `Runs a command in the container of a task, as the task's user and in its
environment, and exits with its status, or 128 plus the signal that ended it.
The command ends when mezzo does.`,
		Example: "  mezzo exec web.1 -- cat /etc/resolv.conf\n  mezzo exec -it web.1 -- sh",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usage("exec: give a task and a command, as in: mezzo exec web.1 -- ls")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			env, err := environment(o.env)
			if err != nil {
				return err
			}
			command := &mezzov1.CommandInfo{Shell: proto.Bool(false), Value: proto.String(args[1]), Arguments: args[1:], Environment: env}
			return c.execSession(cmd, o, args[0], command)
		},
	}
	cmd.Flags().StringArrayVar(&o.env, "env", nil, "NAME=VALUE for the command's environment; may be repeated")
	cmd.Flags().SetInterspersed(true)
	o.add(cmd)
	c.addClientFlags(cmd)
	return cmd
}

func (c *cli) attachCommand() *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use: "attach TASK", Short: "Connect to the output, and the terminal, of a task that runs",
		Long: `Prints what a task writes from now on, and, where the task has a terminal of its
own, types into it what you type. It ends with the task, with the task's status,
or with Ctrl-P Ctrl-Q (Ctrl-C where nothing is typed), which leaves the task
running.`,
		Example: "  mezzo attach console.1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.execSession(cmd, o, args[0], nil)
		},
	}
	o.add(cmd)
	c.addClientFlags(cmd)
	return cmd
}

func (c *cli) execSession(cmd *cobra.Command, o execOptions, task string, command *mezzov1.CommandInfo) error {
	in, terminal := c.terminal()
	if !cmd.Flags().Changed("stdin") {
		o.stdin = terminal
	}
	if !cmd.Flags().Changed("tty") {
		o.tty = terminal && o.stdin
	}
	found, agent, err := c.findTask(cmd.Context(), task, o.framework)
	if err != nil {
		return err
	}
	conn, err := c.dialAddress(agent.RpcAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	start := &operatorv1.ExecStart{TaskId: found.Id, FrameworkId: found.FrameworkId, Command: command, Tty: o.tty}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	client := operatorv1.NewAgentOperatorClient(conn)
	call := client.Exec
	if command == nil {
		call = client.Attach
	}
	stream, err := call(ctx)
	if err != nil {
		return fmt.Errorf("task %s: %w", found.Id, silent(err, agent))
	}
	s := &execSession{cli: c, stream: stream, agent: agent}
	if command == nil && o.tty {
		s.detach = cancel
	}
	if o.tty && terminal {
		start.Size = windowSize(in)
		restore, err := rawTerminal(in)
		if err != nil {
			return err
		}
		defer restore()
		defer s.followSize(in)()
	}
	if err := s.send(&operatorv1.ExecRequest{Start: start, StdinClosed: !o.stdin}); err != nil && !errors.Is(err, io.EOF) {
		return plain(err)
	}
	if o.stdin {
		go s.input(c.in)
	}
	if err := s.output(found.Id); err != nil && (command != nil || ctx.Err() == nil) {
		return err
	}
	return nil
}

// terminal is standard input when that and standard output are a terminal.
func (c *cli) terminal() (*os.File, bool) {
	in, isFile := c.in.(*os.File)
	out, outIsFile := c.out.(*os.File)
	if !isFile || !outIsFile {
		return nil, false
	}
	return in, term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// rawTerminal has every key go to the far end.
func rawTerminal(in *os.File) (restore func(), err error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal cannot be made raw: %w", err)
	}
	return func() { _ = term.Restore(int(in.Fd()), before) }, nil
}

func windowSize(in *os.File) *operatorv1.WindowSize {
	columns, rows, err := term.GetSize(int(in.Fd()))
	if err != nil {
		return nil
	}
	return &operatorv1.WindowSize{Rows: uint32(rows), Columns: uint32(columns)}
}

// execSession is one stream with an agent. Sending is for several goroutines.
type execSession struct {
	cli     *cli
	stream  grpc.BidiStreamingClient[operatorv1.ExecRequest, operatorv1.ExecResponse]
	agent   *operatorv1.Agent // at whose other end it is
	sending sync.Mutex
	detach  func() // leaves a task to itself; nil for a command
	keys    detachKeys
}

func (s *execSession) send(r *operatorv1.ExecRequest) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(r)
}

// followSize tells the far end whenever the window changes.
func (s *execSession) followSize(in *os.File) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for range changed {
			if size := windowSize(in); size != nil {
				_ = s.send(&operatorv1.ExecRequest{Resize: size})
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(changed)
	}
}

func (s *execSession) input(in io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := in.Read(buffer)
		typed, left := append([]byte(nil), buffer[:n]...), false
		if s.detach != nil {
			typed, left = s.keys.pass(typed, err != nil)
		}
		if len(typed) > 0 && s.send(&operatorv1.ExecRequest{Stdin: typed}) != nil {
			return
		}
		if left {
			s.detach()
			return
		}
		if err != nil {
			_ = s.send(&operatorv1.ExecRequest{StdinClosed: true})
			return
		}
	}
}

// detachKeys looks for Ctrl-P Ctrl-Q, as docker has it. They are not the task's,
// which would find them in its next line: so a Ctrl-P waits for the key after it.
type detachKeys struct{ held bool }

// pass returns what of the keys is for the task, and whether the two were typed.
// last: no more keys come.
func (k *detachKeys) pass(typed []byte, last bool) (through []byte, left bool) {
	const ctrlP, ctrlQ = 0x10, 0x11
	for _, b := range typed {
		if k.held && b == ctrlQ {
			return through, true
		}
		if k.held {
			through = append(through, ctrlP)
		}
		if k.held = b == ctrlP; !k.held {
			through = append(through, b)
		}
	}
	if k.held && last {
		k.held, through = false, append(through, ctrlP)
	}
	return through, false
}

// output prints what comes, and returns the command's status.
func (s *execSession) output(task string) error {
	for {
		r, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the connection to task %s ended", task)
		}
		if err != nil {
			return fmt.Errorf("task %s: %w", task, silent(err, s.agent))
		}
		if _, err := s.cli.out.Write(r.GetStdout()); err != nil {
			return err
		}
		if _, err := s.cli.err.Write(r.GetStderr()); err != nil {
			return err
		}
		end := r.GetEnd()
		switch {
		case end == nil:
			continue
		case end.GetSignal() != 0:
			return &exitError{code: 128 + int(end.GetSignal())}
		case end.GetCode() != 0:
			return &exitError{code: int(end.GetCode())}
		}
		return nil
	}
}
