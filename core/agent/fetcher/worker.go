package fetcher

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// Verb is the argument that makes the agent's own program a worker.
const Verb = "fetch-worker"

// The directories that a worker inherits.
const (
	sandboxFD = 3
	cacheFD   = 4 // only for work with the cache
)

// job is what a worker is to do with one URI.
type job struct {
	// Source is an http, https or file URL, or an absolute path. Empty: the
	// item Cached is already in the cache.
	Source string `json:"source,omitempty"`
	// Cached is a name in the cache directory to download to, or to take the
	// item from. Empty: the cache has no part.
	Cached string `json:"cached,omitempty"`
	// Place says whether the item is to be put into the sandbox.
	Place bool `json:"place,omitempty"`

	Output     string        `json:"output"` // relative path in the sandbox
	Executable bool          `json:"executable,omitempty"`
	Extract    bool          `json:"extract,omitempty"`
	Checksum   string        `json:"checksum,omitempty"`
	MaxBytes   int64         `json:"max_bytes"` // of a download, and of what is unpacked
	Stall      time.Duration `json:"stall"`
}

// report is a line that a worker writes: progress, or as the last line the
// result.
type report struct {
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"` // 0: not known
	What  string `json:"what,omitempty"`  // "unpacking"; empty: downloading
	// The result.
	Ended  bool   `json:"ended,omitempty"`
	Error  string `json:"error,omitempty"`
	TooBig bool   `json:"too_big,omitempty"` // the item is larger than MaxBytes
}

// errTooBig is a download larger than it may be.
var errTooBig = errors.New("too large")

// Work is what a worker does: it reads a job from in, does it, and writes
// reports to out. It is the whole of a process that was started with Verb.
func Work(ctx context.Context, in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return fmt.Errorf("the job of a fetch worker cannot be read: %w", err)
	}
	w := &worker{job: j, out: json.NewEncoder(out)}
	last := report{Ended: true}
	if err := w.run(ctx); err != nil {
		last.Error, last.TooBig = err.Error(), errors.Is(err, errTooBig)
	}
	return w.out.Encode(last)
}

type worker struct {
	job
	out      *json.Encoder
	reported time.Time
	sandbox  *os.Root
	cache    *os.Root
}

func (w *worker) run(ctx context.Context) error {
	var err error
	if w.sandbox, err = inherited(sandboxFD); err != nil {
		return err
	}
	defer w.sandbox.Close()
	if w.Cached != "" {
		if w.cache, err = inherited(cacheFD); err != nil {
			return err
		}
		defer w.cache.Close()
	}
	switch {
	case w.Source == "":
		return w.place(w.cache, w.Cached)
	case w.Cached != "":
		return w.download(ctx, w.cache, w.Cached)
	}
	// Into the sandbox at once: a move afterwards costs nothing.
	temporary := ".fetch-" + hex.EncodeToString(digest(w.Source + "\x00" + w.Output)[:8])
	defer w.sandbox.Remove(temporary) // gone already where all went well
	if err := w.download(ctx, w.sandbox, temporary); err != nil {
		return err
	}
	return w.place(w.sandbox, temporary)
}

func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// inherited opens a directory that was passed on. It is gone to by descriptor,
// because the way to it may be closed to this user; nothing else of the process
// depends on where it stands.
func inherited(fd int) (*os.Root, error) {
	if err := syscall.Fchdir(fd); err != nil {
		return nil, fmt.Errorf("the directory to fetch into cannot be entered: %w", err)
	}
	root, err := os.OpenRoot(".")
	if err != nil {
		return nil, fmt.Errorf("the directory to fetch into cannot be opened: %w", err)
	}
	return root, nil
}

// download brings the source to a file below root, whole or not at all.
func (w *worker) download(ctx context.Context, root *os.Root, name string) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, size, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer body.Close()
	if size > w.MaxBytes {
		return fmt.Errorf("%s has %d bytes and may have %d: %w", w.shown(), size, w.MaxBytes, errTooBig)
	}
	sum, want, err := checksum(w.Checksum)
	if err != nil {
		return err
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("what is fetched cannot be written: %w", err)
	}
	defer func() {
		if closed := file.Close(); err == nil && closed != nil {
			err = closed
		}
		if err != nil {
			_ = root.Remove(name)
		}
	}()
	var to io.Writer = file
	if sum != nil {
		to = io.MultiWriter(file, sum)
	}
	if err := w.copy(ctx, cancel, to, body, size); err != nil {
		return err
	}
	if sum != nil {
		if got := hex.EncodeToString(sum.Sum(nil)); got != want {
			return fmt.Errorf("%s has the checksum %s and should have %s: it is not the file that was meant", w.shown(), got, want)
		}
	}
	return nil
}

