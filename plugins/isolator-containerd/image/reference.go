// Package image brings container images to an agent and keeps them there, in
// containerd: from registries, with credentials, mirrors and pinned digests,
// and from archives.
//
// Terms. A reference is an image's name in full, such as
// docker.io/library/busybox:latest or reg.example/app@sha256:…; what a person
// writes is normalised to it. A container holds its image by a lease of
// containerd's, from Provide to Release: what is held is never collected, also
// when the plugin starts anew or somebody removes the image's name. An image is
// pinned when an operator imported or named it; others are collected when
// nobody has used them for long, or the disk is full.
package image

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Parse normalises a reference as `docker pull` takes it: the registry is
// docker.io where none is named, the tag latest. With a digest the tag has no
// meaning and is left out.
func Parse(text string) (string, error) {
	if strings.TrimSpace(text) == "" {
		return "", fmt.Errorf("image has no name: want one such as busybox:1.36")
	}
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return "", fmt.Errorf("image %q is no reference, such as reg.example/team/app:1.2: %w", text, err)
	}
	return named.String(), nil
}

// Policy is when a registry is asked for an image.
type Policy int

const (
	Missing Policy = iota // when it is not here
	Always                // each time, for what its name means now
	Never                 // not at all: it is here, or Provide fails
)

// Want is an image that a container is to be made of.
type Want struct {
	Reference string // as the task wrote it
	Policy    Policy
	// DockerConfig is a Docker config.json with credentials; they come before
	// the operator's. Secret.
	DockerConfig []byte
	// Archive is the absolute path of an archive that has the image, in place of
	// a registry. Reference then is only what it is called in messages.
	Archive string
}
