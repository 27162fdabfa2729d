package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/containerinfo"
	"github.com/mezzo-os/mezzo/core/agent/state"
	"github.com/mezzo-os/mezzo/core/secret"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// secretMost is how large a secret may be.
const secretMost = 1 << 20

// secrets finds the values of secrets that tasks name, and puts those that tasks
// want as files where they can be mounted:
//
//	<files>/<container>/<number of the volume>
//
// No value is ever in an error or in the log.
type secrets struct {
	dir   string // with a file for each name, or a directory with one for each key; empty: no names are known
	files string
}

// value is what a secret says.
func (s *secrets) value(x *mezzov1.Secret) ([]byte, error) {
	switch {
	case x.GetType() == mezzov1.Secret_VALUE && x.GetValue() != nil && x.GetReference() == nil:
		if len(x.GetValue().GetData()) > secretMost {
			return nil, fmt.Errorf("the secret is larger than %d bytes", secretMost)
		}
		return x.GetValue().GetData(), nil
	case x.GetType() == mezzov1.Secret_REFERENCE && x.GetReference().GetName() != "" && x.GetValue() == nil:
		return s.named(x.GetReference())
	}
	return nil, errors.New("the secret is neither of type VALUE with a value nor of type REFERENCE with a name")
}

// named reads a secret of the operator's.
func (s *secrets) named(r *mezzov1.Secret_Reference) ([]byte, error) {
	name := r.GetName()
	path := []string{name}
	if r.GetKey() != "" {
		name, path = name+" (key "+r.GetKey()+")", append(path, r.GetKey())
	}
	for _, p := range path {
		if strings.HasPrefix(p, ".") || strings.ContainsAny(p, "/\x00") || len(p) > 255 {
			return nil, fmt.Errorf("secret %q: a name and a key are those of a file: they do not begin with a dot and have no slash", name)
		}
	}
	if s.dir == "" {
		return nil, fmt.Errorf("secret %s is not known here: the agent's configuration has no secrets { dir = … }", name)
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, fmt.Errorf("secret %s: the agent's secrets cannot be read: %w", name, err)
	}
	defer root.Close()
	f, err := root.Open(filepath.Join(path...))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("secret %s is not known to the agent", name)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be read: %w", name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("secret %s is not a file; one with parts needs a key", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, secretMost+1))
	if err == nil && len(data) > secretMost {
		err = fmt.Errorf("it is larger than %d bytes", secretMost)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be read: %w", name, err)
	}
	return data, nil
}

// reveal is a command whose environment has the values of its secrets.
func (s *secrets) reveal(c *mezzov1.CommandInfo) (*mezzov1.CommandInfo, error) {
	if !secret.InEnvironment(c) {
		return c, nil
	}
	c = proto.CloneOf(c)
	for _, v := range c.GetEnvironment().GetVariables() {
		if v.GetType() != mezzov1.Environment_Variable_SECRET {
			continue
		}
		data, err := s.value(v.GetSecret())
		if err == nil && bytes.IndexByte(data, 0) >= 0 {
			err = errors.New("the secret has a zero byte in it, which no environment variable can")
		}
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", v.GetName(), err)
		}
		v.Type, v.Secret, v.Value = mezzov1.Environment_Variable_VALUE.Enum(), nil, proto.String(string(data))
	}
	return c, nil
}

// eachVolume calls f for each volume of a container that is a secret, with the
// file that it is put into.
func (s *secrets) eachVolume(p *state.Plan, f func(v *mezzov1.Volume, file string) error) error {
	for i, v := range p.Task.GetContainer().GetVolumes() {
		if v.GetSource().GetType() != mezzov1.Volume_Source_SECRET || v.GetSource() == nil {
			continue
		}
		if err := f(v, filepath.Join(s.files, p.Container, strconv.Itoa(i))); err != nil {
			return fmt.Errorf("volume %s: %w", v.GetContainerPath(), err)
		}
	}
	return nil
}

// credentials is a task whose image has its docker.config, where that is a
// secret of the operator's. Only who fetches the image is told it, and it is
// nowhere written down.
func (s *secrets) credentials(t *isolatorv1.Task) (*isolatorv1.Task, error) {
	config := t.GetContainer().GetMesos().GetImage().GetDocker().GetConfig()
	if t.GetImage() == nil || config.GetType() != mezzov1.Secret_REFERENCE {
		return t, nil
	}
	text, err := s.value(config)
	if err != nil {
		return nil, fmt.Errorf("the image's docker.config: %w", err)
	}
	if err := containerinfo.DockerConfig(text); err != nil {
		return nil, fmt.Errorf("secret %s: %w", config.GetReference().GetName(), err)
	}
	t = proto.CloneOf(t)
	t.Image.DockerConfig = text
	return t, nil
}

// check says why a container cannot have its secrets.
func (s *secrets) check(p *state.Plan) error {
	if _, err := s.reveal(p.Command); err != nil {
		return err
	}
	if _, err := s.credentials(p.Task); err != nil {
		return err
	}
	return s.eachVolume(p, func(v *mezzov1.Volume, _ string) error {
		if v.GetMode() == mezzov1.Volume_RW {
			return errors.New("a secret can only be read: its mode is RO")
		}
		_, err := s.value(v.GetSource().GetSecret())
		return err
	})
}

// mount is the plan with the files of secrets in place of these.
func (s *secrets) mount(p *state.Plan) *state.Plan {
	var mounted *state.Plan
	_ = s.eachVolume(p, func(*mezzov1.Volume, string) error {
		if mounted == nil {
			changed := *p
			changed.Task = proto.CloneOf(p.Task)
			mounted = &changed
		}
		return nil
	})
	if mounted == nil {
		return p
	}
	_ = s.eachVolume(mounted, func(v *mezzov1.Volume, file string) error {
		v.Mode = mezzov1.Volume_RO.Enum()
		v.Source = &mezzov1.Volume_Source{
			Type: mezzov1.Volume_Source_HOST_PATH.Enum(), HostPath: &mezzov1.Volume_Source_HostPath{Path: proto.String(file)},
		}
		return nil
	})
	return mounted
}

// put writes the files of a container's secrets, for one user to read.
func (s *secrets) put(p *state.Plan, who *account) error {
	return s.eachVolume(p, func(v *mezzov1.Volume, file string) error {
		data, err := s.value(v.GetSource().GetSecret())
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil && os.Geteuid() == 0 {
			err = f.Chown(int(who.uid), int(who.gid))
		}
		return errors.Join(err, f.Close())
	})
}

// drop removes the files of a container.
func (s *secrets) drop(container string) error {
	if container == "" || strings.ContainsAny(container, "/.") {
		return nil
	}
	return os.RemoveAll(filepath.Join(s.files, container))
}