// copy copies with a bound in size, and gives up when nothing comes for Stall.
func (w *worker) copy(ctx context.Context, cancel context.CancelCauseFunc, to io.Writer, from io.Reader, size int64) error {
	stalled := time.AfterFunc(w.Stall, func() {
		cancel(fmt.Errorf("%s stalled: nothing has come for %s", w.shown(), w.Stall))
	})
	defer stalled.Stop()
	buffer := make([]byte, 256<<10)
	var done int64
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			stalled.Reset(w.Stall)
			if done += int64(n); done > w.MaxBytes {
				return fmt.Errorf("%s has more than %d bytes: %w", w.shown(), w.MaxBytes, errTooBig)
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return fmt.Errorf("what is fetched cannot be written: %w", err)
			}
			w.progress("", done, max(size, 0))
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("%s broke off after %d bytes: %w", w.shown(), done, err)
		}
	}
}

// progress reports twice a second at most.
func (w *worker) progress(what string, done, total int64) {
	if now := time.Now(); now.Sub(w.reported) >= 500*time.Millisecond {
		w.reported = now
		_ = w.out.Encode(report{What: what, Done: done, Total: total}) // without a reader the worker is killed
	}
}

// open opens the source; size is negative when it is not known.
func (w *worker) open(ctx context.Context) (io.ReadCloser, int64, error) {
	scheme, _, found := strings.Cut(w.Source, "://")
	switch {
	case !found:
		return w.openFile(w.Source)
	case strings.EqualFold(scheme, "file"):
		u, err := url.Parse(w.Source)
		if err != nil || u.Host != "" && u.Host != "localhost" {
			return nil, 0, fmt.Errorf("%s is not a file of this agent: write file:///path", w.shown())
		}
		return w.openFile(u.Path)
	}
	return w.openHTTP(ctx)
}

func (w *worker) openFile(name string) (io.ReadCloser, int64, error) {
	// Neither a device nor a pipe that somebody has put there may hold us up.
	info, err := os.Stat(name)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", name)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return file, info.Size(), nil
}

func (w *worker) openHTTP(ctx context.Context) (io.ReadCloser, int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.Source, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("%s is not a URL: %w", w.shown(), err)
	}
	request.Header.Set("User-Agent", "mezzo")
	// As the server has it: no transparent decompression of archives.
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableCompression: true, TLSHandshakeTimeout: w.Stall, ResponseHeaderTimeout: w.Stall,
	}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // its text has the URL, and with that the password
		}
		return nil, 0, fmt.Errorf("%s cannot be downloaded: %w", w.shown(), err)
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, 0, fmt.Errorf("%s cannot be downloaded: the server answered %s", w.shown(), answer.Status)
	}
	return answer.Body, answer.ContentLength, nil
}

// shown is the source as people may see it.
func (w *worker) shown() string { return Redact(w.Source) }

// Redact is an URI without what may be secret in it: user, password, query.
func Redact(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" {
		return uri
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// checksum takes "sha256:…" apart; a nil hash for the empty text.
func checksum(text string) (hash.Hash, string, error) {
	if text == "" {
		return nil, "", nil
	}
	kind, value, _ := strings.Cut(text, ":")
	var sum hash.Hash
	switch kind {
	case "sha256":
		sum = sha256.New()
	case "sha512":
		sum = sha512.New()
	default:
		return nil, "", fmt.Errorf("checksum %q is of no known kind: write sha256:… or sha512:…", text)
	}
	value = strings.ToLower(value)
	if raw, err := hex.DecodeString(value); err != nil || len(raw) != sum.Size() {
		return nil, "", fmt.Errorf("checksum %q must be %s: and %d hexadecimal digits", text, kind, 2*sum.Size())
	}
	return sum, value, nil
}

// place puts a downloaded item into the sandbox under its own name.
func (w *worker) place(root *os.Root, name string) error {
	if dir := path.Dir(w.Output); dir != "." {
		if err := w.sandbox.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("the directory of %q cannot be made: %w", w.Output, err)
		}
	}
	if w.Extract && !w.Executable {
		if kind := archiveKind(w.Output); kind != nil {
			return w.unpack(kind, root, name)
		}
	}
	mode := fs.FileMode(0o644)
	if w.Executable {
		mode = 0o755
	}
	if root == w.sandbox {
		if err := root.Chmod(name, mode); err != nil {
			return err
		}
		return root.Rename(name, w.Output)
	}
	from, err := root.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	return w.write(w.Output, mode, from, nil)
}

// write makes a new file in the sandbox; what is in the way goes.
func (w *worker) write(name string, mode fs.FileMode, from io.Reader, count func(int64) error) (err error) {
	if err := w.sandbox.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := w.sandbox.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = closed
		}
	}()
	if count != nil {
		from = &counted{from, count}
	}
	if _, err := io.Copy(file, from); err != nil {
		return err
	}
	return file.Chmod(mode) // whatever the umask
}

// counted tells how much was read, and stops when that is too much.
type counted struct {
	io.Reader
	count func(int64) error
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if n > 0 {
		if too := c.count(int64(n)); too != nil {
			return 0, too
		}
	}
	return n, err
}
