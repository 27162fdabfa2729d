package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// MaintenanceWindow is when machines are planned to be unavailable.
type MaintenanceWindow struct {
	Machines []Machine
	Start    time.Time
	Duration time.Duration // 0: no end is planned
}

// Machine names machines: those whose agents have this host name, this address,
// or both.
type Machine struct{ Hostname, IP string }

// ParseMachine reads a machine as people write it: "host", "10.0.0.7", or
// "host@10.0.0.7".
func ParseMachine(text string) (Machine, error) {
	host, address, both := strings.Cut(text, "@")
	if !both {
		if ip, err := netip.ParseAddr(text); err == nil {
			return Machine{IP: ip.String()}, nil
		}
	}
	if both {
		ip, err := netip.ParseAddr(address)
		if err != nil {
			return Machine{}, fmt.Errorf("%q: what stands behind the @ is not an IP address", text)
		}
		address = ip.String()
	}
	if host == "" || strings.ContainsAny(host, " \t\n,") {
		return Machine{}, fmt.Errorf("%q is not a machine: write a host name, an address, or host@address", text)
	}
	return Machine{host, address}, nil
}

func (m Machine) String() string {
	switch {
	case m.IP == "":
		return m.Hostname
	case m.Hostname == "":
		return m.IP
	}
	return m.Hostname + "@" + m.IP
}

var windowSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "machines", Required: true}, {Name: "start", Required: true}, {Name: "duration"},
}}

// ReadSchedule reads a maintenance schedule:
//
//	window {
//	  machines = ["node1.example.com", "10.0.0.7"]
//	  start    = "2026-12-01T22:00:00Z"
//	  duration = "4h"
//	}
//
// The File is never nil; it has what is needed to print the diagnostics.
func ReadSchedule(path string) ([]MaintenanceWindow, *File, hcl.Diagnostics) {
	f := &File{sources: map[string]*hcl.File{}}
	parsed, diags := f.parse(path)
	if parsed == nil || diags.HasErrors() {
		return nil, f, diags
	}
	d := &decoder{diags: diags}
	_, blocks := d.content(parsed.Body, schema(nil, "window"))
	seen := map[Machine]hcl.Range{}
	var windows []MaintenanceWindow
	for _, block := range blocks {
		windows = append(windows, d.window(block, seen))
	}
	return windows, f, byPlace(d.diags)
}

func (d *decoder) window(block *hcl.Block, seen map[Machine]hcl.Range) MaintenanceWindow {
	var w MaintenanceWindow
	var names []string
	var start string
	s, _ := d.content(block.Body, windowSchema)
	ranges, ok := s.texts("machines", &names)
	if ok && len(names) == 0 {
		d.add(invalid(s.attrs["machines"].Expr.Range(), "No machines", "A window is for one machine at least."))
	}
	for i, name := range names {
		m, err := ParseMachine(name)
		if err != nil {
			d.add(invalid(ranges[i], "Bad machine", "%s.", err))
			continue
		}
		key := Machine{strings.ToLower(m.Hostname), m.IP}
		if first, again := seen[key]; again {
			d.add(duplicate(ranges[i], first, "machine "+name, "A machine is in one window."))
		}
		seen[key] = ranges[i]
		w.Machines = append(w.Machines, m)
	}
	if rng, ok := s.text("start", &start); ok {
		var err error
		if w.Start, err = time.Parse(time.RFC3339, start); err != nil {
			d.add(invalid(rng, "Bad time", "%q is not a time such as %q.", start, "2026-12-01T22:00:00Z"))
		}
	}
	s.duration("duration", &w.Duration, 0)
	return w
}

// FormatSchedule writes a maintenance schedule as ReadSchedule reads it.
func FormatSchedule(windows []MaintenanceWindow) []byte {
	out := hclwrite.NewEmptyFile()
	for i, w := range windows {
		if i > 0 {
			out.Body().AppendNewline()
		}
		body := out.Body().AppendNewBlock("window", nil).Body()
		names := make([]cty.Value, len(w.Machines))
		for i, m := range w.Machines {
			names[i] = cty.StringVal(m.String())
		}
		body.SetAttributeValue("machines", cty.TupleVal(names))
		body.SetAttributeValue("start", cty.StringVal(w.Start.UTC().Format(time.RFC3339Nano)))
		if w.Duration > 0 {
			body.SetAttributeValue("duration", cty.StringVal(w.Duration.String()))
		}
	}
	return out.Bytes()
}
