package pluginhost

import (
	"bytes"
	"strings"
	"sync"
)

const (
	keepStdout = 256 // first bytes
	keepLines  = 20  // last lines of stderr
	keepLine   = 400 // bytes of each
)

// output keeps the little of a process's output that explains its death.
type output struct {
	mu     sync.Mutex
	stdout bytes.Buffer
	stderr []string
}

func (o *output) addStdout(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if room := keepStdout - o.stdout.Len(); room > 0 {
		line += "\n"
		o.stdout.WriteString(line[:min(room, len(line))])
	}
}

func (o *output) addStderr(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.stderr) == keepLines {
		o.stderr = o.stderr[1:]
	}
	o.stderr = append(o.stderr, strings.ToValidUTF8(line[:min(keepLine, len(line))], "\uFFFD"))
}

func (o *output) get() Output {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Output{Stdout: strings.TrimSuffix(o.stdout.String(), "\n"), Stderr: append([]string(nil), o.stderr...)}
}
