// Package files serves the files of sandboxes: /files/browse, /files/read,
// /files/download and /files/debug. What may be read is the core's to say: it
// opens every file itself, within its sandbox.
package files

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	// readMost is the most that one /files/read answers: sixteen pages.
	readMost = 16 * 4096
	// piece is how much a download asks for at a time.
	piece = 1 << 20
)

// Files serves the endpoints. Safe for concurrent use.
type Files struct {
	// Agent has the files; nil: there are none, as at a master.
	Agent operatorv1.AgentOperatorClient
}

// Register has it serve its endpoints.
func (f *Files) Register(s *transport.Server) {
	handle := func(name string, serve func(http.ResponseWriter, *http.Request) *transport.Error) {
		e := transport.Endpoint{Realm: transport.ReadOnly, Methods: []string{"GET"}, Serve: func(w http.ResponseWriter, r *http.Request) {
			if failure := serve(w, r); failure != nil {
				if failure.Code == http.StatusNotFound {
					transport.Empty(w, http.StatusNotFound)
					return
				}
				failure.Write(w)
			}
		}}
		s.Handle("files", name, e)
		s.Handle("files", name+".json", e)
	}
	handle("/browse", f.browse)
	handle("/read", f.read)
	handle("/download", f.download)
	handle("/debug", f.debug)
}

// Failed is the answer when the core has not given a file.
func Failed(err error) *transport.Error {
	code := http.StatusInternalServerError
	switch status.Code(err) {
	case codes.NotFound:
		return transport.Failed(http.StatusNotFound, "")
	case codes.InvalidArgument:
		code = http.StatusBadRequest
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		code = http.StatusServiceUnavailable
	}
	return transport.Failed(code, status.Convert(err).Message()+"\n")
}

// List lists a directory.
func (f *Files) List(ctx context.Context, path string) ([]*mezzov1.FileInfo, error) {
	if f.Agent == nil {
		return nil, status.Error(codes.NotFound, "there are no files")
	}
	answer, err := f.Agent.ListFiles(ctx, &operatorv1.ListFilesRequest{Path: path})
	return answer.GetFiles(), err
}

// Read reads from a file.
func (f *Files) Read(ctx context.Context, path string, offset, length uint64) (*operatorv1.ReadFileResponse, error) {
	if f.Agent == nil {
		return nil, status.Error(codes.NotFound, "there are no files")
	}
	return f.Agent.ReadFile(ctx, &operatorv1.ReadFileRequest{Path: path, Offset: offset, Length: length})
}

func pathOf(r *http.Request) (string, *transport.Error) {
	p := r.URL.Query().Get("path")
	if p == "" {
		return "", transport.Failed(http.StatusBadRequest, "Expecting 'path=value' in query.\n")
	}
	return p, nil
}

func (f *Files) browse(w http.ResponseWriter, r *http.Request) *transport.Error {
	p, failure := pathOf(r)
	if failure != nil {
		return failure
	}
	list, err := f.List(transport.CallContext(r), p)
	if err != nil {
		return Failed(err)
	}
	legacy.Answer(w, r, func(j *legacy.JSON) {
		j.Array(func() {
			for _, x := range list {
				j.Object(func() {
					j.Key("path").Text(x.GetPath())
					j.Key("nlink").Int(int(x.GetNlink()))
					j.Key("size").Int(int(x.GetSize()))
					j.Key("mtime").Float(float64(x.GetMtime().GetNanoseconds() / 1e9))
					j.Key("mode").Text(Mode(x.GetMode()))
					j.Key("uid").Text(x.GetUid())
					j.Key("gid").Text(x.GetGid())
				})
			}
		})
	})
	return nil
}

