package plugin

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"
)

// parentPoll is how often the parent is looked at where there is no pipe.
const parentPoll = time.Second

// watchHost ends this process when its host is gone. It exits at once, without
// Shutdown: the host is not there to wait for it, and everything that a plugin
// does must survive SIGKILL anyway.
func watchHost() {
	parent := os.Getppid()
	gone := func() { watchParent(parent) }
	if text := os.Getenv(EnvHostPipe); text != "" {
		// What the plugin starts must neither hold the pipe nor look for it.
		os.Unsetenv(EnvHostPipe)
		if fd, err := strconv.Atoi(text); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
			pipe := os.NewFile(uintptr(fd), "host")
			gone = func() { watchPipe(pipe, parent) }
		}
	}
	go func() {
		gone()
		os.Exit(0)
	}()
}

// watchPipe returns when the write end is closed, which the kernel does however
// the host ends. A descriptor that is no pipe falls back to the parent.
func watchPipe(pipe *os.File, parent int) {
	if _, err := io.Copy(io.Discard, pipe); err != nil && !errors.Is(err, os.ErrClosed) {
		watchParent(parent)
	}
}

// watchParent returns when the process has been given another parent.
func watchParent(parent int) {
	for os.Getppid() == parent {
		time.Sleep(parentPoll)
	}
}
