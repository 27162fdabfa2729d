// Package containerinfo reads what a task asks of its container. There are two
// forms, as with Mesos: MESOS, in which images, networks and Linux settings each
// have a message, and DOCKER, which has what `docker run` has, options of the
// command line included. Both are brought to the one form that isolators are
// told; what cannot be honoured is an error, never left out.
//
// The package is pure.
package containerinfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Wish is what a task asks of its container.
type Wish struct {
	// Info is the container as isolators are told it: what options of `docker run`
	// say is in its fields, where there are such. Nil: nothing is asked for.
	Info *mezzov1.ContainerInfo
	// Image is nil for the host's file system.
	Image   *isolatorv1.TaskImage
	Network *isolatorv1.Network
	// Options is nil when there is nothing beside.
	Options *isolatorv1.Options
	// Environment is set in the container, beneath the command's own.
	Environment []*mezzov1.Environment_Variable
}

// Read reads a container. nested says that it is nested in another. A port
// mapping is checked against the ports among the resources. An error is a
// sentence for the task's owner.
func Read(info *mezzov1.ContainerInfo, nested bool, resources []*mezzov1.Resource) (*Wish, error) {
	w := &Wish{Info: info, Network: &isolatorv1.Network{Mode: isolatorv1.Network_MODE_HOST}}
	if nested {
		w.Network.Mode = isolatorv1.Network_MODE_PARENT
	}
	var err error
	switch {
	case info == nil:
		return w, nil
	case info.GetType() == mezzov1.ContainerInfo_DOCKER:
		err = w.docker(info)
	default:
		err = w.mesos(info)
	}
	if err != nil {
		return nil, err
	}
	switch info.GetPullPolicy() {
	case mezzov1.ContainerInfo_PULL_ALWAYS:
		w.pull(isolatorv1.TaskImage_PULL_ALWAYS)
	case mezzov1.ContainerInfo_PULL_MISSING:
		w.pull(isolatorv1.TaskImage_PULL_MISSING)
	case mezzov1.ContainerInfo_PULL_NEVER:
		w.pull(isolatorv1.TaskImage_PULL_NEVER)
	}
	return w, w.checkPorts(resources)
}

func (w *Wish) pull(p isolatorv1.TaskImage_Pull) {
	if w.Image != nil {
		w.Image.Pull = p
	}
}

func (w *Wish) mesos(info *mezzov1.ContainerInfo) error {
	if info.GetDocker() != nil {
		return errors.New("the container is of type MESOS and has a docker part: an image of type MESOS is mesos.image")
	}
	if image := info.GetMesos().GetImage(); image != nil {
		if image.GetType() != mezzov1.Image_DOCKER {
			return fmt.Errorf("images of type %v are not supported: DOCKER is what there is", image.GetType())
		}
		pull := isolatorv1.TaskImage_PULL_MISSING
		if !image.GetCached() {
			pull = isolatorv1.TaskImage_PULL_ALWAYS
		}
		if err := w.image(image.GetDocker().GetName(), pull); err != nil {
			return err
		}
		if image.GetDocker().GetCredential() != nil {
			return errors.New("the image has a credential, which is not supported: put a Docker config.json into docker.config")
		}
		if secret := image.GetDocker().GetConfig(); secret != nil {
			text, err := dockerConfig(secret)
			if err != nil {
				return err
			}
			w.Image.DockerConfig = text
		}
	}
	return w.named(info.GetNetworkInfos(), false)
}

// image notes an image by its reference.
func (w *Wish) image(reference string, pull isolatorv1.TaskImage_Pull) error {
	switch {
	case reference == "":
		return errors.New("the image has no name")
	case strings.ContainsAny(reference, " \t\r\n\x00"):
		return fmt.Errorf("the image's name %q has a space in it", reference)
	}
	w.Image = &isolatorv1.TaskImage{Reference: reference, Pull: pull}
	return nil
}

// Archive says whether an image is named by the address of an archive, which the
// agent fetches.
func Archive(image *isolatorv1.TaskImage) bool {
	for _, scheme := range []string{"file://", "http://", "https://"} {
		if strings.HasPrefix(image.GetReference(), scheme) {
			return true
		}
	}
	return false
}

