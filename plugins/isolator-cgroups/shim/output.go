package main

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// output is one of a container's streams: NAME in the sandbox, and NAME.1… the
// older the higher. The sandbox is the task's own, so nothing in it is trusted:
// files are opened relative to the directory and never through a link.
type output struct {
	dir      int
	name     string
	uid, gid int
	max      int64
	files    int
	fd       int
	size     int64
}

const (
	defaultLogBytes = 10 << 20
	defaultLogFiles = 4
)

// openOutput opens the stream's file for appending, and makes it when it is
// not there or not a plain file of one name.
func openOutput(dir int, name string, uid, gid int, max int64, files int) (*output, error) {
	if max <= 0 {
		max = defaultLogBytes
	}
	if files <= 0 {
		files = defaultLogFiles
	}
	o := &output{dir: dir, name: name, uid: uid, gid: gid, max: max, files: files, fd: -1}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			o.fd, o.size = fd, st.Size
			return o, nil
		}
		_ = unix.Close(fd)
	}
	return o, o.create()
}

// create makes a new file where there is none; what stands in its place is
// unlinked, since only the container's own user can have put it there.
func (o *output) create() error {
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for try := 0; ; try++ {
		fd, err := unix.Openat(o.dir, o.name, flags, 0o644)
		if err == nil {
			if os.Geteuid() == 0 {
				if err := unix.Fchown(fd, o.uid, o.gid); err != nil {
					_ = unix.Close(fd)
					return failure("give "+o.name+" to its user", err)
				}
			}
			o.fd, o.size = fd, 0
			return nil
		}
		if !errors.Is(err, unix.EEXIST) || try == 3 {
			return failure("make "+o.name+" in the sandbox", err)
		}
		if err := unix.Unlinkat(o.dir, o.name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return failure("replace "+o.name+" in the sandbox", err)
		}
	}
}

func (o *output) numbered(n int) string { return o.name + "." + strconv.Itoa(n) }

// rotate moves each file one number up and begins a new one.
func (o *output) rotate() error {
	for n := o.files - 1; n >= 1; n-- {
		_ = unix.Renameat(o.dir, o.numbered(n), o.dir, o.numbered(n+1))
	}
	if err := unix.Renameat(o.dir, o.name, o.dir, o.numbered(1)); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if o.fd >= 0 {
		_ = unix.Close(o.fd)
		o.fd = -1
	}
	return o.create()
}

// write appends. What cannot be written (the disk is full) is lost rather than
// held against the task, which would block on its pipe.
func (o *output) write(b []byte) {
	for len(b) > 0 {
		if o.size >= o.max || o.fd < 0 {
			if err := o.rotate(); err != nil {
				warn(err.Error())
				if o.fd < 0 {
					return
				}
			}
		}
		part := b
		if room := o.max - o.size; room > 0 && int64(len(part)) > room {
			part = part[:room]
		}
		n, err := unix.Write(o.fd, part)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		o.size += int64(n)
		b = b[n:]
	}
}

// pump copies a stream to its file, and to who is attached, until its end.
func pump(from *os.File, to *output, attached *tap, done chan<- struct{}) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			to.write(buffer[:n])
			attached.write(buffer[:n])
		}
		if err != nil { // io.EOF, or EIO from a terminal that was hung up
			break
		}
	}
	_ = from.Close()
	attached.end()
	if to.fd >= 0 {
		_ = unix.Close(to.fd)
	}
	done <- struct{}{}
}

// openTerminal returns a new pseudo-terminal.
func openTerminal(rows, columns uint16) (master *os.File, slave int, path string, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, "", failure("open a terminal", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil && rows > 0 {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err == nil {
		path = "/dev/pts/" + strconv.Itoa(n)
		slave, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, 0, "", failure("open a terminal", err)
	}
	return os.NewFile(uintptr(fd), "terminal"), slave, path, nil
}
