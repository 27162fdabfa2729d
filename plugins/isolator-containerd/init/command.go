package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
)

// command is a program to run.
type command struct {
	path      string // "": as the first argument says
	args, env []string
	dir       string // "": where this process is
	terminal  bool   // its standard input is a terminal to control it
	user      *syscall.Credential
}

// readCommand reads what an exec is to run. Its environment is that of the
// container, with what it sets itself.
func readCommand(fd int) (c command, err error) {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return c, failure("read what to run", err)
	}
	file := os.NewFile(uintptr(copied), "command")
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return c, failure("read what to run", err)
	}
	r, err := record.Unmarshal(text)
	if err != nil {
		return c, failure("read what to run", err)
	}
	c = command{args: r.All(record.Arg), env: merge(os.Environ(), r.All(record.Env)), dir: r.Get(record.Cwd), terminal: r.Has(record.TTY)}
	if r.Has(record.UID) && int(r.Int(record.UID)) != os.Geteuid() {
		c.user = &syscall.Credential{Uid: uint32(r.Int(record.UID)), Gid: uint32(r.Int(record.GID))}
		for _, text := range r.All(record.Group) {
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return c, failure("malformed group "+text, err)
			}
			c.user.Groups = append(c.user.Groups, uint32(n))
		}
	}
	return c, nil
}

// merge puts variables over others.
func merge(env, over []string) []string {
	set := map[string]bool{}
	for _, v := range over {
		name, _, _ := strings.Cut(v, "=")
		set[name] = true
	}
	var all []string
	for _, v := range env {
		if name, _, _ := strings.Cut(v, "="); !set[name] {
			all = append(all, v)
		}
	}
	return append(all, over...)
}

// start starts the program in a session of its own.
func (c command) start(files []int) (int, error) {
	if len(files) != 3 {
		return 0, errors.New("a process needs three descriptors")
	}
	if len(c.args) == 0 {
		return 0, errors.New("there is no program to run")
	}
	path, err := c.program()
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(path, c.args, &syscall.ProcAttr{
		Dir: c.dir, Env: c.env,
		Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: c.terminal, Credential: c.user},
	})
	switch {
	case errors.Is(err, unix.EPERM) && c.user != nil:
		return 0, errors.New("the container runs as user id " + strconv.Itoa(os.Geteuid()) + " and cannot run a program as user id " + strconv.Itoa(int(c.user.Uid)))
	case errors.Is(err, unix.ENOENT):
		return 0, c.missing(path)
	case err != nil:
		return 0, failure("run "+path, err)
	}
	return pid, nil
}

// missing tells the program that is not there from the directory, or the
// interpreter of a script, that is not.
func (c command) missing(path string) error {
	if c.dir != "" {
		if _, err := os.Stat(c.dir); err != nil {
			return failure("change to the directory "+c.dir, err)
		}
	}
	if _, err := os.Stat(path); err == nil {
		return errors.New("run " + path + ": its interpreter, or the loader that it needs, is not in the container")
	}
	return errNotFound{c.name()}
}

// errNotFound marks a program that is not there, as shells do with 127.
type errNotFound struct{ program string }

func (e errNotFound) Error() string {
	return "program " + strconv.Quote(e.program) + " not found in the container; give its path, or set PATH"
}

func exitCode(err error) int {
	var missing errNotFound
	if errors.As(err, &missing) {
		return 127
	}
	return 126
}

func (c command) name() string {
	if c.path != "" {
		return c.path
	}
	return c.args[0]
}

// program finds the file of the program by the command's own PATH.
func (c command) program() (string, error) {
	name := c.name()
	if strings.Contains(name, "/") {
		return name, nil
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, v := range c.env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
	}
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			dir = "."
		}
		path := dir + "/" + name
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errNotFound{name}
}
