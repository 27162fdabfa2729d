package broken

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// startTerminal starts the process on a terminal, whose output goes to its file.
func (b *box) startTerminal() error {
	master, slave, err := pty.Open()
	if err != nil {
		return err
	}
	defer slave.Close()
	file, err := os.OpenFile(b.stdout, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		master.Close()
		return err
	}
	b.cmd.Stdin, b.cmd.Stdout, b.cmd.Stderr = slave, slave, slave
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // a group of its own, too
	if err := b.cmd.Start(); err != nil {
		master.Close()
		file.Close()
		return err
	}
	b.terminal = master
	go func() {
		defer file.Close()
		_, _ = io.Copy(file, master) // until the terminal is closed
	}()
	return nil
}

// Exec runs a process beside the container's.
func (i *instance) Exec(ctx context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	if _, err := i.box(start.GetContainer()); err != nil {
		return err
	}
	var process specs.Process
	if err := json.Unmarshal(start.GetProcess(), &process); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	x := &execution{session: s, cmd: exec.Command(process.Args[0], process.Args[1:]...), tty: start.GetTty() && !i.fault.execIsBlind}
	x.cmd.Env, x.cmd.Dir = process.Env, process.Cwd
	if err := x.start(start.GetSize()); err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	// It may have ended. What stays too long is ended with the isolator, which
	// leaves nothing.
	end := func() { _ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL) }
	defer i.carries(x, end)()
	if !i.fault.execStays {
		defer context.AfterFunc(ctx, end)()
	}
	if err := x.send(&isolatorv1.ExecOutput{Started: true}); err != nil {
		end()
		return err
	}
	go x.input()
	x.carry()
	_ = x.cmd.Wait() // ProcessState says how it ended
	out := exitStatus(x.cmd.ProcessState)
	if i.fault.execIsFine {
		out.Code = 0
	}
	return x.send(&isolatorv1.ExecOutput{Status: out})
}

// execution is one Exec.
type execution struct {
	cmd     *exec.Cmd
	tty     bool
	stdin   io.WriteCloser
	outputs [2]io.ReadCloser // of a terminal only the first

	mu      sync.Mutex
	session isolator.Session
}

func (x *execution) send(o *isolatorv1.ExecOutput) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.session.Send(o)
}

func (x *execution) start(size *isolatorv1.WindowSize) (err error) {
	if x.tty {
		master, err := pty.StartWithSize(x.cmd, &pty.Winsize{Rows: uint16(size.GetRows()), Cols: uint16(size.GetColumns())})
		x.stdin, x.outputs[0] = master, master
		return err
	}
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if x.stdin, err = x.cmd.StdinPipe(); err != nil {
		return err
	}
	if x.outputs[0], err = x.cmd.StdoutPipe(); err != nil {
		return err
	}
	if x.outputs[1], err = x.cmd.StderrPipe(); err != nil {
		return err
	}
	return x.cmd.Start()
}

// carry sends the output until its end.
func (x *execution) carry() {
	var readers sync.WaitGroup
	for n, from := range x.outputs {
		if from == nil {
			continue
		}
		readers.Go(func() {
			for buffer := make([]byte, 32<<10); ; {
				n2, err := from.Read(buffer)
				if err != nil {
					return
				}
				o := &isolatorv1.ExecOutput{Stdout: buffer[:n2]}
				if n == 1 {
					o = &isolatorv1.ExecOutput{Stderr: buffer[:n2]}
				}
				_ = x.send(o) // a stream that has ended ends the process
			}
		})
	}
	readers.Wait()
}

func (x *execution) input() {
	for {
		in, err := x.session.Recv()
		if err != nil {
			return
		}
		_, _ = x.stdin.Write(in.GetStdin()) // it may have ended
		if in.GetStdinClosed() && !x.tty {
			x.stdin.Close()
		}
		if size, master := in.GetResize(), x.outputs[0]; size != nil && x.tty {
			_ = pty.Setsize(master.(*os.File), &pty.Winsize{Rows: uint16(size.GetRows()), Cols: uint16(size.GetColumns())})
		}
		if in.GetSignal() != 0 {
			_ = syscall.Kill(-x.cmd.Process.Pid, syscall.Signal(in.GetSignal()))
		}
	}
}

// Attach reads the file that the process writes, which holds up nobody.
func (i *instance) Attach(ctx context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	b, err := i.box(start.GetContainer())
	if err != nil {
		return err
	}
	file, err := os.Open(b.stdout)
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	defer file.Close()
	if !i.fault.attachRemembers {
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	if i.fault.attachTakes {
		defer b.signal(syscall.SIGKILL)
	}
	if err := s.Send(&isolatorv1.ExecOutput{Started: true}); err != nil {
		return err
	}
	go func() {
		for {
			in, err := s.Recv()
			if err != nil {
				return
			}
			if b.terminal != nil && !i.fault.attachIsDeaf {
				_, _ = b.terminal.Write(in.GetStdin()) // it may have ended
			}
		}
	}()
	return i.follow(ctx, b, file, s)
}

// follow sends what is written to a file until its writer has ended.
func (i *instance) follow(ctx context.Context, b *box, file *os.File, s isolator.Session) error {
	for sent, buffer := 0, make([]byte, 32<<10); ctx.Err() == nil; {
		over := false
		select {
		case <-b.ended:
			over = true
		default:
		}
		n, err := file.Read(buffer)
		switch {
		case n > 0:
			if sent += n; sent > 1<<20 && i.fault.attachSkips {
				continue
			}
			if i.fault.attachHolds {
				b.signal(syscall.SIGSTOP)
			}
			if err := s.Send(&isolatorv1.ExecOutput{Stdout: buffer[:n]}); err != nil {
				return err
			}
			if i.fault.attachHolds {
				b.signal(syscall.SIGCONT)
			}
		case err != io.EOF:
			return err
		case over:
			return s.Send(&isolatorv1.ExecOutput{Status: exitStatus(b.cmd.ProcessState)})
		default:
			time.Sleep(2 * time.Millisecond)
		}
	}
	return ctx.Err()
}
