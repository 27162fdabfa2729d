package perf

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// event is one that Mesos's PerfStatistics can tell.
type event struct {
	name         string // perf's
	kind         uint32
	config       uint64
	milliseconds bool // the kernel counts nanoseconds, Mesos tells milliseconds
}

// events are all that have a place in PerfStatistics.
var events = slices.Concat(simple, cached)

var simple = []event{
	{name: "cycles", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_CPU_CYCLES},
	{name: "stalled-cycles-frontend", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_STALLED_CYCLES_FRONTEND},
	{name: "stalled-cycles-backend", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_STALLED_CYCLES_BACKEND},
	{name: "instructions", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_INSTRUCTIONS},
	{name: "cache-references", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_CACHE_REFERENCES},
	{name: "cache-misses", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_CACHE_MISSES},
	{name: "branches", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_BRANCH_INSTRUCTIONS},
	{name: "branch-misses", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_BRANCH_MISSES},
	{name: "bus-cycles", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_BUS_CYCLES},
	{name: "ref-cycles", kind: unix.PERF_TYPE_HARDWARE, config: unix.PERF_COUNT_HW_REF_CPU_CYCLES},
	{name: "cpu-clock", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_CPU_CLOCK, milliseconds: true},
	{name: "task-clock", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_TASK_CLOCK, milliseconds: true},
	{name: "page-faults", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_PAGE_FAULTS},
	{name: "minor-faults", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_PAGE_FAULTS_MIN},
	{name: "major-faults", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ},
	{name: "context-switches", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_CONTEXT_SWITCHES},
	{name: "cpu-migrations", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_CPU_MIGRATIONS},
	{name: "alignment-faults", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_ALIGNMENT_FAULTS},
	{name: "emulation-faults", kind: unix.PERF_TYPE_SOFTWARE, config: unix.PERF_COUNT_SW_EMULATION_FAULTS},
}

var cached = slices.Concat(
	cache("L1-dcache", unix.PERF_COUNT_HW_CACHE_L1D, "load", "store", "prefetch"),
	cache("L1-icache", unix.PERF_COUNT_HW_CACHE_L1I, "load", "prefetch"),
	cache("LLC", unix.PERF_COUNT_HW_CACHE_LL, "load", "store", "prefetch"),
	cache("dTLB", unix.PERF_COUNT_HW_CACHE_DTLB, "load", "store", "prefetch"),
	cache("iTLB", unix.PERF_COUNT_HW_CACHE_ITLB, "load"),
	cache("branch", unix.PERF_COUNT_HW_CACHE_BPU, "load"),
	cache("node", unix.PERF_COUNT_HW_CACHE_NODE, "load", "store", "prefetch"),
)

// cache are the events of one cache: how often it was asked, and in vain.
func cache(name string, id uint64, operations ...string) (list []event) {
	for _, o := range operations {
		operation, plural := uint64(unix.PERF_COUNT_HW_CACHE_OP_READ), "s"
		switch o {
		case "store":
			operation = unix.PERF_COUNT_HW_CACHE_OP_WRITE
		case "prefetch":
			operation, plural = unix.PERF_COUNT_HW_CACHE_OP_PREFETCH, "es"
		}
		config := id | operation<<8
		list = append(list,
			event{name: name + "-" + o + plural, kind: unix.PERF_TYPE_HW_CACHE, config: config | unix.PERF_COUNT_HW_CACHE_RESULT_ACCESS<<16},
			event{name: name + "-" + o + "-misses", kind: unix.PERF_TYPE_HW_CACHE, config: config | unix.PERF_COUNT_HW_CACHE_RESULT_MISS<<16})
	}
	return list
}

// field is the event's place in PerfStatistics.
func (e event) field() protoreflect.FieldDescriptor {
	name := strings.ReplaceAll(strings.ToLower(e.name), "-", "_")
	return (&v1.PerfStatistics{}).ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
}

// set writes a count to its place.
func (e event) set(s *v1.PerfStatistics, count uint64) {
	if e.milliseconds {
		s.ProtoReflect().Set(e.field(), protoreflect.ValueOfFloat64(float64(count)/1e6))
		return
	}
	s.ProtoReflect().Set(e.field(), protoreflect.ValueOfUint64(count))
}

// Known tells whether an event of this name can be told. The error lists all
// that can.
func Known(name string) error {
	if find(name) >= 0 {
		return nil
	}
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = e.name
	}
	return fmt.Errorf("%q is none of: %s", name, strings.Join(names, ", "))
}

func find(name string) int {
	return slices.IndexFunc(events, func(e event) bool { return e.name == name })
}
