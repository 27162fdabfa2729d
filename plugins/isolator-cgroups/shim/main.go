//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command mezzo-shim holds one container: it starts the container's process,
// takes its output, its exit status and the deadlines of its killing, and
// outlives the plugin and the agent. One runs beside every container, so it
// links neither gRPC nor protobuf, nor anything else that costs memory; the
// two directives above keep the Go runtime from holding cgroup files open.
//
//	mezzo-shim run DIR     hold the container whose state directory is DIR
//	mezzo-shim init FILE   become the process that FILE describes (used by run)
//
// Both are for isolator-cgroups only; package record has what the files and
// messages hold.
package main

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func init() {
	// Namespaces, capabilities and the parent-death signal belong to a thread.
	// Everything that touches them runs on the main one, which never ends.
	runtime.LockOSThread()
}

func main() {
	switch {
	case len(os.Args) >= 3 && os.Args[1] == "run":
		if err := run(os.Args[2]); err != nil {
			warn(err.Error())
			os.Exit(1)
		}
	case len(os.Args) >= 3 && os.Args[1] == "init":
		err := initialize(os.Args[2])
		reportInit(err)
		os.Exit(exitCode(err))
	default:
		warn("usage: mezzo-shim run DIR | init FILE (started by isolator-cgroups, not by hand)")
		os.Exit(2)
	}
}

// warn writes a line to stderr, which is a file in the state directory.
func warn(text string) { _, _ = os.Stderr.WriteString("mezzo-shim: " + text + "\n") }

// closeInherited closes every descriptor from first on. What the plugin and
// its host had open when they forked is none of a container's business, and a
// pipe kept open would tell them that they still live. It must run before the
// Go runtime opens its poller, so before anything that could block.
func closeInherited(first int) error {
	err := unix.CloseRange(uint(first), ^uint(0)>>33, 0)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// A kernel before 5.9, or a sandbox that forbids the call.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for fd := first; fd < int(min(limit.Cur, 1<<20)); fd++ {
		_ = unix.Close(fd)
	}
	return nil
}

// failure is an error with the thing that it happened to.
func failure(what string, err error) error {
	if err == nil {
		return nil
	}
	return errors.New(what + ": " + err.Error())
}
