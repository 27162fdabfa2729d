package pluginhost

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sort"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// maxLine bounds a line of a plugin's output; longer ones come in pieces.
const maxLine = 64 << 10

// eachLine calls f for every line of r until it ends.
func eachLine(r io.Reader, f func(line string)) error {
	reader := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			f(strings.TrimRight(string(line), "\r\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// logForwarder turns a plugin's stderr into lines of the host's log: hclog's
// JSON at its own level, anything else at info, a panic and what follows it at
// error.
type logForwarder struct {
	logger  hclog.Logger // named <kind>.<name>
	name    string       // <kind>.<name>
	panicky bool
}

func (l *logForwarder) line(line string) {
	if entry, ok := parseEntry(line); ok {
		l.entry(entry)
		return
	}
	if line == "" {
		return
	}
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		l.panicky = true
	}
	if l.panicky {
		l.logger.Error(line)
		return
	}
	l.logger.Info(line)
}

func parseEntry(line string) (map[string]any, bool) {
	if !strings.HasPrefix(line, "{") {
		return nil, false
	}
	decoder := json.NewDecoder(strings.NewReader(line))
	decoder.UseNumber()
	var entry map[string]any
	if decoder.Decode(&entry) != nil {
		return nil, false
	}
	_, ok := entry["@message"].(string)
	return entry, ok
}

func (l *logForwarder) entry(entry map[string]any) {
	message, _ := entry["@message"].(string)
	word, _ := entry["@level"].(string)
	level := hclog.LevelFromString(word)
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	logger := l.logger
	// "allocator.drf.engine" is a part of the plugin.
	if module, _ := entry["@module"].(string); strings.HasPrefix(module, l.name+".") {
		logger = logger.Named(strings.TrimPrefix(module, l.name+"."))
	}
	names := make([]string, 0, len(entry))
	for name := range entry {
		// The host's own line has time, level, name and message of its own.
		if !strings.HasPrefix(name, "@") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	args := make([]any, 0, 2*len(names))
	for _, name := range names {
		args = append(args, name, entry[name])
	}
	logger.Log(level, message, args...)
}

// strayWriter logs what go-plugin carries of a plugin's os.Stdout and
// os.Stderr, which the plugin's own prints go to.
type strayWriter struct {
	line func(string)
	rest []byte
}

// Write is called by one goroutine.
func (w *strayWriter) Write(data []byte) (int, error) {
	w.rest = append(w.rest, data...)
	for {
		text, rest, found := strings.Cut(string(w.rest), "\n")
		if !found && len(w.rest) < maxLine {
			return len(data), nil
		}
		w.line(text)
		w.rest = []byte(rest)
	}
}
