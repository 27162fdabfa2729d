package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// runOutput streams what tasks write to this process's stdout and stderr.
type runOutput struct {
	c      *cli
	prefix bool // lines begin with [i]

	mu        sync.Mutex // one line at a time, whoever writes it
	following map[string]bool
	denied    bool // told once: it goes for all tasks
	group     sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc
}

func newRunOutput(c *cli, prefix bool) *runOutput {
	ctx, cancel := context.WithCancel(context.Background())
	return &runOutput{c: c, prefix: prefix, following: map[string]bool{}, ctx: ctx, cancel: cancel}
}

// follow begins to stream a task's output, once.
func (r *runOutput) follow(index int, task, frameworkID, agentID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.following[task] {
		return
	}
	r.following[task] = true
	for stream, w := range map[operatorv1.LogStream]io.Writer{
		operatorv1.LogStream_LOG_STREAM_STDOUT: r.c.out,
		operatorv1.LogStream_LOG_STREAM_STDERR: r.c.err,
	} {
		r.group.Go(func() {
			f := &follower{r: r, w: w, agentID: agentID, request: &operatorv1.LogsRequest{
				TaskId: task, FrameworkId: frameworkID, Stream: stream, Follow: true,
			}}
			if r.prefix {
				f.prefix = fmt.Sprintf("[%d] ", index)
			}
			f.run(r.ctx)
		})
	}
}

// tellDenied says why there is no output to see. The tasks run on.
func (r *runOutput) tellDenied(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.denied {
		r.denied = true
		fmt.Fprintf(r.c.err, "mezzo: what the task prints is not shown: %v\n", plain(err))
	}
}

// wait returns when all output was streamed, or the time is up.
func (r *runOutput) wait(limit time.Duration) {
	timer := time.AfterFunc(limit, r.cancel)
	defer timer.Stop()
	r.group.Wait()
}

// follower streams one file of one task, through restarts of its agent.
type follower struct {
	r       *runOutput
	w       io.Writer
	agentID string
	prefix  string
	request *operatorv1.LogsRequest
	at      uint64 // the offset of the next byte to print
	line    bytes.Buffer
}

func (f *follower) run(ctx context.Context) {
	defer f.flush()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f.stream(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if status.Code(err) == codes.PermissionDenied {
			f.r.tellDenied(err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// stream follows until the task's end (nil) or an error that may pass.
func (f *follower) stream(ctx context.Context) error {
	address, err := f.address(ctx)
	if err != nil {
		return err
	}
	conn, err := f.r.c.dialAddress(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := operatorv1.NewAgentOperatorClient(conn).Logs(ctx, f.request)
	if err != nil {
		return err
	}
	offset := uint64(0)
	for first := true; ; first = false {
		chunk, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if first {
			offset = chunk.Offset
		}
		data := chunk.Data
		if skip := f.at - min(f.at, offset); skip > 0 {
			data = data[min(skip, uint64(len(data))):]
		}
		offset += uint64(len(chunk.Data))
		f.at = max(f.at, offset)
		f.write(data)
	}
}

func (f *follower) address(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := f.r.c.dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	agent, err := registeredAgent(ctx, operatorv1.NewOperatorClient(conn), f.agentID)
	return agent.GetRpcAddress(), err
}

// write prints bytes as they come, or whole lines with the prefix.
func (f *follower) write(data []byte) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if f.prefix == "" {
		_, _ = f.w.Write(data)
		return
	}
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			f.line.Write(data)
			return
		}
		f.line.Write(data[:end+1])
		data = data[end+1:]
		fmt.Fprintf(f.w, "%s%s", f.prefix, f.line.Bytes())
		f.line.Reset()
	}
}

// flush prints a last line that has no end.
func (f *follower) flush() {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if f.line.Len() > 0 {
		fmt.Fprintf(f.w, "%s%s\n", f.prefix, f.line.Bytes())
	}
}
