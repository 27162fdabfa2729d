package cgroup

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestV2Devices: what is written for the library allows what the rules do.
func TestV2Devices(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	rules := []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "c", Major: number(1), Minor: number(3), Access: "rwm"},
		{Allow: true, Type: "c", Major: number(1), Minor: number(11), Access: "r"},
		{Type: "b", Major: number(8), Minor: number(0), Access: "w"},
	}
	var got []string
	for _, r := range v2Devices(rules) {
		got = append(got, fmt.Sprintf("%v %s %d:%d %s", r.Allow, r.Type, *r.Major, *r.Minor, r.Access))
	}
	want := []string{
		"false a -1:-1 rwm",
		"true c -1:-1 m", "false c -1:-1 rw",
		"true c 1:3 rwm",
		"true c 1:11 rm", "false c 1:11 w",
		"false b 8:0 w",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseIO(t *testing.T) {
	v2 := parseIOStat("254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=5 dios=1\n7:0\nx\n")
	want := []Transfers{{Major: 254, Bytes: map[string]uint64{"read": 10, "write": 20, "discard": 5, "total": 35}, Count: map[string]uint64{"read": 1, "write": 2, "discard": 1, "total": 4}}}
	if diff := cmp.Diff(want, v2); diff != "" {
		t.Errorf("io.stat (-want +got):\n%s", diff)
	}
	v1 := parseBlkio("254:0 Read 10\n254:0 Total 30\n8:1 Write 4\nTotal 34\n", "254:0 Read 1\n")
	want = []Transfers{
		{Major: 254, Bytes: map[string]uint64{"read": 10, "total": 30}, Count: map[string]uint64{"read": 1}},
		{Major: 8, Minor: 1, Bytes: map[string]uint64{"write": 4}, Count: map[string]uint64{}},
	}
	if diff := cmp.Diff(want, v1); diff != "" {
		t.Errorf("blkio (-want +got):\n%s", diff)
	}
	p := parsePressure("some avg10=1.50 avg60=0.25 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n")
	if p.Some.Avg10 != 1.5 || p.Some.Avg60 != 0.25 || p.Some.Total.Seconds() != 2.5 || p.Full.Total.Microseconds() != 7 {
		t.Errorf("pressure: %+v", p)
	}
}
