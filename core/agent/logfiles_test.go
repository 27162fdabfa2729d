package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogsLoseNothing: a reader that keeps up reads every line, wherever between
// its steps the file is written to and rotated.
func TestLogsLoseNothing(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	const files, lines = 150, 20
	go func() {
		for n := range files {
			f, err := os.OpenFile(filepath.Join(dir, "stdout"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
			if err != nil {
				return
			}
			for k := range lines {
				fmt.Fprintf(f, "%d\n", n*lines+k)
			}
			if n == files-1 {
				f.Close()
				return
			}
			for i := n; i >= 0; i-- { // the oldest first, as the shim does
				from := "stdout"
				if i > 0 {
					from = fmt.Sprintf("stdout.%d", i)
				}
				_ = os.Rename(filepath.Join(dir, from), filepath.Join(dir, fmt.Sprintf("stdout.%d", i+1)))
			}
			f.Close()
		}
	}()
	l := &logFiles{root: root, name: "stdout"}
	defer l.close()
	var got strings.Builder
	end := fmt.Sprintf("\n%d\n", files*lines-1)
	b := make([]byte, 64)
	for !strings.HasSuffix(got.String(), end) {
		n, err := l.Read(b)
		got.Write(b[:n])
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	var want strings.Builder
	for n := range files * lines {
		fmt.Fprintln(&want, n)
	}
	if got.String() != want.String() {
		t.Errorf("%d bytes were read of %d", got.Len(), want.Len())
	}
}
