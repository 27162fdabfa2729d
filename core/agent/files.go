package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	// readMost is the most that one ReadFile answers, in bytes.
	readMost = 1 << 20
	// listMost bounds the entries of a directory that are listed.
	listMost = 10_000
)

// sandboxPath is a place in a sandbox.
type sandboxPath struct {
	framework, executor string
	sandbox             string // relative to the work directory
	rest                string // within the sandbox; "." is the sandbox itself
}

// locate finds the sandbox that a path means. Nothing that a task can change is
// looked at: links in sandboxes are followed only when something is opened.
func (a *Agent) locate(ctx context.Context, name string) (sandboxPath, error) {
	missing := status.Errorf(codes.NotFound, "%q is in no sandbox of this agent", name)
	if strings.ContainsRune(name, 0) {
		return sandboxPath{}, missing
	}
	clean := path.Clean("/" + name)
	var parts []string
	if rest, ok := strings.CutPrefix(clean, filepath.ToSlash(a.work.root)+"/containers/"); ok && rest != "" { // a standalone container's
		id, inside, _ := strings.Cut(rest, "/")
		return sandboxPath{executor: id, sandbox: "containers/" + id, rest: path.Join(".", inside)}, nil
	}
	if rest, ok := strings.CutPrefix(clean, filepath.ToSlash(a.work.root)+"/agents/"); ok {
		parts = strings.Split(rest, "/")
	} else if rest, ok := strings.CutPrefix(clean, "/frameworks/"); ok {
		v, err := a.State(ctx)
		if err != nil {
			return sandboxPath{}, edge(err)
		}
		parts = append([]string{v.AgentID, "frameworks"}, strings.Split(rest, "/")...)
	}
	// ID/frameworks/F/executors/E/runs/RUN…
	if len(parts) < 7 || parts[0] == "" || parts[1] != "frameworks" || parts[3] != "executors" || parts[5] != "runs" {
		return sandboxPath{}, missing
	}
	runs := "agents/" + path.Join(parts[:6]...)
	run := parts[6]
	if run == "latest" {
		target, err := os.Readlink(a.work.path(runs + "/latest"))
		if err != nil || target != filepath.Base(target) || !filepath.IsLocal(target) {
			return sandboxPath{}, missing
		}
		run = target
	}
	return sandboxPath{framework: parts[2], executor: parts[4], sandbox: runs + "/" + run, rest: path.Join(append([]string{"."}, parts[7:]...)...)}, nil
}

// openIn opens what a path means, after asking whether the caller may.
func (a *Agent) openIn(ctx context.Context, name string) (*os.File, fs.FileInfo, error) {
	p, err := a.locate(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	var holder state.Holder
	if err := a.query(ctx, func(m *state.Machine) { holder = m.Holder(p.framework, p.executor) }); err != nil {
		return nil, nil, edge(err)
	}
	object := rpc.Object{ID: p.executor, FrameworkID: p.framework, Role: holder.Role, User: holder.User, Owner: holder.Owner}
	if err := a.authorize(ctx, rpc.ReadSandbox, object); err != nil {
		return nil, nil, err
	}
	root, err := a.work.open(p.sandbox)
	if err != nil {
		return nil, nil, openError(name, err)
	}
	defer root.Close()
	// Without blocking: a task may have put a pipe there.
	file, err := root.OpenFile(filepath.FromSlash(p.rest), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, openError(name, err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, nil, openError(name, err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		file.Close()
		return nil, nil, status.Errorf(codes.InvalidArgument, "%q is neither a file nor a directory", name)
	}
	return file, info, nil
}

func openError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return status.Errorf(codes.NotFound, "%q does not exist", name)
	case errors.Is(err, fs.ErrPermission):
		return status.Errorf(codes.PermissionDenied, "%q: %v", name, err)
	}
	return status.Errorf(codes.InvalidArgument, "%q is inaccessible", name)
}

// ListFiles lists a directory of a sandbox.
func (a *Agent) ListFiles(ctx context.Context, q *operatorv1.ListFilesRequest) (*operatorv1.ListFilesResponse, error) {
	file, info, err := a.openIn(ctx, q.GetPath())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out := &operatorv1.ListFilesResponse{}
	if !info.IsDir() {
		return out, nil
	}
	entries, err := file.ReadDir(listMost)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, openError(q.GetPath(), err)
	}
	names := map[string]string{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // else it is gone since
			out.Files = append(out.Files, fileInfo(path.Join(q.GetPath(), e.Name()), info, names))
		}
	}
	slices.SortFunc(out.Files, func(x, y *mezzov1.FileInfo) int { return strings.Compare(x.GetPath(), y.GetPath()) })
	return out, nil
}

// fileInfo is what is told of a file. names are those of users and groups that
// were looked up already.
func fileInfo(name string, info fs.FileInfo, names map[string]string) *mezzov1.FileInfo {
	out := &mezzov1.FileInfo{
		Path: proto.String(name), Size: proto.Uint64(uint64(info.Size())), Mtime: &mezzov1.TimeInfo{Nanoseconds: proto.Int64(info.ModTime().UnixNano())},
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return out
	}
	look := func(kind string, id uint32, find func(string) string) *string {
		key := kind + strconv.FormatUint(uint64(id), 10)
		if _, known := names[key]; !known {
			names[key] = find(strconv.FormatUint(uint64(id), 10))
		}
		return proto.String(names[key])
	}
	out.Nlink, out.Mode = proto.Int32(int32(st.Nlink)), proto.Uint32(st.Mode)
	out.Uid = look("u", st.Uid, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return id
	})
	out.Gid = look("g", st.Gid, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return id
	})
	return out
}

// ReadFile reads from a file in a sandbox.
func (a *Agent) ReadFile(ctx context.Context, q *operatorv1.ReadFileRequest) (*operatorv1.ReadFileResponse, error) {
	file, info, err := a.openIn(ctx, q.GetPath())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info.IsDir() {
		return nil, status.Error(codes.InvalidArgument, "Cannot read a directory.")
	}
	out := &operatorv1.ReadFileResponse{Size: uint64(info.Size())}
	if q.GetOffset() >= out.Size || q.GetLength() == 0 {
		return out, nil
	}
	b := make([]byte, min(q.GetLength(), readMost, out.Size-q.GetOffset()))
	n, err := file.ReadAt(b, int64(q.GetOffset()))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, status.Error(codes.Internal, fmt.Sprintf("%q: %v", q.GetPath(), err))
	}
	out.Data = b[:n]
	return out, nil
}
