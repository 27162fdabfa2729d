package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// logFiles is one output of a container, in the order of writing: the file
// `stdout` is written to; when it is full it becomes `stdout.1`, that one
// `stdout.2`, and so on. The reader goes from the oldest to the newest, and
// stays on its file while that gets other names.
//
// It is for one goroutine.
type logFiles struct {
	root *os.Root
	name string
	file *os.File // nil: nothing was there yet
}

// maxRotated is how many rotated files are looked for.
const maxRotated = 1000

func (l *logFiles) numbered(n int) string {
	if n == 0 {
		return l.name
	}
	return fmt.Sprintf("%s.%d", l.name, n)
}

// open opens a file of a sandbox, and nothing but a plain file: a task may have
// put a link or a pipe there.
func (l *logFiles) open(n int) (*os.File, error) {
	f, err := l.root.OpenFile(l.numbered(n), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s in the sandbox is not a plain file: the task has replaced it", l.numbered(n))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// each gives the files there are, from the newest, until f has had enough. In the
// midst of a rotation, which renames them one by one, a number is missing.
func (l *logFiles) each(f func(n int, info fs.FileInfo) bool) {
	missing := 0
	for n := range maxRotated {
		info, err := l.root.Lstat(l.numbered(n))
		if err != nil {
			if missing++; missing > 2 { // the newest may not have been made again yet
				return
			}
			continue
		}
		missing = 0
		if !f(n, info) {
			return
		}
	}
}

// oldest is the number of the oldest file, -1 when there is none.
func (l *logFiles) oldest() int {
	last := -1
	l.each(func(n int, _ fs.FileInfo) bool {
		last = n
		return true
	})
	return last
}

// place is the number of the file that is being read, -1 when it is gone.
func (l *logFiles) place() (int, error) {
	own, err := l.file.Stat()
	if err != nil {
		return 0, err
	}
	// A rename that happens between two looks can hide it from one of them.
	for range 3 {
		found := -1
		l.each(func(n int, info fs.FileInfo) bool {
			if os.SameFile(own, info) {
				found = n
			}
			return found < 0
		})
		if found >= 0 {
			return found, nil
		}
	}
	return -1, nil
}

// next goes on to the file after the present one. It reports false when there
// is none, so far.
func (l *logFiles) next() (bool, error) {
	if l.file == nil {
		return l.first()
	}
	for {
		n, err := l.place()
		if err != nil || n == 0 {
			return false, err
		}
		after := n - 1
		if n < 0 {
			after = l.oldest() // what was between is gone
			if after < 0 {
				return false, nil
			}
		}
		f, err := l.open(after)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // it is being made
		}
		if err != nil {
			return false, err
		}
		// If there was a rotation meanwhile, that was not the one.
		if again, err := l.place(); err != nil || again != n {
			f.Close()
			if err != nil {
				return false, err
			}
			continue
		}
		l.file.Close()
		l.file = f
		return true, nil
	}
}

// firstTries is how often the oldest file is looked for while files are renamed.
const firstTries = 10

// first goes to the oldest file. It reports false when there is none, so far.
func (l *logFiles) first() (bool, error) {
	for try := 1; ; try++ {
		n := l.oldest()
		if n < 0 {
			return false, nil
		}
		f, err := l.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // renamed just now
		}
		if err != nil {
			return false, err
		}
		l.file = f
		// If there was a rotation meanwhile, an older one may have been passed over.
		at, err := l.place()
		if err == nil && (at == l.oldest() || try == firstTries) {
			return true, nil
		}
		l.file.Close()
		if l.file = nil; err != nil {
			return false, err
		}
	}
}

// Read reads on, from one file to the next; io.EOF says that there is no more
// so far.
func (l *logFiles) Read(b []byte) (int, error) {
	for {
		if l.file != nil {
			if n, err := l.file.Read(b); n > 0 || err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
			// Only a file that was rotated is not written to any more: what was
			// written just before that comes first.
			if at, err := l.place(); err != nil {
				return 0, err
			} else if at == 0 {
				return 0, io.EOF
			}
			if n, err := l.file.Read(b); n > 0 || err != nil && !errors.Is(err, io.EOF) {
				return n, err
			}
		}
		if more, err := l.next(); err != nil {
			return 0, err
		} else if !more {
			return 0, io.EOF
		}
	}
}

func (l *logFiles) close() {
	if l.file != nil {
		l.file.Close()
	}
	l.root.Close()
}

// size is how much there is, in all files together.
func (l *logFiles) size() uint64 {
	total := uint64(0)
	for n := l.oldest(); n >= 0; n-- {
		if info, err := l.root.Lstat(l.numbered(n)); err == nil && info.Mode().IsRegular() {
			total += uint64(info.Size())
		}
	}
	return total
}

// skip passes over count bytes. It returns how many it passed over, less when
// there are not so many.
func (l *logFiles) skip(count uint64) (uint64, error) {
	left := count
	for {
		if l.file != nil {
			info, err := l.file.Stat()
			if err != nil {
				return count - left, err
			}
			if size := uint64(info.Size()); left < size {
				_, err := l.file.Seek(int64(left), io.SeekStart)
				return count, err
			} else {
				left -= size
				if _, err := l.file.Seek(int64(size), io.SeekStart); err != nil {
					return count - left, err
				}
			}
		}
		if more, err := l.next(); err != nil || !more {
			return count - left, err
		}
	}
}

// lastLines is how many bytes the last lines take. A line that is not finished
// is one.
func (l *logFiles) lastLines(lines uint32) (uint64, error) {
	if lines == 0 {
		return 0, nil
	}
	total := uint64(0)
	found := uint32(0)
	block := make([]byte, 64<<10)
	first := true // the newline that ends the last line begins none
	for n := 0; n <= l.oldest(); n++ {
		f, err := l.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		info, err := f.Stat()
		for end := info.Size(); err == nil && end > 0; {
			begin := max(0, end-int64(len(block)))
			part := block[:end-begin]
			if _, err = f.ReadAt(part, begin); err != nil {
				break
			}
			for at := len(part); ; {
				newline := bytes.LastIndexByte(part[:at], '\n')
				if newline < 0 {
					break
				}
				if !first || newline != len(part)-1 {
					if found++; found == lines {
						f.Close()
						return total + uint64(len(part)-newline-1), nil
					}
				}
				first = false
				at = newline
			}
			first = false
			total += uint64(len(part))
			end = begin
		}
		f.Close()
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}