// Mode writes a file's mode as people know it: "-rwxr-xr-x".
func Mode(mode uint32) string {
	const set, names = 0o170000, "rwxrwxrwx"
	out := []byte("-")
	switch mode & set {
	case 0o040000:
		out[0] = 'd'
	case 0o120000:
		out[0] = 'l'
	case 0o010000:
		out[0] = 'p'
	case 0o140000:
		out[0] = 's'
	case 0o020000:
		out[0] = 'c'
	case 0o060000:
		out[0] = 'b'
	}
	for i := range names {
		c := byte('-')
		if mode&(1<<(8-i)) != 0 {
			c = names[i]
		}
		out = append(out, c)
	}
	for i, bit := range []uint32{0o4000, 0o2000, 0o1000} {
		if mode&bit == 0 {
			continue
		}
		x, lower := &out[3+3*i], byte("sst"[i])
		if *x == '-' {
			lower -= 'a' - 'A'
		}
		*x = lower
	}
	return string(out)
}

// number reads a parameter that may be -1.
func number(r *http.Request, name string) (int64, *transport.Error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return -1, nil
	}
	v, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return 0, transport.Failed(http.StatusBadRequest, fmt.Sprintf("Failed to parse %s: '%s' is not a number.\n", name, text))
	case v < -1:
		return 0, transport.Failed(http.StatusBadRequest, fmt.Sprintf("Negative %s provided: %d.\n", name, v))
	}
	return v, nil
}

func (f *Files) read(w http.ResponseWriter, r *http.Request) *transport.Error {
	p, failure := pathOf(r)
	if failure != nil {
		return failure
	}
	offset, failure := number(r, "offset")
	if failure != nil {
		return failure
	}
	length, failure := number(r, "length")
	if failure != nil {
		return failure
	}
	var answer *operatorv1.ReadFileResponse
	var err error
	if offset < 0 {
		if answer, err = f.Read(transport.CallContext(r), p, 0, 0); err == nil {
			offset = int64(answer.GetSize())
		}
	} else {
		if length < 0 || length > readMost {
			length = readMost
		}
		answer, err = f.Read(transport.CallContext(r), p, uint64(offset), uint64(length))
	}
	if err != nil {
		return Failed(err)
	}
	legacy.Answer(w, r, func(j *legacy.JSON) {
		j.Object(func() {
			j.Key("data").Text(string(answer.GetData()))
			j.Key("offset").Int(int(offset))
		})
	})
	return nil
}

func (f *Files) download(w http.ResponseWriter, r *http.Request) *transport.Error {
	p, failure := pathOf(r)
	if failure != nil {
		return failure
	}
	ctx := transport.CallContext(r)
	first, err := f.Read(ctx, p, 0, piece)
	if err != nil {
		return Failed(err)
	}
	media := mime.TypeByExtension(path.Ext(p))
	if media == "" {
		media = "application/octet-stream"
	}
	// The name is the task's: it must not end the header, or the quotes.
	name := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '"' || c == '\\' {
			return '_'
		}
		return c
	}, path.Base(p))
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Disposition", "attachment; filename="+name)
	w.Header().Set("Content-Length", strconv.FormatUint(first.GetSize(), 10))
	w.WriteHeader(http.StatusOK)
	// A file that grows is sent as long as it was; one that shrinks breaks off.
	for data, left := first.GetData(), first.GetSize(); left > 0 && len(data) > 0; {
		data = data[:min(uint64(len(data)), left)]
		if _, err := w.Write(data); err != nil {
			return nil
		}
		if left -= uint64(len(data)); left == 0 {
			return nil
		}
		next, err := f.Read(ctx, p, first.GetSize()-left, piece)
		if err != nil {
			return nil
		}
		data = next.GetData()
	}
	return nil
}

// debug lists where sandboxes are.
func (f *Files) debug(w http.ResponseWriter, r *http.Request) *transport.Error {
	var answer *operatorv1.AgentStateResponse
	if f.Agent != nil {
		var err error
		if answer, err = f.Agent.GetState(transport.CallContext(r), &operatorv1.GetAgentStateRequest{Detail: true}); err != nil {
			return Failed(err)
		}
	}
	legacy.Answer(w, r, func(j *legacy.JSON) {
		j.Object(func() {
			seen := map[string]bool{}
			for _, e := range answer.GetDetail().GetExecutors() {
				if d := e.GetDirectory(); d != "" && !seen[d] {
					seen[d] = true
					j.Key(d).Text(d)
				}
			}
		})
	})
	return nil
}
