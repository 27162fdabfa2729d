package cgroup

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// v2Devices writes rules as the library's programs understand them: the last
// rule that matches wins, and one matches when any of the accesses that are
// asked for at once is among its own. So a rule that allows says all that is
// allowed up to it, and is followed by one that forbids the rest; else to open
// for reading would be to open for writing too.
func v2Devices(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	var known, out []specs.LinuxDeviceCgroup
	all := int64(-1)
	for _, r := range rules {
		if r.Type == "" {
			r.Type = "a"
		}
		if r.Major == nil {
			r.Major = &all
		}
		if r.Minor == nil {
			r.Minor = &all
		}
		if r.Access == "" {
			r.Access = "rwm"
		}
		known = append(known, r)
		if !r.Allow {
			out = append(out, r)
			continue
		}
		yes, no := "", ""
		for _, access := range []string{"r", "w", "m"} {
			if allowed(known, r, access) {
				yes += access
			} else {
				no += access
			}
		}
		r.Access = yes
		out = append(out, r)
		if no != "" {
			r.Allow, r.Access = false, no
			out = append(out, r)
		}
	}
	return out
}

// allowed tells whether the rules allow an access to all devices of one of them.
func allowed(rules []specs.LinuxDeviceCgroup, of specs.LinuxDeviceCgroup, access string) (yes bool) {
	for _, r := range rules {
		if (r.Type == "a" || r.Type == of.Type) && (*r.Major < 0 || *r.Major == *of.Major) && (*r.Minor < 0 || *r.Minor == *of.Minor) &&
			strings.Contains(r.Access, access) {
			yes = r.Allow
		}
	}
	return yes
}
