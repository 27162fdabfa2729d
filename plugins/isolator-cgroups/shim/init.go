package main

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"golang.org/x/sys/unix"
)

// The descriptors that the shim gives to its init child.
const (
	releaseFD = 3 // one byte lets the task go; the end of file calls it off
	reportFD  = 4 // readyByte, then the end of file when the task runs, or why not
)

const readyByte = 'r'

// initialize turns this process into the task. It sets up what needs
// privileges, reports that it is ready, waits for its release, drops the
// privileges and executes the task. It returns only when that failed.
func initialize(file string) error {
	unix.CloseOnExec(releaseFD)
	unix.CloseOnExec(reportFD)
	r, err := record.Read(file)
	if err != nil {
		return failure("read what to run", err)
	}
	// Signals that the agent ignores would be ignored by the task as well: a
	// handler for all of them becomes the default action at exec.
	signal.Notify(make(chan os.Signal, 1))
	if err := setUp(r); err != nil {
		return err
	}
	if _, err := unix.Write(reportFD, []byte{readyByte}); err != nil {
		return failure("report ready", err)
	}
	var b [1]byte
	for {
		n, err := unix.Read(releaseFD, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			os.Exit(1) // called off
		}
		break
	}
	if err := dropPrivileges(r); err != nil {
		return err
	}
	return execute(r)
}

// reportInit tells the shim why the task does not run.
func reportInit(err error) { _, _ = unix.Write(reportFD, []byte(err.Error())) }

// errNotFound marks a program that is not there, as shells do with 127.
type errNotFound struct{ program string }

func (e errNotFound) Error() string {
	return "program " + strconv.Quote(e.program) + " not found; give its path, or set PATH"
}

func exitCode(err error) int {
	var missing errNotFound
	if errors.As(err, &missing) {
		return 127
	}
	return 126
}

// setUp does what needs the privileges of the agent. The mount namespace comes
// last: after it the host's paths may be gone.
func setUp(r record.Record) error {
	if r.Has(record.TTY) {
		if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
			return failure("make the terminal the controlling one", err)
		}
	}
	if v := r.Get(record.OOMScore); v != "" {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(v), 0); err != nil {
			return failure("set the OOM score to "+v, err)
		}
	}
	for _, line := range r.All(record.Rlimit) {
		if err := setRlimit(line); err != nil {
			return err
		}
	}
	if name := r.Get(record.Hostname); name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return failure("set the host name "+name, err)
		}
	}
	if err := joinNamespaces(r); err != nil {
		return err
	}
	return setUpMounts(r)
}

func setRlimit(line string) error {
	parts := strings.Fields(line)
	if len(parts) != 3 {
		return errors.New("malformed resource limit " + line)
	}
	resource, err1 := strconv.Atoi(parts[0])
	soft, err2 := strconv.ParseUint(parts[1], 10, 64)
	hard, err3 := strconv.ParseUint(parts[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return failure("malformed resource limit "+line, err)
	}
	// syscall's, not unix's: it tells the runtime not to put the old number of
	// open files back at exec.
	err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: soft, Max: hard})
	return failure("set resource limit "+line+" (a hard limit above the agent's own needs CAP_SYS_RESOURCE)", err)
}

// joinNamespaces enters the namespaces given by path. A pid namespace is the
// shim's to enter, because only children are in it.
func joinNamespaces(r record.Record) error {
	type namespace struct {
		fd, flag int
		path     string
	}
	var all []namespace
	for _, line := range r.All(record.Join) {
		words, err := record.ParseWords(line)
		if err != nil || len(words) != 2 {
			return errors.New("malformed namespace " + line)
		}
		flag, err := strconv.Atoi(words[0])
		if err != nil {
			return errors.New("malformed namespace " + line)
		}
		fd, err := unix.Open(words[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return failure("open namespace "+words[1], err)
		}
		if flag == unix.CLONE_NEWNS { // last
			all = append(all, namespace{fd, flag, words[1]})
		} else {
			all = append([]namespace{{fd, flag, words[1]}}, all...)
		}
	}
	for _, n := range all {
		if n.flag == unix.CLONE_NEWNS {
			// Threads share the working directory, and that forbids it.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return failure("unshare the working directory", err)
			}
		}
		if err := unix.Setns(n.fd, n.flag); err != nil {
			return failure("join namespace "+n.path, err)
		}
		_ = unix.Close(n.fd)
	}
	return nil
}

