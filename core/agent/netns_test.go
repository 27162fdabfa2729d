package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/core/agent/state"
)

// elsewhere serves TCP on the loopback of a network namespace of its own, and
// returns the namespace's path.
func elsewhere(t *testing.T) (path string, port uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	type result struct {
		path     string
		listener net.Listener
		err      error
	}
	made, end, over := make(chan result, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		r := result{path: fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), err: loopbackUp()}
		if r.err == nil {
			r.listener, r.err = net.Listen("tcp", "127.0.0.1:0")
		}
		made <- r
		<-end
	}()
	r := <-made
	t.Cleanup(func() {
		if r.listener != nil {
			r.listener.Close()
		}
		close(end)
		<-over
	})
	if r.err != nil {
		t.Skipf("no network namespace here: %v", r.err)
	}
	return r.path, uint32(r.listener.Addr().(*net.TCPAddr).Port)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// A check looks at the task's own loopback, not at the host's.
func TestCheckLooksInTheTasksNetwork(t *testing.T) {
	path, port := elsewhere(t)
	probe := func(netns string) state.Probed {
		var in state.Probed
		lookByTCP(context.Background(), state.Probe{Plan: &state.Plan{}, Netns: netns, Look: state.Look{Port: port}}, &in)
		return in
	}
	if in := probe(path); in.Err != "" || in.Refused {
		t.Errorf("in the task's network: %+v", in)
	}
	if in := probe(""); in.Err == "" {
		t.Error("the task's port answers on the host, so the test says nothing")
	}
	if in := probe("/proc/self/ns/none"); in.Err == "" {
		t.Error("a network that is not there was entered")
	}
}
