package main

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/holder"
	"github.com/mezzo-os/mezzo/plugins/internal/record"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// Exec runs another process in a container: mezzo-init starts it, so it has the
// walls of the task, and needs no containerd.
func (p *plug) Exec(ctx context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	c, err := p.Find(start.GetContainer())
	if err != nil {
		return err
	}
	process, err := p.execProcess(c, start.GetProcess())
	if err != nil {
		return err
	}
	return p.Holder.Exec(ctx, &isolatorv1.ExecStart{Container: c.ID, Process: process, Tty: start.GetTty(), Size: start.GetSize()}, s)
}

// execProcess is a process in the container's terms: the task's user is whom its
// image says.
func (p *plug) execProcess(c *holder.Container, text []byte) ([]byte, error) {
	var process specs.Process
	if err := json.Unmarshal(text, &process); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "container %s: the process is not an OCI process: %v", c.ID, err)
	}
	u, err := record.Read(c.File(userFile))
	if err != nil {
		return nil, status.Errorf(codes.Internal, "container %s: who its process runs as: %v", c.ID, err)
	}
	if int64(process.User.UID) == u.Int("asked") {
		process.User = specs.User{UID: uint32(u.Int(record.UID)), GID: uint32(u.Int(record.GID))}
		for _, g := range u.All(record.Group) {
			if n, err := strconv.ParseUint(g, 10, 32); err == nil {
				process.User.AdditionalGids = append(process.User.AdditionalGids, uint32(n))
			}
		}
	}
	process.Capabilities = nil // those of the container
	return json.Marshal(&process)
}