// setUpMounts gives the process's own mount namespace its mounts. They never
// reach the host; what the host mounts later does reach the container.
func setUpMounts(r record.Record) error {
	switch {
	case r.Has(record.CopyMounts):
		if err := copyMounts(); err != nil {
			return err
		}
	case r.Int(record.Unshare)&unix.CLONE_NEWNS == 0:
		return nil
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return failure("keep mounts from the host", err)
	}
	for _, line := range r.All(record.Mount) {
		words, err := record.ParseWords(line)
		if err != nil || len(words) != 5 {
			return errors.New("malformed mount " + line)
		}
		flags, err := strconv.ParseUint(words[3], 10, 64)
		if err != nil {
			return errors.New("malformed mount " + line)
		}
		if err := mount(words[0], words[1], words[2], uintptr(flags), words[4], r.Get(record.Sandbox)); err != nil {
			return failure("mount "+words[0], err)
		}
	}
	return hidePaths(r)
}

func mount(target, source, kind string, flags uintptr, data, sandbox string) error {
	if err := mountPoint(target, source, kind, flags, sandbox); err != nil {
		return err
	}
	const propagation = unix.MS_SHARED | unix.MS_SLAVE | unix.MS_PRIVATE | unix.MS_UNBINDABLE
	if err := unix.Mount(source, target, kind, flags&^propagation, data); err != nil {
		return err
	}
	// A bind takes its other flags only when mounted again.
	if more := flags &^ (unix.MS_BIND | unix.MS_REC | propagation | unix.MS_RDONLY); flags&unix.MS_BIND != 0 && more != 0 {
		if err := unix.Mount("", target, "", more|unix.MS_BIND|unix.MS_REMOUNT|held(target), ""); err != nil {
			return err
		}
	}
	if flags&unix.MS_BIND != 0 && flags&unix.MS_RDONLY != 0 {
		if err := readOnly(target); err != nil {
			return err
		}
	}
	if flags&propagation != 0 {
		return unix.Mount("", target, "", flags&(propagation|unix.MS_REC), "")
	}
	return nil
}

