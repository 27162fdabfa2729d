package master

import "testing"

// A path is read as agents read it, so that nobody is asked about one sandbox and
// shown another.
func TestSandboxOf(t *testing.T) {
	for path, want := range map[string][2]string{
		"/frameworks/F/executors/E/runs/latest/stdout":                                         {"F", "E"},
		"frameworks/F/executors/E/runs/R":                                                      {"F", "E"},
		"/frameworks/F/executors/E/runs/R/../../../../../../frameworks/G/executors/H/runs/R/x": {"G", "H"},
		"/var/lib/mezzo/work/agents/A/frameworks/F/executors/E/runs/R/x":                       {"F", "E"},
		"/w/agents/A/frameworks/F/executors/E/runs/R/agents/B/frameworks/G/executors/H/runs":   {"F", "E"},
		"/w/agents/A/frameworks/F/executors/E/runs/R/frameworks/G/executors/H/runs/R":          {"F", "E"},
		"/x/frameworks/F/executors/E/runs/R":                                                   {},
		"/w/containers/c/frameworks/F/executors/E/runs/R":                                      {},
		"/frameworks/F/executors/E":                                                            {},
		"/w/agents/A":                                                                          {},
		"":                                                                                     {},
	} {
		if framework, executor := sandboxOf(path); framework != want[0] || executor != want[1] {
			t.Errorf("%q is in the sandbox of %q, %q, want %q", path, framework, executor, want)
		}
	}
}
