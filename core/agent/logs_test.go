package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// output writes a container's output and rotates it, as a shim does.
type output struct {
	t    *testing.T
	path string
	keep int
}

func (o *output) write(text string) {
	o.t.Helper()
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		o.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		o.t.Fatal(err)
	}
}

func (o *output) rotate() {
	o.t.Helper()
	_ = os.Remove(fmt.Sprintf("%s.%d", o.path, o.keep))
	for n := o.keep - 1; n > 0; n-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", o.path, n), fmt.Sprintf("%s.%d", o.path, n+1))
	}
	if err := os.Rename(o.path, o.path+".1"); err != nil {
		o.t.Fatal(err)
	}
	o.write("")
}

// logRig is a running task, and a client of its agent.
type logRig struct {
	t      *testing.T
	kernel *kernel
	master *master
	id     string
	out    *output
	client operatorv1.AgentOperatorClient
}

func newLogRig(t *testing.T) *logRig {
	k, m := newKernel(), newMaster(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	client := operatorClient(t, p)
	m.ready()
	m.run(task("t1"))
	id := m.update(mezzov1.TaskState_TASK_RUNNING).GetContainerStatus().GetContainerId().GetValue()
	return &logRig{
		t: t, kernel: k, master: m, id: id, client: client,
		out: &output{t: t, path: filepath.Join(k.get(id).sandbox, "stdout"), keep: 3},
	}
}

func (r *logRig) exit() { r.kernel.exit(r.id, &isolatorv1.ExitStatus{Known: true}) }

func (r *logRig) open(request *operatorv1.LogsRequest) *logStream {
	r.t.Helper()
	request.TaskId = "t1"
	s, err := r.client.Logs(within(r.t), request)
	if err != nil {
		r.t.Fatal(err)
	}
	return &logStream{t: r.t, stream: s}
}

type logStream struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[operatorv1.LogsChunk]
	text   string
	offset uint64
}

// until reads until the text so far is this.
func (s *logStream) until(want string) {
	s.t.Helper()
	for s.text != want {
		if !strings.HasPrefix(want, s.text) {
			s.t.Fatalf("read %q, want %q", s.text, want)
		}
		s.next()
	}
}

func (s *logStream) next() {
	s.t.Helper()
	c, err := s.stream.Recv()
	if err != nil {
		s.t.Fatalf("after %q: %v", s.text, err)
	}
	if s.text == "" {
		s.offset = c.GetOffset()
	}
	s.text += string(c.GetData())
}

func (s *logStream) end() {
	s.t.Helper()
	if c, err := s.stream.Recv(); !errors.Is(err, io.EOF) {
		s.t.Fatalf("after %q: %v, %v; want the end", s.text, c, err)
	}
}

func TestLogsFollowAcrossRotation(t *testing.T) {
	r := newLogRig(t)
	s := r.open(&operatorv1.LogsRequest{Follow: true})
	r.out.write("one\n")
	s.until("one\n")
	r.out.write("two\n")
	r.out.rotate()
	r.out.write("three\n")
	s.until("one\ntwo\nthree\n")
	// Several at once.
	r.out.rotate()
	r.out.write("four\n")
	r.out.rotate()
	r.out.write("five\n")
	s.until("one\ntwo\nthree\nfour\nfive\n")
	// What is written last comes although the task has ended.
	r.out.write("last")
	r.exit()
	s.until("one\ntwo\nthree\nfour\nfive\nlast")
	s.end()

	// After the end, the whole that is left: stdout.3 to stdout.
	r.master.update(mezzov1.TaskState_TASK_FINISHED)
	s = r.open(&operatorv1.LogsRequest{Follow: true})
	s.until("one\ntwo\nthree\nfour\nfive\nlast")
	s.end()
}

