package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// startDev starts a cluster for as long as the test lasts, on free ports, and
// returns where its master is. The variable MEZZO names the program.
func startDev(t *testing.T) (master string) {
	t.Helper()
	mezzo := os.Getenv("MEZZO")
	if mezzo == "" {
		t.Skip("MEZZO names no mezzo program")
	}
	cmd := exec.Command(mezzo, "dev", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--resources", "cpus:4;mem:1024")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // ends the tasks, too
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		for word := range strings.FieldsSeq(lines.Text()) {
			if address, found := strings.CutPrefix(word, "rpc="); found {
				return address
			}
		}
	}
	t.Fatal("mezzo dev ended before it was ready")
	return ""
}

func TestRunsItsTasks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := run(ctx, []string{startDev(t)}, 20); err != nil {
		t.Error(err)
	}
}
