package holder

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

const (
	// attachBuffer is how much output an attached reader may be behind.
	attachBuffer = 1 << 20
	// endPatience is how long after its output a container's end may come.
	endPatience = 10 * time.Second
)

// Attach connects to the container's first process: its output from now on, and
// what is typed if it has a terminal. Several may be attached. Nothing happens
// to the process when the stream ends; its status comes if it ends first.
func (h *Holder) Attach(ctx context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	c, err := h.Find(start.GetContainer())
	if err != nil {
		return err
	}
	x := &execution{session: s, typed: newStdin(), attached: true}
	defer x.close()
	conn, err := x.attach(c)
	if gone(err) {
		return status.Errorf(codes.FailedPrecondition, "container %s has ended", c.ID)
	}
	if err != nil {
		return status.Errorf(codes.FailedPrecondition, "container %s: %v", c.ID, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	x.resize(start.GetSize())
	if err := x.send(&isolatorv1.ExecOutput{Started: true}); err != nil {
		return err
	}
	go x.input(conn)
	cut := make(chan bool, 1) // what the shim says last: that we are too slow, or nothing
	go func() {
		_, err := conn.receive()
		cut <- err == nil
	}()
	var outputs sync.WaitGroup
	for i, f := range x.outputs {
		outputs.Go(func() { x.output(f, i == 1) })
	}
	outputs.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	waiting, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	slow := false
	select {
	case slow = <-cut:
	case <-waiting.Done():
	}
	end, err := h.Wait(waiting, &isolatorv1.WaitRequest{Container: c.ID})
	if err != nil || slow {
		return status.Errorf(codes.ResourceExhausted, "container %s writes faster than it is read here: attach again", c.ID)
	}
	return x.send(&isolatorv1.ExecOutput{Status: end.GetStatus()})
}

// attach gives the shim pipes for the container's output, and takes its terminal
// if it has one.
func (x *execution) attach(c *Container) (*shimConn, error) {
	var theirs []*os.File
	defer func() { closeFiles(theirs) }()
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, attachBuffer) // as much as one may have
		x.outputs, theirs = append(x.outputs, r), append(theirs, w)
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	request := record.Record{{Key: record.Request, Value: "attach"}}
	rights := unix.UnixRights(int(theirs[0].Fd()), int(theirs[1].Fd()))
	if _, _, err := conn.WriteMsgUnix(request.Marshal(), rights, nil); err != nil {
		conn.Close()
		return nil, errors.Join(errShimGone, err)
	}
	answer, terminal, err := conn.receiveFile()
	if err != nil {
		conn.Close()
		return nil, errors.Join(errShimGone, err)
	}
	if terminal != nil {
		x.tty, x.stdin = true, terminal
	}
	if text := answer.Get(record.Error); text != "" {
		conn.Close()
		return nil, errors.New(text)
	}
	return conn, nil
}

// receiveFile reads one record, and the file that may come with it.
func (s *shimConn) receiveFile() (record.Record, *os.File, error) {
	buffer, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	_ = s.SetReadDeadline(time.Now().Add(shimPatience))
	defer func() { _ = s.SetReadDeadline(time.Time{}) }()
	n, oobn, _, _, err := s.ReadMsgUnix(buffer, oob)
	if err != nil {
		return nil, nil, err
	}
	var file *os.File
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			_ = unix.SetNonblock(fd, true)
			file = os.NewFile(uintptr(fd), "terminal")
		}
	}
	r, err := record.Unmarshal(buffer[:n])
	return r, file, err
}