func TestLogsOfAFollowerThatIsLeftBehind(t *testing.T) {
	r := newLogRig(t)
	r.out.write("0\n")
	s := r.open(&operatorv1.LogsRequest{Follow: true})
	s.until("0\n")
	for n := 1; n <= 6; n++ {
		r.out.rotate()
		r.out.write(fmt.Sprintf("%d\n", n))
	}
	r.exit()
	for {
		c, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		s.text += string(c.GetData())
	}
	// How much was rotated away unread is a matter of luck; the end is not, nor
	// the order.
	if !strings.HasSuffix(s.text, "3\n4\n5\n6\n") || !subsequence(s.text, "0\n1\n2\n3\n4\n5\n6\n") {
		t.Errorf("read %q", s.text)
	}
}

func subsequence(part, whole string) bool {
	for _, line := range strings.SplitAfter(whole, "\n") {
		part = strings.TrimPrefix(part, line)
	}
	return part == ""
}

func TestLogsFromTheEnd(t *testing.T) {
	r := newLogRig(t)
	r.out.write("one\ntwo\n")
	r.out.rotate()
	r.out.write("three\nfour")
	for _, c := range []struct {
		request *operatorv1.LogsRequest
		want    string
	}{
		{&operatorv1.LogsRequest{}, "one\ntwo\nthree\nfour"},
		{&operatorv1.LogsRequest{TailBytes: proto.Uint64(6)}, "e\nfour"},
		{&operatorv1.LogsRequest{TailBytes: proto.Uint64(12)}, "o\nthree\nfour"},
		{&operatorv1.LogsRequest{TailBytes: proto.Uint64(1000)}, "one\ntwo\nthree\nfour"},
		{&operatorv1.LogsRequest{TailBytes: proto.Uint64(0)}, ""},
		{&operatorv1.LogsRequest{TailLines: proto.Uint32(1)}, "four"},
		{&operatorv1.LogsRequest{TailLines: proto.Uint32(2)}, "three\nfour"},
		{&operatorv1.LogsRequest{TailLines: proto.Uint32(3)}, "two\nthree\nfour"},
		{&operatorv1.LogsRequest{TailLines: proto.Uint32(9)}, "one\ntwo\nthree\nfour"},
		{&operatorv1.LogsRequest{TailLines: proto.Uint32(0)}, ""},
		{&operatorv1.LogsRequest{Stream: operatorv1.LogStream_LOG_STREAM_STDERR}, ""},
	} {
		s := r.open(c.request)
		s.until(c.want)
		s.end()
		if want := uint64(len("one\ntwo\nthree\nfour") - len(c.want)); c.want != "" && s.offset != want {
			t.Errorf("%v: offset %d, want %d", c.request, s.offset, want)
		}
	}
}

// TestLogsNeverLeaveTheSandbox: a task may replace its output by what it likes.
func TestLogsNeverLeaveTheSandbox(t *testing.T) {
	r := newLogRig(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, replace := range map[string]func() error{
		"link":          func() error { return os.Symlink(secret, r.out.path) },
		"relative link": func() error { return os.Symlink("../../../../../../../../../../../.."+secret, r.out.path) },
		"socket": func() error {
			// An address may be short only; the directory is not.
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			defer l.Close()
			return os.Rename(l.Addr().String(), r.out.path)
		},
		"directory": func() error { return os.Mkdir(r.out.path, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.RemoveAll(r.out.path)
			if err := replace(); err != nil {
				t.Fatal(err)
			}
			s, err := r.client.Logs(within(t), &operatorv1.LogsRequest{TaskId: "t1"})
			if err != nil {
				t.Fatal(err)
			}
			if c, err := s.Recv(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("read %q, %v; want an error", c.GetData(), err)
			}
		})
	}
}

func TestLogsOfWhatIsNotThere(t *testing.T) {
	r := newLogRig(t)
	s, err := r.client.Logs(within(t), &operatorv1.LogsRequest{TaskId: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("unknown task: %v, want NotFound", err)
	}
	// A follower that goes away leaves nothing behind: goleak looks.
	ctx, cancel := context.WithCancel(within(t))
	f, err := r.client.Logs(ctx, &operatorv1.LogsRequest{TaskId: "t1", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	r.out.write("x")
	if _, err := f.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := f.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("after the follower left: %v", err)
	}
}
