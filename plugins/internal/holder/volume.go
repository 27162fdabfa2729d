package holder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/record"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Volume is the mount for a directory or file of the host, of the sandbox, or of
// the sandbox of the container that this one is nested in. The last is what the
// tasks of a group share. The container finds its own sandbox at inside.
func (h *Holder) Volume(v *v1.Volume, parent, sandbox, inside string) (m specs.Mount, err error) {
	source, from := v.GetHostPath(), sandbox
	switch {
	case v.GetImage() != nil:
		return m, status.Errorf(codes.InvalidArgument, "volume %s: isolator %s mounts no images", v.GetContainerPath(), h.Name)
	case v.GetSource() == nil:
	case v.GetSource().GetType() == v1.Volume_Source_HOST_PATH:
		source = v.GetSource().GetHostPath().GetPath()
	case v.GetSource().GetType() == v1.Volume_Source_SANDBOX_PATH && v.GetSource().GetSandboxPath().GetType() != v1.Volume_Source_SandboxPath_UNKNOWN:
		source = v.GetSource().GetSandboxPath().GetPath()
		if filepath.IsAbs(source) {
			return m, status.Errorf(codes.InvalidArgument, "volume %s: the path %q in the sandbox is not relative", v.GetContainerPath(), source)
		}
		if v.GetSource().GetSandboxPath().GetType() == v1.Volume_Source_SandboxPath_PARENT {
			if from, err = h.sandboxOf(parent); err != nil {
				return m, status.Errorf(codes.InvalidArgument, "volume %s: %v", v.GetContainerPath(), err)
			}
		}
	default:
		return m, status.Errorf(codes.InvalidArgument, "volume %s: isolator %s mounts paths of the host and of sandboxes, not a %v", v.GetContainerPath(), h.Name, v.GetSource().GetType())
	}
	if source == "" {
		return m, status.Errorf(codes.InvalidArgument, "volume %s names no path to mount", v.GetContainerPath())
	}
	if !filepath.IsAbs(source) {
		if source, err = InSandbox(from, source); err != nil {
			return m, status.Errorf(codes.InvalidArgument, "volume %s: %v", v.GetContainerPath(), err)
		}
	}
	target := v.GetContainerPath()
	if !filepath.IsAbs(target) {
		if !filepath.IsLocal(target) {
			return m, status.Errorf(codes.InvalidArgument, "volume %s leaves the sandbox", target)
		}
		target = filepath.Join(inside, target)
	}
	options := []string{"rbind"}
	if v.GetMode() == v1.Volume_RO {
		options = append(options, "ro")
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: options}, nil
}

// sandboxOf is where the sandbox of a container is that this plugin has created.
func (h *Holder) sandboxOf(id string) (string, error) {
	if id == "" {
		return "", errors.New("it is of the parent's sandbox, and the container has no parent")
	}
	c, err := h.Find(id)
	if err != nil {
		return "", errors.New("it is of the parent's sandbox, and the parent was not launched by isolator " + h.Name)
	}
	r, err := record.Read(c.File(record.ConfigFile))
	if err != nil {
		return "", fmt.Errorf("the parent's sandbox: %w", err)
	}
	return r.Get(record.Sandbox), nil
}

// InSandbox makes a directory of the sandbox where there is none, and resolves
// it: no link of it may lead out.
func InSandbox(sandbox, path string) (string, error) {
	root, err := os.OpenRoot(sandbox)
	if err != nil {
		return "", err
	}
	defer root.Close()
	owner, err := root.Stat(".")
	if err != nil {
		return "", err
	}
	if _, err := root.Stat(path); os.IsNotExist(err) {
		if err := root.MkdirAll(path, 0o755); err != nil {
			return "", err
		}
		if err := chownLike(root, path, owner); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(filepath.Join(sandbox, path))
}

// chownLike gives a path of the sandbox to the sandbox's owner.
func chownLike(root *os.Root, path string, owner os.FileInfo) error {
	st, ok := owner.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return root.Chown(path, int(st.Uid), int(st.Gid))
}
