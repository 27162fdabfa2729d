package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// maxSocketBase bounds the directory of the sockets: the kernel allows 107
// bytes for the path of a socket, of which a launch's own directory ("/p" and a
// random number of up to ten digits) takes 12, and go-plugin ("/plugin-dir" and
// "/plugin", each with such a number) 38.
const maxSocketBase = 107 - 12 - 38

// socketDir is where plugins' sockets live. One live host owns it, by a lock
// that the kernel drops however the host ends; the next host sweeps it.
type socketDir struct {
	path string
	lock *os.File
	// temporary is that it is not in the data directory, and so ends with its
	// owner.
	temporary bool
}

// openSocketDir takes and sweeps the socket directory that belongs to a data
// directory: run/ inside it, or, where that path is too long for sockets, one
// in the system's temporary directory.
func openSocketDir(dataDir string) (*socketDir, error) {
	path := filepath.Join(dataDir, "run")
	temporary := len(path) > maxSocketBase
	if temporary {
		sum := sha256.Sum256([]byte(dataDir))
		path = filepath.Join(shortTempDir(), fmt.Sprintf("mezzo-%d-%s", os.Geteuid(), hex.EncodeToString(sum[:6])))
	}
	s := &socketDir{path: path, temporary: temporary}
	for attempt := 1; ; attempt++ {
		again, err := s.take()
		switch {
		case again && attempt < maxTakes:
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return nil, fmt.Errorf("another process runs plugins from data directory %s; stop it, or set another data_dir", dataDir)
		case err != nil:
			return nil, fmt.Errorf("socket directory %s: %w", path, err)
		case again:
			return nil, fmt.Errorf("socket directory %s: other processes remove it again and again", path)
		}
		if err := s.sweep(); err != nil {
			s.lock.Close()
			return nil, fmt.Errorf("socket directory: sweep: %w", err)
		}
		return s, nil
	}
}

// maxTakes bounds how often a directory that is removed is made again.
const maxTakes = 100

// take makes the directory and locks it. again is that a predecessor has just
// removed it.
func (s *socketDir) take() (again bool, err error) {
	switch err := ownDir(s.path); {
	case errors.Is(err, os.ErrNotExist):
		return true, err
	case err != nil:
		return false, err
	}
	name := filepath.Join(s.path, "lock")
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return true, err
	}
	if err != nil {
		return false, err
	}
	if err := takeLock(lock); err != nil {
		lock.Close()
		return false, fmt.Errorf("lock %s: %w", name, err)
	}
	// The lock counts only while its file is the one that others find.
	held, err := lock.Stat()
	if found, statErr := os.Stat(name); err == nil && statErr == nil && os.SameFile(held, found) {
		s.lock = lock
		return false, nil
	}
	lock.Close()
	return true, nil
}

// shortTempDir is the system's temporary directory, unless its path is too long
// for sockets too.
func shortTempDir() string {
	if dir := os.TempDir(); len(dir) <= maxSocketBase-30 {
		return dir
	}
	return "/tmp"
}

// lockPatience is how long a predecessor that was just killed may take to be
// gone.
const lockPatience = time.Second

func takeLock(lock *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// ownDir makes a directory that only this user can use, or checks that it is
// one: in a shared temporary directory somebody else may have been there first.
func ownDir(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of this user; remove it", path)
	}
	return os.Chmod(path, 0o700)
}

func (s *socketDir) sweep() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// attempt makes a directory for the sockets of one process.
func (s *socketDir) attempt() (string, error) {
	return os.MkdirTemp(s.path, "p")
}

// close gives the directory back, empty, or removes it when it is temporary.
func (s *socketDir) close() error {
	err := s.sweep()
	if s.temporary && err == nil {
		// While the lock is held: who waits for it notices, and makes another.
		err = os.Remove(s.lock.Name())
		_ = os.Remove(s.path) // unless somebody has begun to take it
	}
	return errors.Join(err, s.lock.Close())
}
