package image

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/signal"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Command is what a task says of its process. What it leaves unset the image
// says.
type Command struct {
	// Docker is whether the task asked for a container of type DOCKER: its value
	// and arguments are then arguments of the image's entrypoint, as with
	// `docker run`. In one of type MESOS they take the entrypoint's place.
	Docker    bool
	Shell     bool     // value is a script for /bin/sh -c
	Value     string   // the program, or the script
	Arguments []string // of type MESOS and with a value: the whole vector, argv[0] included
	Env       []string // NAME=VALUE; comes on top of the image's

	Entrypoint string // in place of the image's, which then gives no arguments either
	Workdir    string
	User       string // name or number, then perhaps ":" and a group
	StopSignal string
	// Sandbox is the directory of a process for which nobody names one.
	Sandbox string
}

// Process is what is run in a container.
type Process struct {
	Args []string
	// Exec is what is executed where that is not Args[0]; "": Args[0].
	Exec       string
	Env        []string
	Cwd        string
	User       string // to be looked up in the image; "" is root
	StopSignal syscall.Signal
	// Volumes are the directories that the image wants kept out of its own file
	// system; absolute paths, sorted.
	Volumes []string
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Merge puts an image's configuration and a task's command together, by the
// rules that Mesos documents for its docker runtime, and for its Docker
// containerizer by those of `docker run`.
func Merge(config ocispec.ImageConfig, c Command) (*Process, error) {
	p := &Process{User: c.User, StopSignal: syscall.SIGTERM}
	var err error
	if p.Exec, p.Args, err = arguments(config, c); err != nil {
		return nil, err
	}
	p.Env = environment(config.Env, c.Env)
	if p.User == "" {
		p.User = config.User
	}
	switch {
	case c.Workdir != "":
		p.Cwd = c.Workdir
	case config.WorkingDir != "":
		p.Cwd = config.WorkingDir
	case c.Docker || c.Sandbox == "":
		p.Cwd = "/"
	default:
		p.Cwd = c.Sandbox
	}
	p.Cwd = path.Clean("/" + p.Cwd)
	stop := c.StopSignal
	if stop == "" {
		stop = config.StopSignal
	}
	if stop != "" {
		if p.StopSignal, err = signal.ParseSignal(stop); err != nil {
			return nil, fmt.Errorf("stop signal %q: want one such as SIGQUIT", stop)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(config.Volumes)) {
		if v = path.Clean("/" + v); v != "/" {
			p.Volumes = append(p.Volumes, v)
		}
	}
	slices.Sort(p.Volumes)
	p.Volumes = slices.Compact(p.Volumes)
	return p, nil
}

// arguments is what is executed, where it is not args[0], and the vector.
func arguments(config ocispec.ImageConfig, c Command) (string, []string, error) {
	if c.Shell {
		if c.Value == "" {
			return "", nil, errors.New("the command has neither a value nor shell = false: set one of them; with shell = false the image's own program is run")
		}
		return "", []string{"/bin/sh", "-c", c.Value}, nil
	}
	entrypoint, cmd := config.Entrypoint, config.Cmd
	if c.Entrypoint != "" {
		entrypoint, cmd = []string{c.Entrypoint}, nil
	}
	switch {
	case c.Docker:
		if c.Value != "" {
			cmd = append([]string{c.Value}, c.Arguments...)
		} else if len(c.Arguments) > 0 {
			cmd = c.Arguments
		}
	case c.Value != "":
		if len(c.Arguments) == 0 || c.Arguments[0] == c.Value {
			return "", append([]string{c.Value}, c.Arguments[min(1, len(c.Arguments)):]...), nil
		}
		return c.Value, c.Arguments, nil
	case len(c.Arguments) > 0 && len(entrypoint) > 0:
		cmd = c.Arguments
	case len(c.Arguments) > 0 && len(cmd) > 0:
		cmd = append([]string{cmd[0]}, c.Arguments...)
	case len(c.Arguments) > 0:
		return "", nil, errors.New("the command has arguments and no value, and the image names no program that they are for: set value")
	}
	all := slices.Concat(entrypoint, cmd)
	if len(all) == 0 || all[0] == "" {
		return "", nil, errors.New("neither the command nor the image names a program: set the command's value")
	}
	return "", all, nil
}

// environment is the image's, with the task's on top, and a PATH in any case.
func environment(image, task []string) []string {
	var order []string
	values := map[string]string{}
	for _, v := range slices.Concat([]string{"PATH=" + defaultPath}, image, task) {
		name, value, found := strings.Cut(v, "=")
		if !found || name == "" {
			continue // an image's may be malformed
		}
		if _, known := values[name]; !known {
			order = append(order, name)
		}
		values[name] = value
	}
	out := make([]string, len(order))
	for i, name := range order {
		out[i] = name + "=" + values[name]
	}
	return out
}
