// Package secret takes secrets out of what is shown: the values that a container
// may have in it for the credentials of its image, in volumes, and in its
// environment. Who gave them
// needs none back, and whoever else looks must not see them.
//
// The package is pure.
package secret

import (
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Container returns a container without the values of its secrets. What has none
// is returned as it is; what has some is copied.
func Container(c *mezzov1.ContainerInfo) *mezzov1.ContainerInfo {
	if len(secrets(c)) == 0 {
		return c
	}
	bare := proto.CloneOf(c)
	for _, s := range secrets(bare) {
		s.Value.Data = []byte{}
	}
	return bare
}

// Executor is Container for an executor's, and Command for its command.
func Executor(e *mezzov1.ExecutorInfo) *mezzov1.ExecutorInfo {
	if len(secrets(e.GetContainer())) == 0 && !InEnvironment(e.GetCommand()) {
		return e
	}
	bare := proto.CloneOf(e)
	bare.Container, bare.Command = Container(e.GetContainer()), Command(e.GetCommand())
	return bare
}

// Command returns a command without the values of secrets in its environment.
func Command(c *mezzov1.CommandInfo) *mezzov1.CommandInfo {
	if !InEnvironment(c) {
		return c
	}
	bare := proto.CloneOf(c)
	for _, v := range bare.GetEnvironment().GetVariables() {
		if s := v.GetSecret().GetValue(); s != nil {
			s.Data = []byte{}
		}
	}
	return bare
}

// InEnvironment is whether a command has a secret in its environment.
func InEnvironment(c *mezzov1.CommandInfo) bool {
	for _, v := range c.GetEnvironment().GetVariables() {
		if v.GetType() == mezzov1.Environment_Variable_SECRET || v.GetSecret() != nil {
			return true
		}
	}
	return false
}

// secrets are those of a container that have values.
func secrets(c *mezzov1.ContainerInfo) []*mezzov1.Secret {
	images := []*mezzov1.Image{c.GetMesos().GetImage()}
	var list []*mezzov1.Secret
	add := func(s *mezzov1.Secret) {
		if len(s.GetValue().GetData()) > 0 {
			list = append(list, s)
		}
	}
	for _, v := range c.GetVolumes() {
		images = append(images, v.GetImage())
		add(v.GetSource().GetSecret())
	}
	for _, i := range images {
		add(i.GetDocker().GetConfig())
	}
	return list
}