// mountPoint makes a missing mount point, only below the sandbox, and never
// through a symbolic link that leads out of it.
func mountPoint(target, source, kind string, flags uintptr, sandbox string) error {
	_, err := os.Stat(target)
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	inside, ok := strings.CutPrefix(target, strings.TrimSuffix(sandbox, "/")+"/")
	if !ok || sandbox == "" {
		return errors.New("the mount point does not exist; only those below the sandbox are made")
	}
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return err
	}
	defer root.Close()
	if flags&unix.MS_BIND != 0 && kind != "tmpfs" {
		if info, err := os.Stat(source); err == nil && !info.IsDir() {
			if i := strings.LastIndexByte(inside, '/'); i > 0 {
				if err := root.MkdirAll(inside[:i], 0o755); err != nil {
					return err
				}
			}
			f, err := root.OpenFile(inside, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
	}
	return root.MkdirAll(inside, 0o755)
}

// dropPrivileges takes on the task's identity. The shim's death is the task's
// from here on: without its shim nobody would hold its status or its deadlines.
func dropPrivileges(r record.Record) error {
	runtime.LockOSThread()
	root := os.Geteuid() == 0
	caps := r.Has(record.Effective)
	if root && caps {
		if err := dropBounding(r); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return failure("keep capabilities", err)
		}
	}
	unprivileged := !root || r.Has(record.NoNewPriv)
	if !unprivileged {
		if err := filterCalls(r); err != nil { // while there is CAP_SYS_ADMIN
			return err
		}
	}
	uid, gid := int(r.Int(record.UID)), int(r.Int(record.GID))
	if root {
		groups := []int{}
		for _, g := range r.All(record.Group) {
			n, err := strconv.Atoi(g)
			if err != nil {
				return errors.New("malformed group " + g)
			}
			groups = append(groups, n)
		}
		if err := syscall.Setgroups(groups); err != nil {
			return failure("set supplementary groups", err)
		}
		if err := syscall.Setresgid(gid, gid, gid); err != nil {
			return failure("become group "+strconv.Itoa(gid), err)
		}
		if err := syscall.Setresuid(uid, uid, uid); err != nil {
			return failure("become user "+strconv.Itoa(uid), err)
		}
	} else if uid != os.Getuid() {
		return errors.New("become user " + strconv.Itoa(uid) + ": only root can run a task as another user")
	}
	if root && caps {
		if err := setCapabilities(r); err != nil {
			return err
		}
	}
	if r.Has(record.NoNewPriv) || !root && r.Has(record.Seccomp) {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return failure("set no_new_privs", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return failure("set the parent-death signal", err)
	}
	if unprivileged {
		return filterCalls(r)
	}
	return nil
}

func mask(r record.Record, key string) uint64 {
	n, _ := strconv.ParseUint(r.Get(key), 16, 64)
	return n
}

func dropBounding(r record.Record) error {
	keep := mask(r, record.Bounding)
	for c := uintptr(0); c < 64; c++ {
		held, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil // past the kernel's last capability
		}
		if held == 1 && keep&(1<<c) == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
				return failure("drop capability "+strconv.Itoa(int(c)), err)
			}
		}
	}
	return nil
}

func setCapabilities(r record.Record) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return failure("read capabilities", err)
	}
	// No more than there is: an agent in a container has not all of them.
	held := uint64(have[0].Permitted) | uint64(have[1].Permitted)<<32
	permitted := mask(r, record.Permitted) & held
	effective := mask(r, record.Effective) & permitted
	inheritable := mask(r, record.Inherit) & permitted
	data := [2]unix.CapUserData{
		{Effective: uint32(effective), Permitted: uint32(permitted), Inheritable: uint32(inheritable)},
		{Effective: uint32(effective >> 32), Permitted: uint32(permitted >> 32), Inheritable: uint32(inheritable >> 32)},
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return failure("set capabilities", errno)
	}
	ambient := mask(r, record.Ambient) & permitted & inheritable
	for c := uintptr(0); c < 64; c++ {
		if ambient&(1<<c) != 0 {
			if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
				return failure("raise ambient capability "+strconv.Itoa(int(c)), err)
			}
		}
	}
	return nil
}

// execute goes to the working directory as the task's user, finds the program
// and becomes it.
func execute(r record.Record) error {
	if cwd := r.Get(record.Cwd); cwd != "" {
		if err := unix.Chdir(cwd); err != nil {
			return failure("change to directory "+cwd, err)
		}
	}
	umask := 0o022
	if r.Has(record.Umask) {
		umask = int(r.Int(record.Umask))
	}
	unix.Umask(umask)
	args, env := r.All(record.Arg), r.All(record.Env)
	if len(args) == 0 {
		return errors.New("there is no program to run")
	}
	return run1(args, env)
}

func run1(args, env []string) error {
	candidates := []string{args[0]}
	if !strings.Contains(args[0], "/") {
		search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, "PATH="); ok {
				search = v
			}
		}
		candidates = nil
		for _, dir := range strings.Split(search, ":") {
			if dir == "" {
				dir = "."
			}
			candidates = append(candidates, dir+"/"+args[0])
		}
	}
	var denied error
	for _, path := range candidates {
		err := syscall.Exec(path, args, env)
		switch {
		case errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR):
		case errors.Is(err, syscall.EACCES) && len(candidates) > 1:
			denied = failure("run "+path, err)
		default:
			return failure("run "+path, err)
		}
	}
	if denied != nil {
		return denied
	}
	return errNotFound{args[0]}
}
