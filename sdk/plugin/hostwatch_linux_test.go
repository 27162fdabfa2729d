package plugin

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
)

// TestParentDies has a plugin without the host's pipe lose its parent.
func TestParentDies(t *testing.T) {
	shell := exec.Command("sh", "-c", `"$0" & echo $!; read forever`, os.Args[0])
	shell.Env = append(os.Environ(), "MEZZO_TEST_SERVE=1", CookieKey+"="+CookieValue, goplugin.EnvUnixSocketDir+"="+t.TempDir())
	stdin, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	// Its pid, and its handshake: then it watches its parent.
	pid, ready := 0, false
	for lines := bufio.NewScanner(stdout); (pid == 0 || !ready) && lines.Scan(); {
		if n, err := strconv.Atoi(lines.Text()); err == nil {
			pid = n
		}
		ready = ready || strings.Contains(lines.Text(), "|unix|")
	}
	if pid == 0 || !ready {
		t.Fatalf("pid %d, handshake %v", pid, ready)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("the plugin does not run: %v", err)
	}
	defer unix.Close(fd)
	shell.Process.Kill()
	shell.Wait()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000); n != 1 {
		unix.Kill(pid, unix.SIGKILL)
		t.Errorf("the plugin outlives its parent: %v", err)
	}
}
