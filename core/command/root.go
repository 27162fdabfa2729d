// Package command holds the verbs of the mezzo command line, one file a verb.
//
// Errors go to stderr. What the exit status says is in topics: `mezzo help
// exit-codes`.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/sdk/client"
)

// buildVersion is set by the linker.
var buildVersion = "0.1.0"

// Version is the version of this build: digits and dots.
func Version() string { return buildVersion }

// exitError ends the process with a status of its own. A nil err prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usage is a mistake in how the command was called.
func usage(format string, args ...any) error {
	return &exitError{code: 2, err: fmt.Errorf(format, args...)}
}

// cli is what every verb has.
type cli struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	client clientFlags
	// leaders keeps a verb that runs for long from going back to a leader of before.
	leaders client.Epochs
	json    bool
	yes     bool   // nothing is asked
	color   string // one of colorModes
	// began tells a verb's own errors from cobra's complaints about usage.
	began bool
}

// newCLI is a command line that reads nothing and writes nowhere.
func newCLI() *cli {
	return &cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
}

// Main runs one command line and returns the process's exit status.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// A second signal ends the process at once, as people expect.
		<-ctx.Done()
		stop()
	}()
	return run(ctx, args, in, out, errOut)
}

func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c := newCLI()
	c.in, c.out, c.err = in, out, errOut
	root := c.root()
	root.SetArgs(args)
	meant, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(errOut, "mezzo: interrupted")
		return exitInterrupted
	}
	code := 1
	var exit *exitError
	if errors.As(err, &exit) {
		code = exit.code
		if exit.err == nil {
			return code
		}
	} else if !c.began || strings.HasPrefix(err.Error(), "required flag") {
		code = 2
	}
	fmt.Fprintf(errOut, "mezzo: %s\n", strings.TrimSpace(err.Error()))
	if code == 2 {
		fmt.Fprintf(errOut, "mezzo: see %s --help\n", meant.CommandPath())
	}
	return code
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mezzo",
		Short: "A datacenter kernel: two-level scheduling with every policy in a plugin",
		Long: `Mezzo runs work on many machines. A master offers what agents have to frameworks,
which launch tasks on it; how it is shared out, how tasks are isolated and what
other APIs there are is in plugins. mezzo is all of it: the master, the agent, and
the command line for those who use and operate them.

Every verb that speaks to a cluster takes --address, or MEZZO_ADDRESS: a master, or
several, or zk://HOST:PORT/PATH; without it a cluster on this machine is meant, as
mezzo dev starts one. See also mezzo help names, json and exit-codes.`,
		Example:       "  mezzo dev\n  mezzo run -- echo hello\n  mezzo status",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			c.began = true
			if !slices.Contains(colorModes, c.color) {
				return usage("--color %s: give auto, always or never", c.color)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.addColorFlag(root)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.AddGroup(
		&cobra.Group{ID: "serve", Title: "Run a cluster:"},
		&cobra.Group{ID: "work", Title: "Run work on it:"},
		&cobra.Group{ID: "look", Title: "Look at it:"},
		&cobra.Group{ID: "operate", Title: "Operate it:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, cmd := range cmds {
			cmd.GroupID = group
			root.AddCommand(cmd)
		}
	}
	add("serve", c.devCommand(), c.masterCommand(), c.agentCommand())
	add("work", c.runCommand(), c.logsCommand(), c.execCommand(), c.attachCommand(), c.killCommand(), c.teardownCommand())
	add("look", c.statusCommand(), c.topCommand(), c.agentsCommand(), c.frameworksCommand(), c.tasksCommand(), c.offersCommand(), c.rolesCommand(), c.pluginsCommand(), c.whyCommand(), c.eventsCommand())
	add("operate", c.maintenanceCommand(), c.reserveCommand(), c.unreserveCommand(), c.volumeCommand(), c.quotaCommand(), c.weightsCommand(), c.imageCommand(), c.reloadCommand(), c.logLevelCommand(), c.registryCommand(), c.configCommand(), c.authCommand(), c.pluginCommand())
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(c.versionCommand(), c.manCommand(), c.completionCommand(), c.fetchWorkerCommand())
	root.AddCommand(topics()...)
	root.SetHelpCommand(helpCommand())
	c.addCompletions(root)
	explainUsage(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usage("%s", parsing.ReplaceAllString(err.Error(), ""))
	})
	fitHelp(root)
	return root
}

// builtBy is a version, in JSON.
type builtBy struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
		Long:    "Prints the version of this binary, and of the Go that built it. mezzo status shows that of the master.",
		Example: "  mezzo version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if c.json {
				return c.printValue(builtBy{Version(), runtime.Version()})
			}
			_, err := fmt.Fprintf(c.out, "mezzo %s (%s %s/%s)\n", Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	c.addJSONFlag(cmd, shapeOfValue(jsonOne, builtBy{}))
	return cmd
}
