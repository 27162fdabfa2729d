package holder

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mezzo-os/mezzo/internal/recorded"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// taken is what a plugin that starts again reads of a container's directory.
type taken struct {
	Container *Container
	Pid       int64
	Unstarted bool
	Status    *isolatorv1.ExitStatus
}

// TestRecorded is that containers of earlier builds are taken up: with what they
// have to themselves, and how they ended.
func TestRecorded(t *testing.T) {
	recorded.Check(t, recorded.Kind{Name: "containers", Write: func(t *testing.T, dir string) {
		note := func(c *Container) string {
			c.Dir = filepath.Join(dir, c.ID)
			if err := c.Note(); err != nil {
				t.Fatal(err)
			}
			return c.Dir
		}
		write := func(dir, file string, fields ...record.Field) {
			if err := record.Write(filepath.Join(dir, file), fields, false); err != nil {
				t.Fatal(err)
			}
		}
		// What follows is as the shim writes it.
		shim := func(dir string) {
			write(dir, record.ShimFile, record.Field{Key: record.ShimPid, Value: "4001"}, record.Field{Key: record.ShimStart, Value: "77"},
				record.Field{Key: record.Pid, Value: "4002"}, record.Field{Key: record.PidStart, Value: "78"})
		}
		shim(note(&Container{ID: "runs", Parent: "root", Group: "mezzo/root/runs", Class: 0x10007, CPUs: []int{1, 3}, GPUs: []string{"gpu0", "gpu 1"}, Placed: true}))
		exited := note(&Container{ID: "exited"})
		shim(exited)
		write(exited, record.StatusFile, record.Field{Key: record.Code, Value: "3"}, record.Field{Key: record.Time, Value: "1800000000123456789"}, record.Field{Key: record.Known, Value: "1"})
		killed := note(&Container{ID: "killed"})
		shim(killed)
		write(killed, record.StatusFile, record.Field{Key: record.Signal, Value: "9"}, record.Field{Key: record.Core, Value: "1"}, record.Field{Key: record.Time, Value: "1800000000000000000"},
			record.Field{Key: record.Known, Value: "1"}, record.Field{Key: record.DeadlinePassed, Value: "1"}, record.Field{Key: record.MemoryLimit, Value: "67108864"}, record.Field{Key: record.MemoryUsed, Value: "67100000"})
		never := note(&Container{ID: "never"})
		write(never, record.StatusFile, record.Field{Key: record.Unstarted, Value: "1"}, record.Field{Key: record.Time, Value: "1800000000000000000"}, record.Field{Key: record.Known, Value: "1"})
	}, Read: func(t *testing.T, dir string) any {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]taken{}
		for _, e := range entries {
			c := readContainer(filepath.Join(dir, e.Name()))
			x := taken{Container: c}
			if shim, err := record.Read(c.File(record.ShimFile)); err == nil {
				x.Pid = shim.Int(record.Pid)
			}
			if x.Status, err = c.readStatus(); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			c.Dir, x.Unstarted = "", c.unstarted
			out[c.ID] = x
		}
		return out
	}})
}
