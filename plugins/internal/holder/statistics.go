package holder

import (
	"time"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// statistics is what a container uses, as Mesos tells it.
func (h *Holder) statistics(c *Container, u cgroup.Usage) *v1.ResourceStatistics {
	seconds := func(d time.Duration) *float64 { s := d.Seconds(); return &s }
	count := func(n uint64) *uint32 { c := uint32(n); return &c }
	now := float64(time.Now().UnixNano()) / 1e9
	s := &v1.ResourceStatistics{
		Timestamp:          &now,
		CpusUserTimeSecs:   seconds(u.User),
		CpusSystemTimeSecs: seconds(u.System),
		MemRssBytes:        &u.MemoryRSS,
		MemTotalBytes:      &u.Memory,
		Processes:          count(u.Processes),
		Threads:            count(u.Threads),
	}
	if h.Host == nil || c.Group == "" {
		return s
	}
	s.CpusNrPeriods, s.CpusNrThrottled, s.CpusThrottledTimeSecs = count(u.Periods), count(u.Throttled), seconds(u.ThrottledFor)
	s.MemFileBytes, s.MemMappedFileBytes, s.MemAnonBytes, s.MemSwapBytes = &u.MemoryFile, &u.MemoryMapped, &u.MemoryRSS, &u.Swap
	s.MemCacheBytes, s.MemUnevictableBytes = &u.MemoryFile, &u.Unevictable
	both := u.Memory + u.Swap
	s.MemTotalMemswBytes = &both
	if limit := h.Host.MemoryLimit(c.Group); limit > 0 {
		s.MemLimitBytes = &limit
	}
	if u.SoftLimit > 0 {
		s.MemSoftLimitBytes = &u.SoftLimit
	}
	if u.CPUs > 0 {
		s.CpusSoftLimit = &u.CPUs
	}
	if u.CPULimit > 0 {
		s.CpusLimit = &u.CPULimit
	}
	if len(u.Devices) > 0 {
		s.BlkioStatistics = blkio(u.Devices)
	}
	c.mu.Lock()
	counter := c.counter
	c.mu.Unlock()
	s.Perf = counter.Read()
	s.CpuPressure, s.MemoryPressure, s.IoPressure = pressure(u, "cpu"), pressure(u, "memory"), pressure(u, "io")
	return s
}

// operations are in the order of Mesos's numbers.
var operations = []struct {
	name string
	op   v1.CgroupInfo_Blkio_Operation
}{
	{"total", v1.CgroupInfo_Blkio_TOTAL}, {"read", v1.CgroupInfo_Blkio_READ}, {"write", v1.CgroupInfo_Blkio_WRITE},
	{"sync", v1.CgroupInfo_Blkio_SYNC}, {"async", v1.CgroupInfo_Blkio_ASYNC}, {"discard", v1.CgroupInfo_Blkio_DISCARD},
}

func blkio(devices []cgroup.Transfers) *v1.CgroupInfo_Blkio_Statistics {
	values := func(of map[string]uint64) (list []*v1.CgroupInfo_Blkio_Value) {
		for _, o := range operations {
			if n, ok := of[o.name]; ok {
				list = append(list, &v1.CgroupInfo_Blkio_Value{Op: &o.op, Value: &n})
			}
		}
		return list
	}
	all := &v1.CgroupInfo_Blkio_Statistics{}
	for _, d := range devices {
		all.Throttling = append(all.Throttling, &v1.CgroupInfo_Blkio_Throttling_Statistics{
			Device:         &v1.Device_Number{MajorNumber: &d.Major, MinorNumber: &d.Minor},
			IoServiceBytes: values(d.Bytes), IoServiced: values(d.Count),
		})
	}
	return all
}

func pressure(u cgroup.Usage, resource string) *v1.PressureStatistics {
	p, ok := u.Pressure[resource]
	if !ok {
		return nil
	}
	stall := func(s cgroup.Stall) *v1.PressureStatistics_Stall {
		total := s.Total.Seconds()
		return &v1.PressureStatistics_Stall{Avg10: &s.Avg10, Avg60: &s.Avg60, Avg300: &s.Avg300, TotalSecs: &total}
	}
	return &v1.PressureStatistics{Some: stall(p.Some), Full: stall(p.Full)}
}
