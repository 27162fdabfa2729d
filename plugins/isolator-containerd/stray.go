package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shimSockets is where shims have their sockets, whatever containerd's state
// directory is; each is called by what its container is.
const shimSockets = "/run/containerd/s"

// endStray ends the shim of a container that containerd does not have any more.
// A containerd that is killed while it starts a shim does not find that one again,
// and nobody else would end it. A shim that ended in good order has taken its
// socket away: without one there is nothing to look for.
func (p *plug) endStray(container string) {
	sum := sha256.Sum256([]byte(filepath.Join(p.config.Address, p.config.Namespace, container)))
	socket := filepath.Join(shimSockets, hex.EncodeToString(sum[:]))
	if _, err := os.Lstat(socket); err != nil {
		return
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !isShim(strings.Split(string(text), "\x00"), p.config.Namespace, container, p.config.Address) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			p.Logger.Warn("a shim that containerd has lost is ended", "container_id", container, "pid", pid)
			_ = unix.Kill(pid, unix.SIGKILL)
			p.strays.Inc()
		}
	}
	_ = os.Remove(socket)
}

// isShim tells whether a command line is that of a shim of one container.
func isShim(words []string, namespace, container, address string) bool {
	if !strings.HasPrefix(filepath.Base(words[0]), "containerd-shim") {
		return false
	}
	for flag, value := range map[string]string{"-namespace": namespace, "-id": container, "-address": address} {
		if i := slices.Index(words, flag); i < 0 || i+1 >= len(words) || words[i+1] != value {
			return false
		}
	}
	return true
}
