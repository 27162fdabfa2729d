package command

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Exit statuses of `mezzo run` that are not the command's own.
const (
	exitTimeout     = 124
	exitMezzoFailed = 125
	exitInterrupted = 130
)

// runOptions are the flags of `mezzo run`.
type runOptions struct {
	cpus, gpus       float64
	mem, disk        string
	name, role, user string
	ownUser          bool // the command's, rather than the image's
	env, uri         []string
	containerOptions
	timeout     time.Duration
	instances   int
	command     []string
	resources   resource.Resources // of one instance
	environment *mezzov1.Environment
	uris        []*mezzov1.CommandInfo_URI
}

func (c *cli) runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG…]",
		Short: "Run a command on the cluster and stream its output",
		Long: `Runs a command as a framework of its own, streams its stdout and stderr, and
exits with its status: 128 plus the signal if one ended it, 124 on --timeout,
125 when Mezzo failed, 130 on Ctrl-C, which ends the command too. With
--instances, lines begin with [i], and the status is the first that is not 0.`,
		Example: `  mezzo run -- sh -c 'echo hello; exit 3'
  mezzo run --cpus 2 --mem 512MiB --env MODE=fast -- ./train --epochs 3
  mezzo run --uri https://example.org/app.tar.gz,cache -- ./app/start
  mezzo run --instances 50 -- sleep 1
  mezzo run --image busybox --volume /srv/data:/data:ro -- ls /data
  mezzo run --image nginx --publish 31080:80`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && o.image == "" {
				return usage("run: give a command after --, as in: mezzo run -- echo hello")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.command = args
			if err := o.check(); err != nil {
				return err
			}
			return c.run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.Float64Var(&o.cpus, "cpus", 0.1, "CPUs of each instance")
	f.StringVar(&o.mem, "mem", "64", "memory of each instance, in MiB or as 64MiB")
	f.StringVar(&o.disk, "disk", "0", "disk of each instance, in MiB or as 64MiB")
	f.Float64Var(&o.gpus, "gpus", 0, "GPUs of each instance")
	f.StringVar(&o.name, "name", "", "the tasks' name (default: the command's)")
	f.StringVar(&o.role, "role", "*", "the role whose resources it uses")
	f.StringVar(&o.user, "user", "", "the user that it runs as (default: you)")
	f.StringArrayVar(&o.env, "env", nil, "NAME=VALUE for its environment; may be repeated")
	f.StringArrayVar(&o.uri, "uri", nil, "a file to fetch first: URL[,executable][,cache][,extract=false][,output=NAME][,checksum=sha256:…]; may be repeated")
	f.DurationVar(&o.timeout, "timeout", 0, "end it after this long, waiting for offers included")
	f.IntVar(&o.instances, "instances", 1, "how many to run")
	o.containerOptions.add(f)
	c.addClientFlags(cmd)
	return cmd
}

// check completes the options, or says what is wrong with them.
func (o *runOptions) check() error {
	switch {
	case o.instances < 1 || o.instances > 100_000:
		return usage("--instances %d: give a number from 1 to 100000", o.instances)
	case o.cpus < 0 || o.gpus < 0 || math.IsNaN(o.cpus) || math.IsNaN(o.gpus):
		return usage("--cpus and --gpus cannot be negative")
	case o.timeout < 0:
		return usage("--timeout %s: give a positive duration", o.timeout)
	}
	mem, err := mebibytes("--mem", o.mem)
	if err != nil {
		return err
	}
	disk, err := mebibytes("--disk", o.disk)
	if err != nil {
		return err
	}
	for name, amount := range map[string]float64{"cpus": o.cpus, "mem": mem, "disk": disk, "gpus": o.gpus} {
		if amount > 0 {
			o.resources = o.resources.Add(resource.ScalarOf(name, resource.ScalarFromFloat(amount)))
		}
	}
	if o.resources.IsEmpty() {
		return usage("run: a task needs some resource: --cpus or --mem")
	}
	if err := resource.ValidateRole(o.role); err != nil {
		return usage("--role: %v", err)
	}
	if o.environment, err = environment(o.env); err != nil {
		return err
	}
	if o.uris, err = uris(o.uri); err != nil {
		return err
	}
	if err := o.containerOptions.check(); err != nil {
		return err
	}
	o.resources = o.resources.Add(o.ports)
	switch {
	case o.name != "":
	case len(o.command) > 0:
		o.name = filepath.Base(o.command[0])
	default:
		o.name = imageName(o.image)
	}
	o.ownUser = o.user != "" || o.image == ""
	if o.user == "" {
		me, err := user.Current()
		if err != nil {
			return fmt.Errorf("find your user name (--user gives one): %w", err)
		}
		o.user = me.Username
	}
	return nil
}

// mebibytes reads "64" as MiB, and sizes with a unit as what they say.
func mebibytes(flag, text string) (float64, error) {
	if v, err := strconv.ParseFloat(text, 64); err == nil && v >= 0 && !math.IsInf(v, 0) {
		return v, nil
	}
	size, err := plugin.ParseSize(text)
	if err != nil || size < 0 {
		return 0, usage("%s %q: give MiB as a number, or a size such as 64MiB or 2GiB", flag, text)
	}
	return float64(size) / (1 << 20), nil
}

func environment(pairs []string) (*mezzov1.Environment, error) {
	env := &mezzov1.Environment{}
	for _, pair := range pairs {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			// As docker does: the bare name takes the value from here.
			if value, found = os.LookupEnv(name); !found {
				return nil, usage("--env %s: write NAME=VALUE; there is no %s in your own environment to take", pair, name)
			}
		}
		if name == "" {
			return nil, usage("--env %s: the name is missing", pair)
		}
		env.Variables = append(env.Variables, &mezzov1.Environment_Variable{Name: proto.String(name), Value: proto.String(value)})
	}
	return env, nil
}

func (c *cli) run(ctx context.Context, o runOptions) error {
	j, err := newJob(c, o)
	if err != nil {
		return err
	}
	code, err := j.run(ctx)
	if err != nil {
		return &exitError{code: exitMezzoFailed, err: err}
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}
