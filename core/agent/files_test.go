package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// No path and no link leads out of a sandbox; what is in it is read in pieces.
func TestFilesOfASandbox(t *testing.T) {
	r := newLogRig(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sandbox := filepath.Dir(r.out.path)
	r.out.write("0123456789")
	secret := filepath.Join(t.TempDir(), "secret")
	for _, err := range []error{
		os.WriteFile(secret, []byte("secret"), 0o600), os.Symlink(secret, filepath.Join(sandbox, "out")),
		os.Symlink("../../../../../../..", filepath.Join(sandbox, "up")), os.Symlink("stdout", filepath.Join(sandbox, "in")),
		os.Mkdir(filepath.Join(sandbox, "dir"), 0o755), syscall.Mkfifo(filepath.Join(sandbox, "pipe"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	state, err := r.client.GetState(ctx, &operatorv1.GetAgentStateRequest{Detail: true})
	if err != nil {
		t.Fatal(err)
	}
	d := state.GetDetail()
	if len(d.GetExecutors()) != 1 || d.GetExecutors()[0].GetDirectory() != sandbox || !d.GetExecutors()[0].GetCommand() || len(d.GetFrameworks()) != 1 {
		t.Fatalf("the state has %v", d)
	}
	if x := d.GetTasks()[0]; x.GetPlace() != "launched" || x.GetRun() != r.id || x.GetTask().GetStatuses()[0].GetState() != mezzov1.TaskState_TASK_RUNNING {
		t.Errorf("the task is %v", x)
	}
	read := func(path string, offset, length uint64) (*operatorv1.ReadFileResponse, error) {
		return r.client.ReadFile(ctx, &operatorv1.ReadFileRequest{Path: path, Offset: offset, Length: length})
	}
	executor := filepath.Dir(filepath.Dir(sandbox))
	id := d.GetExecutors()[0].GetInfo()
	virtual := "/frameworks/" + id.GetFrameworkId().GetValue() + "/executors/" + id.GetExecutorId().GetValue() + "/runs/latest"
	for _, path := range []string{
		sandbox + "/stdout", sandbox + "/in", sandbox + "/dir/../stdout", sandbox + "//./stdout", filepath.Join(executor, "runs/latest/stdout"), virtual + "/stdout",
	} {
		if got, err := read(path, 2, 3); err != nil || string(got.GetData()) != "234" || got.GetSize() != 10 {
			t.Errorf("%s reads as %v, %v", path, got, err)
		}
	}
	if got, err := read(sandbox+"/stdout", 10, 5); err != nil || len(got.GetData()) != 0 {
		t.Errorf("beyond the end there is %v, %v", got, err)
	}
	work := sandbox[:strings.Index(sandbox, "/agents/")]
	for path, code := range map[string]codes.Code{
		sandbox + "/out":         codes.InvalidArgument, // a link out
		sandbox + "/up/agent.db": codes.InvalidArgument,
		sandbox + "/pipe":        codes.InvalidArgument,
		sandbox + "/dir":         codes.InvalidArgument, // a directory
		sandbox + "/none":        codes.NotFound,
		sandbox + "/stdout/x":    codes.NotFound,
		sandbox + "/../../../../../../../../etc/passwd": codes.NotFound,
		sandbox + "/..":  codes.NotFound,
		sandbox + "\x00": codes.NotFound,
		virtual + "/../../../../../../../agent.db": codes.NotFound,
		secret:                                   codes.NotFound,
		work + "/agents":                         codes.NotFound,
		executor:                                 codes.NotFound,
		"/frameworks/../../..":                   codes.NotFound,
		"":                                       codes.NotFound,
		"/etc/passwd":                            codes.NotFound,
		sandbox + "/" + strings.Repeat("n", 300): codes.NotFound,
	} {
		if got, err := read(path, 0, 10); status.Code(err) != code {
			t.Errorf("%q is answered with %v, %v; want %v", path, got, err, code)
		}
	}
	list, err := r.client.ListFiles(ctx, &operatorv1.ListFilesRequest{Path: sandbox})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list.GetFiles() {
		names = append(names, strings.TrimPrefix(f.GetPath(), sandbox+"/"))
		if strings.HasSuffix(f.GetPath(), "/stdout") && (f.GetSize() != 10 || f.GetMode()&syscall.S_IFMT != syscall.S_IFREG || f.GetUid() == "" || f.GetNlink() != 1) {
			t.Errorf("stdout is %v", f)
		}
	}
	if got := strings.Join(names, " "); !strings.Contains(got, "dir in out pipe stdout up") {
		t.Errorf("the sandbox holds %q", got)
	}
	if list, err := r.client.ListFiles(ctx, &operatorv1.ListFilesRequest{Path: sandbox + "/stdout"}); err != nil || len(list.GetFiles()) != 0 {
		t.Errorf("a file lists as %v, %v", list, err)
	}
	if _, err := r.client.ListFiles(ctx, &operatorv1.ListFilesRequest{Path: sandbox + "/up"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a link out lists: %v", err)
	}
}