// dockerConfig is a Docker config.json; nil for a reference, whose value the
// agent looks up when it is needed, and checks with DockerConfig. No part of it
// is ever in an error.
func dockerConfig(s *mezzov1.Secret) ([]byte, error) {
	switch {
	case s.GetType() == mezzov1.Secret_REFERENCE && s.GetReference().GetName() != "" && s.GetValue() == nil:
		return nil, nil
	case s.GetType() == mezzov1.Secret_REFERENCE || s.GetReference() != nil:
		return nil, errors.New("the image's docker.config is a secret of type REFERENCE without a name, or with a value beside")
	case s.GetValue() == nil:
		return nil, errors.New("the image's docker.config has no value")
	}
	return s.GetValue().GetData(), DockerConfig(s.GetValue().GetData())
}

// DockerConfig says what is wrong with a Docker config.json, without a part of it.
func DockerConfig(text []byte) error {
	if !json.Valid(text) {
		return errors.New("the image's docker.config is not the JSON of a Docker config.json")
	}
	return nil
}

// named puts the container into the networks that have names. Entries without a
// name mean the host's network, unless it is to be a network of its own.
func (w *Wish) named(infos []*mezzov1.NetworkInfo, must bool) error {
	names := 0
	for _, n := range infos {
		if n.GetName() != "" {
			names++
			continue
		}
		if len(n.GetPortMappings()) > 0 {
			return errors.New("a network without a name has port mappings: ports are mapped into networks of the container's own, by name")
		}
	}
	switch {
	case names == 0 && must:
		return errors.New("docker.network is USER, and network_infos name no network")
	case names == 0:
		if len(infos) > 0 {
			w.Network.Mode = isolatorv1.Network_MODE_HOST
		}
		return nil
	case names < len(infos):
		return errors.New("some of network_infos have names and some have none: a container is in networks of its own or in the host's")
	}
	w.Network = &isolatorv1.Network{Mode: isolatorv1.Network_MODE_NAMED, Networks: infos}
	return nil
}

// checkPorts refuses ports of the host that the task does not have.
func (w *Wish) checkPorts(resources []*mezzov1.Resource) error {
	for _, n := range w.Network.GetNetworks() {
		for _, p := range n.GetPortMappings() {
			switch protocol := p.GetProtocol(); {
			case p.GetHostPort() == 0 || p.GetHostPort() > 65535 || p.GetContainerPort() == 0 || p.GetContainerPort() > 65535:
				return fmt.Errorf("port mapping %d to %d: ports are from 1 to 65535", p.GetHostPort(), p.GetContainerPort())
			case protocol != "" && !strings.EqualFold(protocol, "tcp") && !strings.EqualFold(protocol, "udp"):
				return fmt.Errorf("port mapping %d to %d: protocol %q is neither tcp nor udp", p.GetHostPort(), p.GetContainerPort(), protocol)
			case !hasPort(resources, uint64(p.GetHostPort())):
				return fmt.Errorf("port mapping %d to %d: port %d is not among the task's resources", p.GetHostPort(), p.GetContainerPort(), p.GetHostPort())
			}
		}
	}
	return nil
}

func hasPort(resources []*mezzov1.Resource, port uint64) bool {
	for _, r := range resources {
		if r.GetName() != "ports" {
			continue
		}
		for _, x := range r.GetRanges().GetRange() {
			if x.GetBegin() <= port && port <= x.GetEnd() {
				return true
			}
		}
	}
	return false
}

// options are those of the wish, made when they are first wanted.
func (w *Wish) options() *isolatorv1.Options {
	if w.Options == nil {
		w.Options = &isolatorv1.Options{}
	}
	return w.Options
}

// Entrypoint says whether an image's entrypoint stands before a command.
func Entrypoint(info *mezzov1.ContainerInfo, command *mezzov1.CommandInfo) bool {
	return !command.GetShell() && (info != nil && info.GetType() == mezzov1.ContainerInfo_DOCKER || command.GetValue() == "")
}

// own returns the info as a copy that may be changed.
func (w *Wish) own(original *mezzov1.ContainerInfo) *mezzov1.ContainerInfo {
	if w.Info == original {
		w.Info = proto.CloneOf(original)
	}
	return w.Info
}
