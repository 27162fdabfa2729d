package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
)

// LockName is the file beside a configuration that pins the checksums of
// plugins.
const LockName = "mezzo.lock.hcl"

const (
	// maxFileSize bounds a configuration file, and what file() reads.
	maxFileSize = 1 << 20
	// maxNesting bounds brackets within brackets: the parsers recurse, and Go
	// cannot recover from an exhausted stack.
	maxNesting = 500
)

// File is what Load read: one or more files, united. It does not change after
// Load and may be used concurrently.
type File struct {
	paths   []string // the files, in the order read
	sources map[string]*hcl.File

	base          base
	master        masterBlock
	agent         agentBlock
	roles         []Role
	election      *Election
	registry      *Registry
	allocator     *Plugin
	isolators     []Plugin
	frameworks    []Plugin // at the top: for every process of this file
	explicitTLS   *TLS
	tracing       *Tracing
	authorization *Authorization
	pinned        map[string]LockEntry // by plugin id
}

// Load reads configuration files: each path is a file, or a directory whose
// *.hcl and *.json files are read in the order of their names. All are united:
// their blocks stand beside each other, and what may stand once only is an
// error when it stands in two files. A lock file beside a path is read too.
//
// The File is never nil. With an error among the diagnostics it holds what
// could be read, which is enough to print them, and must not be run.
func Load(paths []string) (*File, hcl.Diagnostics) {
	f := &File{sources: map[string]*hcl.File{}}
	var diags hcl.Diagnostics
	var bodies []hcl.Body
	var locks []string
	for _, path := range paths {
		names, lock, more := expand(path)
		diags = append(diags, more...)
		if lock != "" && !slices.Contains(locks, lock) {
			locks = append(locks, lock)
		}
		for _, name := range names {
			if f.sources[name] != nil {
				continue // the same file named twice says nothing new
			}
			parsed, more := f.parse(name)
			diags = append(diags, more...)
			if parsed == nil {
				continue
			}
			f.paths = append(f.paths, name)
			if !more.HasErrors() {
				bodies = append(bodies, parsed.Body)
			}
		}
	}
	d := &decoder{}
	f.decode(d, hcl.MergeBodies(bodies))
	diags = append(diags, d.diags...)
	var entries []LockEntry
	for _, lock := range locks {
		read, more := f.readLock(lock)
		diags = append(diags, more...)
		entries = append(entries, read...)
	}
	return f, byPlace(append(diags, f.applyLock(entries)...))
}

// Sources are the parsed files by name, for WriteDiagnostics.
func (f *File) Sources() map[string]*hcl.File { return f.sources }

// Paths are the configuration files that were read, in order, lock files not
// among them.
func (f *File) Paths() []string { return slices.Clone(f.paths) }

// HasMaster tells whether a master block was written.
func (f *File) HasMaster() bool { return f.master.written }

// HasAgent tells whether an agent block was written.
func (f *File) HasAgent() bool { return f.agent.written }

// IsForMaster and IsForAgent say for whom the configuration is: where it has
// neither block, for a master, and for an agent if it names isolators.
func (f *File) IsForMaster() bool { return f.HasMaster() || !f.HasAgent() }

// IsForAgent: see IsForMaster.
func (f *File) IsForAgent() bool { return f.HasAgent() || !f.HasMaster() && len(f.isolators) > 0 }

// LockPath is where the lock file of a configuration path lies: in it when it
// is a directory, else beside it.
func LockPath(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, LockName)
	}
	return filepath.Join(filepath.Dir(path), LockName)
}

// expand lists the files of a path and, where it exists, its lock file.
func expand(path string) (names []string, lock string, diags hcl.Diagnostics) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", unreadable(path, err)
	}
	if _, err := os.Stat(LockPath(path)); err == nil {
		lock = LockPath(path)
	}
	if !info.IsDir() {
		return []string{filepath.Clean(path)}, lock, nil
	}
	entries, err := os.ReadDir(path) // in the order of their names
	if err != nil {
		return nil, "", unreadable(path, err)
	}
	for _, entry := range entries {
		name := entry.Name()
		ext := filepath.Ext(name)
		if entry.IsDir() || strings.HasPrefix(name, ".") || name == LockName || (ext != ".hcl" && ext != ".json") {
			continue
		}
		names = append(names, filepath.Join(path, name))
	}
	if len(names) == 0 {
		return nil, lock, hcl.Diagnostics{{
			Severity: hcl.DiagError,
			Summary:  "No configuration files",
			Detail:   fmt.Sprintf("The directory %s holds no *.hcl and no *.json file.", path),
		}}
	}
	return names, lock, nil
}

func unreadable(path string, err error) hcl.Diagnostics {
	detail := fmt.Sprintf("%s cannot be read: %s.", path, reason(err))
	if errors.Is(err, fs.ErrNotExist) {
		detail = fmt.Sprintf("There is no file or directory %s.", path)
	}
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read configuration", Detail: detail}}
}

// reason is an error without the path that os puts in front of it.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

// parse reads and parses one file and keeps its source. It gives nil when there
// is no source to keep.
func (f *File) parse(name string) (*hcl.File, hcl.Diagnostics) {
	src, err := readBounded(name)
	if err != nil {
		return nil, unreadable(name, err)
	}
	var parsed *hcl.File
	var diags hcl.Diagnostics
	switch deep := nesting(src, name); {
	case deep != nil:
		parsed, diags = &hcl.File{Bytes: src, Body: hcl.EmptyBody()}, hcl.Diagnostics{deep}
	case filepath.Ext(name) == ".json":
		parsed, diags = json.Parse(src, name)
	default:
		parsed, diags = hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	}
	if parsed == nil {
		parsed = &hcl.File{Bytes: src, Body: hcl.EmptyBody()}
	}
	f.sources[name] = parsed
	return parsed, diags
}

// readBounded reads a regular file of at most maxFileSize.
func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	src, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(src) > maxFileSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFileSize)
	}
	return src, nil
}

// nesting complains about a source that nests deeper than the parsers can bear.
// It counts every opening bracket and prefix operator that may recurse, and does
// not know strings from code, so it errs towards counting too much; real
// configurations are far below the bound.
func nesting(src []byte, name string) *hcl.Diagnostic {
	depth, run, line := 0, 0, 1
	for i, c := range src {
		switch c {
		case '{', '[', '(':
			depth++
			run = 0
		case '}', ']', ')':
			depth = max(0, depth-1)
			run = 0
		case '\n':
			line++
		case '!', '-':
			run++
		case ' ', '\t', '\r':
		default:
			run = 0
		}
		if depth > maxNesting || run > maxNesting {
			at := hcl.Pos{Line: line, Column: 1, Byte: i}
			return &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Nested too deeply",
				Detail:   fmt.Sprintf("Brackets or operators nest deeper than %d levels here.", maxNesting),
				Subject:  &hcl.Range{Filename: name, Start: at, End: at},
			}
		}
	}
	return nil
}
