package fetcher

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Options are what a Fetcher is made of.
type Options struct {
	// CacheDir is the cache's directory. Whatever is in it is removed. The way
	// to it need not be open to the tasks' users.
	CacheDir string
	// CacheBytes is how much the cache may hold; 0: there is no cache.
	CacheBytes int64
	// MaxBytes is how large a download may be, and how much an archive may
	// unpack to.
	MaxBytes int64
	// Stall is after how long without a byte a download is given up.
	Stall time.Duration
	// Program is what is started, with Verb as its argument; empty: the running
	// program itself.
	Program string
}

// User is who a worker runs as. The agent must be root to be anybody else.
type User struct {
	UID, GID uint32
	Groups   []uint32
}

// Fetcher fetches. All methods may be called at the same time.
type Fetcher struct {
	options Options
	cache   *cache
}

// New makes a Fetcher with an empty cache.
func New(o Options) (*Fetcher, error) {
	if o.Program == "" {
		o.Program = "/proc/self/exe" // the way to the program may be closed to the user
	}
	f := &Fetcher{options: o}
	if o.CacheBytes > 0 {
		var err error
		if f.cache, err = newCache(o.CacheDir, o.CacheBytes); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// CacheUse is how much the cache holds and may hold, in bytes.
func (f *Fetcher) CacheUse() (used, total int64) {
	if f.cache == nil {
		return 0, 0
	}
	return f.cache.use()
}

// Validate says what is wrong with a URI, without fetching anything.
func Validate(u *mezzov1.CommandInfo_URI) error {
	value := u.GetValue()
	scheme, _, found := strings.Cut(value, "://")
	switch {
	case value == "":
		return errors.New("a URI is empty")
	case !found && !path.IsAbs(value):
		return fmt.Errorf("URI %q is neither a URL nor an absolute path", value)
	case found && !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") && !strings.EqualFold(scheme, "file"):
		return fmt.Errorf("URI %q: %q is not fetched here; http, https and file are", Redact(value), scheme)
	}
	if output := u.GetOutputFile(); output != "" && !filepath.IsLocal(output) {
		return fmt.Errorf("URI %q: output_file %q leaves the sandbox", Redact(value), output)
	}
	name, err := output(u)
	if err != nil {
		return err
	}
	if name == "stdout" || name == "stderr" {
		return fmt.Errorf("URI %q: %q is the task's own output: name an output_file", Redact(value), name)
	}
	_, _, err = checksum(u.GetChecksum())
	return err
}

// output is the name of what is fetched, in the sandbox.
func output(u *mezzov1.CommandInfo_URI) (string, error) {
	if name := u.GetOutputFile(); name != "" {
		return path.Clean(name), nil
	}
	value := u.GetValue()
	if strings.Contains(value, "://") {
		parsed, err := url.Parse(value)
		if err != nil {
			return "", fmt.Errorf("URI %q is not a URL", Redact(value))
		}
		value = parsed.Path
	}
	name := path.Base(value)
	if name == "." || name == "/" || name == ".." {
		return "", fmt.Errorf("URI %q has no file name: name an output_file", Redact(u.GetValue()))
	}
	return name, nil
}

// Fetch brings all URIs into the sandbox, one after the other. The first that
// fails ends it, with an error for the task's owner. Progress is called with a
// sentence, twice a second at most, never at the same time.
func (f *Fetcher) Fetch(ctx context.Context, sandbox *os.File, who User, uris []*mezzov1.CommandInfo_URI, progress func(string)) error {
	for i, u := range uris {
		if err := Validate(u); err != nil {
			return err
		}
		name, err := output(u)
		if err != nil {
			return err
		}
		j := job{
			Source: u.GetValue(), Place: true, Output: name, Executable: u.GetExecutable(), Extract: u.GetExtract(),
			Checksum: u.GetChecksum(), MaxBytes: f.options.MaxBytes, Stall: f.options.Stall,
		}
		tell := func(r report) { progress(sentence(i, len(uris), name, r)) }
		tell(report{})
		if u.GetCache() && f.cache != nil {
			err = f.cached(ctx, sandbox, who, j, tell)
		} else {
			err = f.work(ctx, sandbox, nil, who, j, tell)
		}
		if err != nil {
			return fmt.Errorf("fetching %s: %w", name, err)
		}
	}
	return nil
}

func sentence(i, n int, name string, r report) string {
	text := "fetching " + name
	if r.What != "" {
		text = r.What + " " + name
	}
	if n > 1 {
		text += fmt.Sprintf(" (%d of %d)", i+1, n)
	}
	switch {
	case r.Total > 0:
		text += fmt.Sprintf(": %d %% of %s", r.Done*100/r.Total, bytesText(r.Total))
	case r.Done > 0:
		text += ": " + bytesText(r.Done)
	}
	return text
}

func bytesText(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20)
}

// cached takes an item from the cache, and puts it there first when it is not
// in it. What the cache has no room for is fetched without it.
func (f *Fetcher) cached(ctx context.Context, sandbox *os.File, who User, j job, tell func(report)) error {
	dir, err := f.cache.open(who)
	if err != nil {
		return err
	}
	defer dir.Close()
	download := func(name string, most int64) error {
		load := j
		load.Cached, load.Place, load.MaxBytes = name, false, min(most, j.MaxBytes)
		return f.work(ctx, sandbox, dir, who, load, tell)
	}
	item, err := f.cache.get(ctx, who, j.Source+"\x00"+j.Checksum, download)
	if errors.Is(err, errTooBig) {
		return f.work(ctx, sandbox, nil, who, j, tell)
	}
	if err != nil {
		return err
	}
	defer f.cache.put(item)
	place := j
	place.Source, place.Cached = "", item.name
	return f.work(ctx, sandbox, dir, who, place, tell)
}

// work has a worker do a job.
func (f *Fetcher) work(ctx context.Context, sandbox, cache *os.File, who User, j job, tell func(report)) error {
	input, err := json.Marshal(j)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, f.options.Program, Verb)
	cmd.Dir, cmd.Env = "/", environment()
	cmd.Stdin = bytes.NewReader(input)
	var said tail
	cmd.Stderr = &said
	cmd.ExtraFiles = []*os.File{sandbox}
	if cache != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, cache)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: who.UID, Gid: who.GID, Groups: who.Groups}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("the fetch worker cannot be started: %w", err)
	}
	var last report
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		if r.Ended {
			last = r
			continue
		}
		tell(r)
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !last.Ended:
		return fmt.Errorf("the fetch worker ended before it was done (%v): %s", err, said.text())
	case last.TooBig:
		return fmt.Errorf("%s: %w", strings.TrimSuffix(last.Error, ": "+errTooBig.Error()), errTooBig)
	case last.Error != "":
		return errors.New(last.Error)
	}
	return nil
}

// environment is what a worker needs of the agent's: where proxies and
// certificates are.
func environment() []string {
	var env []string
	for _, name := range []string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
	} {
		if value, found := os.LookupEnv(name); found {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// tail keeps the end of what a worker wrote on stderr, for an error.
type tail struct{ bytes []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.bytes = append(t.bytes, b...)
	if over := len(t.bytes) - 2048; over > 0 {
		t.bytes = t.bytes[over:]
	}
	return len(b), nil
}

func (t *tail) text() string {
	if text := strings.TrimSpace(string(t.bytes)); text != "" {
		return text
	}
	return "it wrote nothing on stderr"
}
