package holder

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Exec runs another process in a container. The shim starts it, so that it
// ends with the container at the latest; it is killed when the stream ends.
func (h *Holder) Exec(ctx context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	c, err := h.Find(start.GetContainer())
	if err != nil {
		return err
	}
	var process specs.Process
	if err := json.Unmarshal(start.GetProcess(), &process); err != nil {
		return status.Errorf(codes.InvalidArgument, "container %s: the process is not an OCI process: %v", c.ID, err)
	}
	r := record.Record{}
	if err := ProcessRecord(&r, &process); err != nil {
		return Subject(c.ID, err)
	}
	if err := c.addWalls(&r); err != nil {
		return status.Errorf(codes.Internal, "container %s: what binds its processes: %v", c.ID, err)
	}
	if start.GetTty() {
		r.AddInt(record.TTY, 1)
	}
	x := &execution{session: s, typed: newStdin()}
	defer x.close()
	theirs, err := x.open(start)
	if err != nil {
		return Subject(c.ID, err)
	}
	defer closeFiles(theirs[:])
	conn, err := c.exec(r, theirs)
	if gone(err) {
		return status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
	}
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "container %s: %v", c.ID, err)
	}
	defer conn.Close() // the shim kills the process then, if it still runs
	closeFiles(theirs[:])
	if err := x.send(&isolatorv1.ExecOutput{Started: true}); err != nil {
		return err
	}
	return x.run(ctx, c, conn)
}

// exec asks the shim to start the process on the three files.
func (c *Container) exec(r record.Record, files [3]*os.File) (*shimConn, error) {
	f, err := os.CreateTemp(c.Dir, "exec-")
	if err != nil {
		return nil, err
	}
	path := f.Name()
	f.Close()
	defer os.Remove(path)
	if err := record.Write(path, r, false); err != nil {
		return nil, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	request := record.Record{{Key: record.Request, Value: "exec"}, {Key: record.File, Value: filepath.Base(path)}}
	rights := unix.UnixRights(int(files[0].Fd()), int(files[1].Fd()), int(files[2].Fd()))
	if _, _, err := conn.WriteMsgUnix(request.Marshal(), rights, nil); err != nil {
		conn.Close()
		return nil, errors.Join(errShimGone, err)
	}
	answer, err := conn.receive()
	if err == nil && answer.Has(record.Error) {
		err = errors.New(answer.Get(record.Error))
	} else if err != nil {
		err = errors.Join(errShimGone, err)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// outputPatience is how long the rest of a process's output is waited for once
// it has ended.
const outputPatience = 2 * time.Second

// execution is one running Exec: our ends of the process's files.
type execution struct {
	sending sync.Mutex
	session isolator.Session
	stdin   *os.File
	typed   *stdin     // on its way to stdin
	outputs []*os.File // stdout, stderr; or the terminal alone
	tty     bool
	// attached: the process is not this stream's own, so the end of input is not
	// its end, and what has no terminal has no input.
	attached bool
}

func (x *execution) send(o *isolatorv1.ExecOutput) error {
	x.sending.Lock()
	defer x.sending.Unlock()
	return x.session.Send(o)
}

func (x *execution) close() {
	x.typed.end()
	if x.stdin != nil {
		x.stdin.Close()
	}
	closeFiles(x.outputs)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// open makes the process's files and returns its ends of them.
func (x *execution) open(start *isolatorv1.ExecStart) (theirs [3]*os.File, err error) {
	if start.GetTty() {
		master, slave, err := pty.Open()
		if err != nil {
			return theirs, err
		}
		x.tty, x.stdin, x.outputs = true, master, []*os.File{master}
		x.resize(start.GetSize())
		return [3]*os.File{slave, slave, slave}, nil
	}
	in, inW, err := os.Pipe()
	if err != nil {
		return theirs, err
	}
	x.stdin, theirs[0] = inW, in
	for i := 1; i <= 2; i++ {
		r, w, err := os.Pipe()
		if err != nil {
			closeFiles(theirs[:])
			return theirs, err
		}
		x.outputs, theirs[i] = append(x.outputs, r), w
	}
	return theirs, nil
}

func (x *execution) resize(size *isolatorv1.WindowSize) {
	if x.tty && size != nil {
		_ = pty.Setsize(x.stdin, &pty.Winsize{Rows: uint16(size.GetRows()), Cols: uint16(size.GetColumns())})
	}
}

// run carries input and output until the process has ended and its output has
// been sent.
func (x *execution) run(ctx context.Context, c *Container, conn *shimConn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go x.input(conn)
	var outputs sync.WaitGroup
	for i, f := range x.outputs {
		outputs.Add(1)
		go func() {
			defer outputs.Done()
			x.output(f, i == 1)
		}()
	}
	end, err := conn.receive()
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return status.Errorf(codes.FailedPrecondition, "container %s has ended, and the process with it", c.ID)
	}
	x.drain(&outputs)
	return x.send(&isolatorv1.ExecOutput{Status: exitStatus(end)})
}

// drain waits for the rest of the output; something that the process left
// running in the container may hold it open, so not for ever.
func (x *execution) drain(outputs *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { outputs.Wait(); close(done) }()
	for _, f := range x.outputs {
		_ = f.SetReadDeadline(time.Now().Add(outputPatience))
	}
	<-done
}

func (x *execution) output(f *os.File, stderr bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := f.Read(buffer)
		if n > 0 {
			o := &isolatorv1.ExecOutput{}
			if stderr {
				o.Stderr = append([]byte(nil), buffer[:n]...)
			} else {
				o.Stdout = append([]byte(nil), buffer[:n]...)
			}
			if x.send(o) != nil {
				return
			}
		}
		if err != nil { // io.EOF, EIO from a terminal, or the deadline
			return
		}
	}
}

// input passes on what the far end sends, until it ends or the files close.
func (x *execution) input(conn *shimConn) {
	if x.stdin != nil {
		go x.typed.write(x.stdin, x.endInput)
	}
	for {
		in, err := x.session.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				x.typed.close()
			}
			return
		}
		x.resize(in.GetResize())
		if x.stdin != nil {
			x.typed.put(in.GetStdin())
		}
		if in.GetStdinClosed() {
			x.typed.close()
		}
		if sig := in.GetSignal(); sig > 0 {
			_ = conn.send(record.Record{field(record.Signal, int64(sig))})
		}
	}
}

// endInput closes standard input: a pipe's end, or a terminal's end-of-file
// character.
func (x *execution) endInput() {
	if x.attached {
		return
	}
	if x.tty {
		_, _ = x.stdin.Write([]byte{4})
		return
	}
	x.stdin.Close()
}

// addWalls gives a process that is started in the container what binds the
// container's own. What it says itself stays.
func (c *Container) addWalls(r *record.Record) error {
	walls, err := record.Read(c.File(record.WallsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // made by an earlier build, or without a process
	}
	if err != nil {
		return err
	}
	for _, f := range walls {
		if !r.Has(f.Key) {
			*r = append(*r, f)
		}
	}
	return nil
}
