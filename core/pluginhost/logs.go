package pluginhost

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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
	level := hclog.LevelFromString(field(entry, "@level"))
	if level == hclog.NoLevel {
		level = hclog.Info
	}
	logger := l.logger
	// "allocator.drf.engine" is a part of the plugin.
	if module := field(entry, "@module"); strings.HasPrefix(module, l.name+".") {
		logger = logger.Named(strings.TrimPrefix(module, l.name+"."))
	}
	logger.Log(level, field(entry, "@message"), pairs(entry)...)
}

func field(entry map[string]any, name string) string {
	text, _ := entry[name].(string)
	return text
}

// pairs returns what a log line says beyond its message, in order of name. Time,
// level and name are the host's own.
func pairs(entry map[string]any) []any {
	var out []any
	for _, name := range slices.Sorted(maps.Keys(entry)) {
		if !strings.HasPrefix(name, "@") {
			out = append(out, name, entry[name])
		}
	}
	return out
}

// readable turns a line of hclog's JSON into one for people, for errors.
func readable(line string) string {
	entry, ok := parseEntry(line)
	if !ok {
		return line
	}
	text := fmt.Sprintf("[%s] %s", strings.ToUpper(field(entry, "@level")), field(entry, "@message"))
	for i, more := 0, pairs(entry); i < len(more); i += 2 {
		text += fmt.Sprintf(" %v=%v", more[i], more[i+1])
	}
	return text
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
