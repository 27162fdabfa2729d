package broken

import (
	"os"
	"syscall"

	"google.golang.org/protobuf/types/known/timestamppb"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// openAll opens files to write to; all or none.
func openAll(paths ...string) ([]*os.File, error) {
	var out []*os.File
	for _, path := range paths {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// exitStatus is how a process of ours ended.
func exitStatus(p *os.ProcessState) *isolatorv1.ExitStatus {
	out := &isolatorv1.ExitStatus{Known: true, Time: timestamppb.Now()}
	if w, is := p.Sys().(syscall.WaitStatus); is && w.Signaled() {
		out.Signal = int32(w.Signal())
	} else {
		out.Code = int32(p.ExitCode())
	}
	return out
}
