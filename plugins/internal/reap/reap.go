// Package reap collects ended children, for processes that adopt those of
// others.
package reap

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// All collects every child that ends, those adopted included, and tells of each.
// It is the only place of a process where a pid becomes free, which it does with
// mu held: whoever holds mu may signal a child that has not been told of.
// While childless says so, and the kernel too, it waits for forked, a condition
// on mu. It never returns.
func All(mu sync.Locker, forked *sync.Cond, childless func() bool, ended func(pid int, status unix.WaitStatus)) {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		mu.Lock()
		if errors.Is(err, unix.ECHILD) && childless() {
			forked.Wait()
		}
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid == 0 {
				break
			}
			ended(pid, status)
		}
		mu.Unlock()
	}
}
