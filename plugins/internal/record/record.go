// Package record is the form of everything that the plugin and mezzo-shim tell
// each other: files in a container's state directory and messages on its
// control socket. It is text, one field a line, `key value`, the value quoted
// as a Go string. Keys may repeat. A reader ignores keys that it does not know,
// so that a shim of an older build and a newer plugin understand each other.
//
// The package imports nothing heavy: it is linked into every shim.
package record

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The keys of a container's files and messages. A value that is a number is
// decimal, a time is nanoseconds since 1970.
const (
	// Of `config`: what is to run.
	Arg       = "arg"
	Env       = "env"
	Cwd       = "cwd"
	UID       = "uid"
	GID       = "gid"
	Group     = "group"
	Umask     = "umask"
	NoNewPriv = "no_new_privs"
	Rlimit    = "rlimit" // NUMBER SOFT HARD
	OOMScore  = "oom_score_adj"
	Hostname  = "hostname"
	Bounding  = "cap_bounding"  // a mask, hexadecimal; so the other four
	Effective = "cap_effective" //
	Permitted = "cap_permitted"
	Inherit   = "cap_inheritable"
	Ambient   = "cap_ambient"
	Unshare   = "unshare"  // clone flags of new namespaces
	JoinPid   = "join_pid" // path of a pid namespace
	Join      = "join"     // CLONE_FLAG PATH
	Mount     = "mount"    // Words: TARGET SOURCE TYPE FLAGS DATA
	Masked    = "masked"   // a path that is covered
	Readonly  = "readonly" // a path that is made read-only
	Seccomp   = "seccomp"  // a filter of system calls, hexadecimal
	// The mount namespace that is joined is copied, and the mounts are the copy's.
	CopyMounts = "copy_mounts"
	TTY        = "tty"
	Rows       = "rows"
	Columns    = "columns"
	// …and how it is held.
	Guest     = "guest" // its first process is mezzo-init, started by another runtime
	Sandbox   = "sandbox"
	LogBytes  = "log_bytes"
	LogFiles  = "log_files"
	Deadline  = "deadline"
	NoProcess = "no_process"
	Cgroup    = "cgroup"          // a directory whose cgroup.procs the process joins
	KillV2    = "kill_v2"         // a directory with cgroup.kill
	Freezer   = "freezer"         // a v1 freezer directory
	Tree      = "tree"            // any cgroup directory whose processes are the container's
	MemoryV1  = "memory_v1"       // the v1 memory directory that the process is in
	MemoryV2  = "memory_v2"       // likewise v2
	MemoryTop = "memory_ancestor" // directories above it whose limit counts too

	// Of `shim`: which processes there are.
	ShimPid   = "shim_pid"
	ShimStart = "shim_start"
	Pid       = "pid"
	PidStart  = "pid_start"

	// Of `status` and of messages.
	Code           = "code"
	Signal         = "signal"
	Core           = "core"
	Time           = "time"
	Known          = "known"
	DeadlinePassed = "deadline_exceeded"
	Unstarted      = "unstarted" // it ended before it was let go
	MemoryLimit    = "memory_limit"
	MemoryUsed     = "memory_used"
	OOM            = "oom"
	Done           = "done"
	Error          = "error"
	State          = "state"
	Request        = "request"
	Grace          = "grace" // nanoseconds
	File           = "file"
	DeadlineGrace  = "deadline_grace"
	KillAt         = "kill_at"
	All            = "all"
	Terminal       = "terminal" // the path of the task's end of its terminal

	// Of messages between a shim and mezzo-init.
	ID    = "id"    // which process: 1 is the task
	Ended = "ended" // its wait status, as the kernel has it
)

// The names of the files in a container's state directory.
const (
	// WallsFile is for the plugin alone: what of the configuration binds every
	// other process in the container as well.
	WallsFile     = "walls"
	ConfigFile    = "config"
	ShimFile      = "shim"
	StatusFile    = "status"
	DeadlinesFile = "deadlines"
	ControlSocket = "control"
	GuestSocket   = "guest" // for mezzo-init
	LogFile       = "shim.log"
)

// Field is one line.
type Field struct{ Key, Value string }

// Record is lines in order.
type Record []Field

// Add appends a field.
func (r *Record) Add(key, value string) { *r = append(*r, Field{key, value}) }

// AddInt appends a number.
func (r *Record) AddInt(key string, value int64) { r.Add(key, strconv.FormatInt(value, 10)) }

// Get returns the first value of the key, "" when there is none.
func (r Record) Get(key string) string {
	for _, f := range r {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// Has tells whether the key is there.
func (r Record) Has(key string) bool {
	for _, f := range r {
		if f.Key == key {
			return true
		}
	}
	return false
}

// All returns every value of the key, in order.
func (r Record) All(key string) []string {
	var values []string
	for _, f := range r {
		if f.Key == key {
			values = append(values, f.Value)
		}
	}
	return values
}

// Int returns the first value of the key as a number, 0 when there is none or
// it is not one.
func (r Record) Int(key string) int64 {
	n, _ := strconv.ParseInt(r.Get(key), 10, 64)
	return n
}

// Marshal returns the record's text.
func (r Record) Marshal() []byte {
	var b []byte
	for _, f := range r {
		b = append(b, f.Key...)
		b = append(b, ' ')
		b = strconv.AppendQuote(b, f.Value)
		b = append(b, '\n')
	}
	return b
}

// ErrMalformed is the error for text that is not a record.
var ErrMalformed = errors.New("malformed record")

// Unmarshal reads a record's text. A last line without its newline is an
// error: it may have been cut.
func Unmarshal(text []byte) (Record, error) {
	var r Record
	rest := string(text)
	for rest != "" {
		line, after, whole := strings.Cut(rest, "\n")
		if !whole {
			return nil, ErrMalformed
		}
		rest = after
		key, quoted, ok := strings.Cut(line, " ")
		if !ok || key == "" {
			return nil, ErrMalformed
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, ErrMalformed
		}
		r.Add(key, value)
	}
	return r, nil
}

// Read reads the record in a file.
func Read(path string) (Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r, err := Unmarshal(text)
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return r, nil
}

// Write replaces a file so that a reader sees the old record or the new one,
// whole. When durable, the new one also survives a power cut once Write has
// returned nil.
func Write(path string, r Record, durable bool) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(r.Marshal())
	if err == nil && durable {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	if !durable {
		return nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// Words puts quoted words on one line, for a value that has several parts.
func Words(words ...string) string {
	var b []byte
	for i, w := range words {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendQuote(b, w)
	}
	return string(b)
}

// ParseWords is the inverse of Words.
func ParseWords(line string) ([]string, error) {
	var words []string
	for line != "" {
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, ErrMalformed
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, ErrMalformed
		}
		words = append(words, word)
		line = strings.TrimPrefix(line[len(quoted):], " ")
	}
	return words, nil
}
