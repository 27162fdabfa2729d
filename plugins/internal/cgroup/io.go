package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Transfers is what a container has transferred to and from one block device.
type Transfers struct {
	Major, Minor uint64
	Bytes, Count map[string]uint64 // by operation: read, write, sync, async, discard, total
}

// weightFiles are where the weight of a group is set, by what the kernel has.
func (h *Host) weightFiles() []string {
	if h.v2Limits {
		return []string{"io.weight", "io.bfq.weight"}
	}
	return []string{"blkio.weight", "blkio.bfq.weight"}
}

// ioDir is the directory with a container's io files.
func (h *Host) ioDir(path string) string {
	if h.v2Limits {
		return h.v2Dir(path)
	}
	return h.v1Dir("blkio", path)
}

// CanWeigh tells why this kernel cannot weigh groups at block devices; nil when
// it can. The root group must have been made.
func (h *Host) CanWeigh() error {
	dir := strings.TrimSuffix(h.ioDir(""), "/")
	for _, name := range h.weightFiles() {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("its kernel has none of the control files %s", strings.Join(h.weightFiles(), ", "))
}

// weigh sets a group's weight (10 to 1000) in every file that is there.
func (h *Host) weigh(path string, r *specs.LinuxResources) error {
	if r.BlockIO == nil || r.BlockIO.Weight == nil {
		return nil
	}
	set := false
	for _, name := range h.weightFiles() {
		weight := uint64(*r.BlockIO.Weight)
		if name == "io.weight" {
			weight = 1 + (weight-10)*9999/990 // of 1 to 10000
		}
		err := write(filepath.Join(h.ioDir(path), name), strconv.FormatUint(weight, 10))
		if err == nil {
			set = true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if !set {
		return h.CanWeigh()
	}
	return nil
}

// unweighed leaves the weight to weigh.
func unweighed(io *specs.LinuxBlockIO) *specs.LinuxBlockIO {
	if io == nil || io.Weight == nil {
		return io
	}
	c := *io
	c.Weight = nil
	return &c
}

func v2Throttles(io *specs.LinuxBlockIO) (entries []cgroup2.Entry) {
	for _, t := range []struct {
		kind cgroup2.IOType
		list []specs.LinuxThrottleDevice
	}{
		{cgroup2.ReadBPS, io.ThrottleReadBpsDevice}, {cgroup2.WriteBPS, io.ThrottleWriteBpsDevice},
		{cgroup2.ReadIOPS, io.ThrottleReadIOPSDevice}, {cgroup2.WriteIOPS, io.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.list {
			entries = append(entries, cgroup2.Entry{Type: t.kind, Major: d.Major, Minor: d.Minor, Rate: d.Rate})
		}
	}
	return entries
}

// transfers reads what a container and those nested in it have transferred.
func (h *Host) transfers(path string) []Transfers {
	if h.v2Limits {
		text, _ := os.ReadFile(filepath.Join(h.ioDir(path), "io.stat"))
		return parseIOStat(string(text))
	}
	bytes, _ := os.ReadFile(filepath.Join(h.ioDir(path), "blkio.throttle.io_service_bytes_recursive"))
	count, _ := os.ReadFile(filepath.Join(h.ioDir(path), "blkio.throttle.io_serviced_recursive"))
	return parseBlkio(string(bytes), string(count))
}

// parseIOStat reads lines such as `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
func parseIOStat(text string) (list []Transfers) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		t, ok := newTransfers(fields[0])
		if !ok {
			continue
		}
		for _, f := range fields[1:] {
			key, value, _ := strings.Cut(f, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			operation := map[byte]string{'r': "read", 'w': "write", 'd': "discard"}[key[0]]
			switch {
			case operation == "":
			case strings.HasSuffix(key, "bytes"):
				t.Bytes[operation] = n
				t.Bytes["total"] += n
			case strings.HasSuffix(key, "ios"):
				t.Count[operation] = n
				t.Count["total"] += n
			}
		}
		list = append(list, t)
	}
	return list
}

// parseBlkio reads lines such as `254:0 Read 1`.
func parseBlkio(bytes, count string) (list []Transfers) {
	at := map[string]int{}
	read := func(text string, of func(Transfers) map[string]uint64) {
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if len(fields) != 3 {
				continue
			}
			i, known := at[fields[0]]
			if !known {
				t, ok := newTransfers(fields[0])
				if !ok {
					continue
				}
				i = len(list)
				at[fields[0]], list = i, append(list, t)
			}
			n, _ := strconv.ParseUint(fields[2], 10, 64)
			of(list[i])[strings.ToLower(fields[1])] = n
		}
	}
	read(bytes, func(t Transfers) map[string]uint64 { return t.Bytes })
	read(count, func(t Transfers) map[string]uint64 { return t.Count })
	return list
}

func newTransfers(device string) (Transfers, bool) {
	first, second, ok := strings.Cut(device, ":")
	major, err1 := strconv.ParseUint(first, 10, 32)
	minor, err2 := strconv.ParseUint(second, 10, 32)
	return Transfers{Major: major, Minor: minor, Bytes: map[string]uint64{}, Count: map[string]uint64{}}, ok && err1 == nil && err2 == nil
}
