package cgroup

import (
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// v2Devices writes rules as the library's programs understand them: a later
// rule wins, and one matches when any of the accesses that are asked for at
// once is among its own. So a rule that allows some accesses is followed by one
// that forbids the others; else to open for reading would be to open for
// writing too.
func v2Devices(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	var out []specs.LinuxDeviceCgroup
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
		out = append(out, r)
		rest := strings.Map(func(access rune) rune {
			if strings.ContainsRune(r.Access, access) {
				return -1
			}
			return access
		}, "rwm")
		if r.Allow && rest != "" {
			r.Allow, r.Access = false, rest
			out = append(out, r)
		}
	}
	return out
}
