package pluginhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// find returns the real file behind Spec.Path, links resolved, or says what is
// there instead.
func (s Spec) find() (string, *Error) {
	path, err := filepath.Abs(s.Path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err == nil {
		return path, nil
	}
	e := &Error{Plugin: s.title(), Path: s.Path, Step: StepFind, Err: err}
	if !errors.Is(err, fs.ErrNotExist) {
		e.Problem = fmt.Sprintf("its binary cannot be reached: %v", rootCause(err))
		e.Remedy = "let this user read the directories on the way to it"
		return "", e
	}
	near := nearNames(filepath.Dir(s.Path), filepath.Base(s.Path))
	e.Err = &NotFoundError{Path: s.Path, Near: near}
	e.Problem = "its binary does not exist"
	binary := plugin.BinaryName(s.Kind, s.Name)
	switch {
	case s.label != "" && len(near) > 0:
		e.Remedy = "check the path; plugins in that directory: " + strings.Join(near, ", ")
	case s.label != "":
		e.Remedy = "check the path; its directory holds no plugin"
	case len(near) > 0:
		e.Remedy = fmt.Sprintf("install %s there, or write another name or path; plugins in that directory: %s", binary, strings.Join(near, ", "))
	default:
		e.Remedy = fmt.Sprintf("install %s there (the directory holds no plugin), or set plugin_dir or path", binary)
	}
	return "", e
}

// maxNear is how many names are worth an operator's reading.
const maxNear = 8

// nearNames lists what looks like a plugin in a directory, the likeliest first.
func nearNames(dir, want string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if _, _, ok := parseBinaryName(e.Name()); ok && !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	sort.SliceStable(names, func(a, b int) bool { return distance(names[a], want) < distance(names[b], want) })
	return names[:min(len(names), maxNear)]
}

// parseBinaryName splits mezzo-<kind>-<name>.
func parseBinaryName(file string) (kind, name string, ok bool) {
	rest, ok := strings.CutPrefix(file, "mezzo-")
	if !ok {
		return "", "", false
	}
	kind, name, ok = strings.Cut(rest, "-")
	if _, known := plugin.KindOf(kind); !known || name == "" {
		return "", "", false
	}
	return kind, name, ok
}

// distance is Levenshtein's: how many letters must change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
