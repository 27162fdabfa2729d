package command

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/http"
	"github.com/mezzo-os/mezzo/core/master"
)

// serveFlags are the flags that master and agent share. What they say goes
// before what a file says.
type serveFlags struct {
	configs   []string
	dataDir   string
	pluginDir string
	rpc, http string
	logLevel  string
	pprof     string
}

func (f *serveFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.configs, "config", nil, "a configuration file, or a directory of them; may be repeated")
	flags.StringVar(&f.dataDir, "data-dir", "", "where its state lies (before data_dir of the files)")
	flags.StringVar(&f.pluginDir, "plugin-dir", "", "where plugin binaries lie (default: plugins, beside this binary)")
	flags.StringVar(&f.rpc, "rpc", "", "its rpc address")
	flags.StringVar(&f.http, "http", "", "its http address")
	flags.StringVar(&f.pprof, "pprof", "", "serve profiles for `go tool pprof` at this address, on loopback alone (default: not at all)")
	flags.StringVar(&f.logLevel, "log-level", "", "trace, debug, info, warn or error")
}

// resolved prints the diagnostics of resolving a file, and fails on errors.
func (c *cli) resolved(file *config.File, diags hcl.Diagnostics) error {
	c.diagnose(file, diags)
	if diags.HasErrors() {
		return &exitError{code: 1}
	}
	return nil
}

// override sets what a flag says.
func override(setting *string, flag string) {
	if flag != "" {
		*setting = flag
	}
}

// newLogger logs to stderr, as the configuration says. Plugins' levels are
// their own.
func newLogger(w io.Writer, name, level string, json bool) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: name, Level: hclog.LevelFromString(level), JSONFormat: json, Output: w, IndependentLevels: true,
	})
}

// announce prints the ready line.
func (c *cli) announce(fields ...string) {
	fmt.Fprintln(c.out, "ready "+strings.Join(fields, " "))
}

func (c *cli) masterCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use: "master", Short: "Run a master", Args: cobra.NoArgs,
		Long: `Runs a master, in the foreground, until SIGTERM or Ctrl-C. Tasks, agents and
frameworks go on without it and come back to it, or to the next leader. What its
configuration says is told by flags first. SIGHUP has it read its files again.`,
		Example: "  mezzo master --config /etc/mezzo.d\n  mezzo master --data-dir /tmp/m --rpc 127.0.0.1:0",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.master(cmd.Context(), f) },
	}
	f.add(cmd)
	return cmd
}

func (c *cli) master(ctx context.Context, f serveFlags) error {
	defaults, err := c.defaults(f.dataDir)
	if err != nil {
		return err
	}
	read := func() (*config.Master, *config.File, hcl.Diagnostics) { return f.readMaster(defaults) }
	settings, file, diags := read()
	if err := c.resolved(file, diags); err != nil {
		return err
	}
	m, err := master.New(master.Options{
		Config: *settings, Logger: newLogger(c.err, "master", settings.LogLevel, settings.LogJSON), Version: Version(),
		Reread: read,
	})
	if err != nil {
		return c.refused(file, err)
	}
	return c.refused(file, c.serve(ctx, m, f.pprof, "rpc", "http"))
}

// process is a master or an agent.
type process interface {
	Ready() <-chan struct{}
	Addresses() map[string]string
	ReloadOn(ctx context.Context, signals <-chan os.Signal)
	Run(ctx context.Context) error
}

// addressFields are addresses as NAME=ADDRESS: those of these names first, then
// the others, in order.
func addressFields(addresses map[string]string, names []string) []string {
	all := append([]string(nil), names...)
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		if !slices.Contains(names, name) {
			all = append(all, name)
		}
	}
	for i, name := range all {
		all[i] = name + "=" + addresses[name]
	}
	return all
}

// serve runs a process to its end. Once it serves, its ready line is printed,
// with its addresses, those of these names first; SIGHUP has it reload. Profiles
// are served where profile says; empty: nowhere.
func (c *cli) serve(ctx context.Context, p process, profile string, names ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if profile != "" {
		profiles, err := http.ListenProfiles(profile)
		if err != nil {
			return err
		}
		defer profiles.Stop()
		go func() { _ = profiles.Serve() }() // until Stop
	}
	go func() {
		select {
		case <-p.Ready():
			c.announce(addressFields(p.Addresses(), names)...)
		case <-ctx.Done():
		}
	}()
	hangups, stop := hangups()
	defer stop()
	go p.ReloadOn(ctx, hangups)
	return p.Run(ctx)
}

// readMaster reads what a master is to do: files, and flags before them.
func (f *serveFlags) readMaster(defaults config.Defaults) (*config.Master, *config.File, hcl.Diagnostics) {
	file, diags := config.Load(f.configs)
	if diags.HasErrors() {
		return nil, file, diags
	}
	settings, more := file.ForMaster(defaults)
	diags = append(diags, more...)
	if settings == nil {
		return nil, file, diags
	}
	override(&settings.PluginDir, f.pluginDir)
	override(&settings.RPC, f.rpc)
	override(&settings.HTTP, f.http)
	override(&settings.LogLevel, f.logLevel)
	return settings, file, append(diags, settings.Check()...)
}

// hangups are the SIGHUPs that come from now on: each asks for a reload. One
// that comes while another waits adds nothing.
func hangups() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// refused prints an error with the operator's lines, where it has places.
func (c *cli) refused(file *config.File, err error) error {
	if err == nil {
		return nil
	}
	c.complain(file, err)
	return &exitError{code: 1}
}
