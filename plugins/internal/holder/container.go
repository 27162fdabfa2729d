package holder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/plugins/internal/perf"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// metaFile is the plugin's own note in a container's state directory. It is
// written before anything is made outside the directory, so that whatever was
// made can be found again.
const metaFile = "container"

// Keys of metaFile.
const (
	metaParent = "parent"
	metaGroup  = "cgroup"
	metaClass  = "net_class"
	metaCPUs   = "cpus"
	metaPlaced = "placed"
	metaGPU    = "gpu" // once for each
)

// Container is one that the plugin launched. Its state directory and its shim
// are the truth; this is what was read of them. The exported fields do not
// change once it has been written down.
type Container struct {
	ID     string
	Dir    string
	Parent string
	Group  string   // its path in the cgroup hierarchies; "" without cgroups
	Class  uint32   // its network class; 0: none of its own
	CPUs   []int    // processors that it has to itself
	Placed bool     // another isolator says which processors it runs on
	GPUs   []string // the GPUs that it has to itself, by the plugin's names for them

	done chan struct{} // closed once status is set

	mu         sync.Mutex
	started    bool
	pid        int64
	status     *isolatorv1.ExitStatus
	lost       bool // ended, and nobody knows how
	unstarted  bool // ended before it was let go: nothing of the task has run
	absent     bool // asked for by Recover, and not there
	limitation *isolatorv1.Limitation
	counter    *perf.Counter // nil: nothing is counted
}

// File is the path of a file in the container's state directory.
func (c *Container) File(name string) string { return filepath.Join(c.Dir, name) }

// Note makes the state directory, and writes down what is known. It comes
// before anything is made outside the directory.
func (c *Container) Note() error {
	if err := os.Mkdir(c.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	r := record.Record{}
	r.Add(metaParent, c.Parent)
	r.Add(metaGroup, c.Group)
	r.AddInt(metaClass, int64(c.Class))
	r.Add(metaCPUs, numbers(c.CPUs))
	for _, name := range c.GPUs {
		r.Add(metaGPU, name)
	}
	if c.Placed {
		r.AddInt(metaPlaced, 1)
	}
	return record.Write(c.File(metaFile), r, false)
}

// readContainer takes a container up from its state directory. One whose note
// is missing or cut was never created, and needs only to be cleaned up.
func readContainer(dir string) *Container {
	c := &Container{ID: filepath.Base(dir), Dir: dir, done: make(chan struct{})}
	if meta, err := record.Read(c.File(metaFile)); err == nil {
		c.Parent, c.Group, c.Class = meta.Get(metaParent), meta.Get(metaGroup), uint32(meta.Int(metaClass))
		c.CPUs, c.GPUs, c.Placed = parseNumbers(meta.Get(metaCPUs)), meta.All(metaGPU), meta.Has(metaPlaced)
	}
	return c
}

func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

// parseNumbers reads what numbers wrote.
func parseNumbers(text string) (list []int) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		if n, err := strconv.Atoi(word); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// end notes how the container ended, once.
func (c *Container) end(status *isolatorv1.ExitStatus, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status == nil {
		c.status, c.lost = status, lost
		if c.limitation == nil {
			c.limitation = status.GetLimitation()
		}
		close(c.done)
	}
}

// Ended tells whether the container has ended.
func (c *Container) Ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// readStatus reads the exit status that the shim left.
func (c *Container) readStatus() (*isolatorv1.ExitStatus, error) {
	r, err := record.Read(c.File(record.StatusFile))
	if err != nil {
		return nil, err
	}
	if r.Has(record.Unstarted) {
		c.mu.Lock()
		c.unstarted = true
		c.mu.Unlock()
	}
	s := exitStatus(r)
	s.DeadlineExceeded = r.Has(record.DeadlinePassed)
	if r.Has(record.MemoryLimit) {
		s.Limitation = c.memoryLimitation(r)
	}
	return s, nil
}

func exitStatus(r record.Record) *isolatorv1.ExitStatus {
	return &isolatorv1.ExitStatus{
		Code:       int32(r.Int(record.Code)),
		Signal:     int32(r.Int(record.Signal)),
		CoreDumped: r.Has(record.Core),
		Time:       timestamppb.New(time.Unix(0, r.Int(record.Time))),
		Known:      true,
	}
}

// memoryLimitation says that the container exceeded its memory.
func (c *Container) memoryLimitation(r record.Record) *isolatorv1.Limitation {
	limit, used := r.Int(record.MemoryLimit), r.Int(record.MemoryUsed)
	value, kind, name := float64(limit)/(1<<20), v1.Value_SCALAR, "mem"
	reason := v1.TaskStatus_REASON_CONTAINER_LIMITATION_MEMORY
	return &isolatorv1.Limitation{
		Container: c.ID,
		Reason:    &reason,
		Message:   fmt.Sprintf("memory limit exceeded: the limit is %s, and %s were in use", size(limit), size(used)),
		Resources: []*v1.Resource{{Name: &name, Type: &kind, Scalar: &v1.Value_Scalar{Value: &value}}},
	}
}

func size(bytes int64) string {
	return strconv.FormatFloat(float64(bytes)/(1<<20), 'f', 1, 64) + " MiB"
}

// unknownStatus is that of a container whose shim ended before it could say.
func unknownStatus() *isolatorv1.ExitStatus {
	return &isolatorv1.ExitStatus{Time: timestamppb.Now()}
}

// killShim ends a shim that does not answer. A pid that has become another
// process's is left alone.
func (h *Holder) killShim(c *Container) {
	r, err := record.Read(c.File(record.ShimFile))
	if err != nil {
		return
	}
	pid := int(r.Int(record.ShimPid))
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if start := startTime(pid); start != "" && start == r.Get(record.ShimStart) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		h.counts.killed.Inc()
	}
}

// Pid is the container's first process; 0 when it has none.
func (c *Container) Pid() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}
