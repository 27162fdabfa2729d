package image

import (
	"fmt"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	v1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Whom the process of an image runs as, where neither the task nor its command
// names a user: the values of Config.User.
const (
	UserMesos = "mesos" // MESOS: the framework's user; DOCKER: the image's
	UserImage = "image" // the image's
	UserTask  = "task"  // the framework's
)

// UserOf is who a task runs as in its image, whose own user is images: a name or
// a number, perhaps with a group; "": root.
func (c *Config) UserOf(t *isolatorv1.Task, images string) string {
	switch own := t.GetOwnUser() && t.GetUser() != ""; {
	case t.GetOptions().GetUser() != "":
		return t.GetOptions().GetUser()
	case own, t.GetImage() == nil, c.User == UserTask:
		return t.GetUser()
	case c.User == UserMesos && t.GetContainer() != nil && t.GetContainer().GetType() == v1.ContainerInfo_MESOS:
		return t.GetUser()
	}
	return images
}

// CheckUser refuses the option by which a task would be somebody whom nobody has
// said that its framework may be, where the operator wants no such.
func (c *Config) CheckUser(t *isolatorv1.Task) error {
	if user := t.GetOptions().GetUser(); user != "" && c.User == UserTask {
		return fmt.Errorf("the task asks by a parameter to run as user %q, which this agent does not allow (image_user is %q): name the user in the task's command", user, UserTask)
	}
	return nil
}
