package pluginhost

import (
	"fmt"
	"strings"
)

// Step is where a launch failed.
type Step string

// The steps of a launch, in order.
const (
	StepFind      Step = "find"
	StepVerify    Step = "verify"
	StepLaunch    Step = "launch"
	StepDescribe  Step = "describe"
	StepNegotiate Step = "negotiate"
	StepConfigure Step = "configure"
	StepServe     Step = "serve" // it ran, and then died or hung
)

// Error is why a plugin does not run. Error() is for people: it names the
// plugin, says what happened, which file, what the process left behind, and
// what to do.
type Error struct {
	Plugin string // `allocator "drf"`
	Path   string
	Place  string // where the operator declared it; may be empty
	Step   Step
	// Problem says what happened, in one line; a second and further ones give
	// details.
	Problem string
	// Output is what the process wrote before it ended.
	Output Output
	// Remedy is one sentence: what to do.
	Remedy string
	// Err is the cause, if there is one beyond Problem: *NotFoundError,
	// *ChecksumError, *VersionError, or the error of Spec.Configure or
	// Spec.MapDiagnostics.
	Err error
}

// Output is what is kept of a process's output.
type Output struct {
	Stdout string   // its first bytes that were no handshake
	Stderr []string // its last lines
}

func (e *Error) Unwrap() error { return e.Err }

// Summary is one line: plugin and problem.
func (e *Error) Summary() string {
	problem, _, _ := strings.Cut(e.Problem, "\n")
	return e.Plugin + ": " + problem
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Plugin, e.Problem)
	if e.Place != "" {
		fmt.Fprintf(&b, "\n  declared at: %s", e.Place)
	}
	if e.Path != "" {
		fmt.Fprintf(&b, "\n  file: %s", e.Path)
	}
	if e.Output.Stdout != "" {
		fmt.Fprintf(&b, "\n  stdout began: %q", e.Output.Stdout)
	}
	if len(e.Output.Stderr) > 0 {
		b.WriteString("\n  last lines on stderr:")
		for _, line := range e.Output.Stderr {
			b.WriteString("\n    " + line)
		}
	}
	if e.Remedy != "" {
		fmt.Fprintf(&b, "\n  what to do: %s", e.Remedy)
	}
	return b.String()
}

// NotFoundError says that there is no binary, and what is there instead.
type NotFoundError struct {
	Path string
	Near []string // names of plugins in the same directory, nearest first
}

func (e *NotFoundError) Error() string { return e.Path + " does not exist" }

// ChecksumError says that a file is not the one that was pinned.
type ChecksumError struct {
	Path, Expected, Found string // "sha256:…"
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s has checksum %s, expected %s", e.Path, e.Found, e.Expected)
}

// VersionError says that host and plugin share no version of the contract.
type VersionError struct {
	Plugin       string
	Path         string
	PluginServes []uint32
	HostSpeaks   []uint32
}

// PluginIsOlder says which side is behind.
func (e *VersionError) PluginIsOlder() bool {
	var newest, host uint32
	for _, v := range e.PluginServes {
		newest = max(newest, v)
	}
	for _, v := range e.HostSpeaks {
		host = max(host, v)
	}
	return newest < host
}

func (e *VersionError) Error() string {
	older := "the plugin is newer than this mezzo"
	if e.PluginIsOlder() {
		older = "the plugin is older than this mezzo"
	}
	return fmt.Sprintf("%s serves contract version %s and this mezzo speaks %s: %s", e.Plugin, versionList(e.PluginServes), versionList(e.HostSpeaks), older)
}

func versionList(versions []uint32) string {
	words := make([]string, len(versions))
	for i, v := range versions {
		words[i] = fmt.Sprint(v)
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " and ")
}
