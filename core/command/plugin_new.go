package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/scaffold"
)

// newPlugin are what `plugin new` can be told.
type newPlugin struct {
	kind, dir, module, sdk string
}

func (c *cli) pluginNewCommand() *cobra.Command {
	var o newPlugin
	cmd := &cobra.Command{
		Use: "new NAME", Short: "Begin a plugin: write a Go module that builds, conforms and can be changed", Args: cobra.ExactArgs(1),
		Long: `Writes a small, whole Go module: the plugin with its settings, unit tests, the
conformance suite as a test, a Makefile, a configuration for mezzo dev, and a
README. What it does at first:

  allocator  shares one resource fairly, with weights of frameworks
  isolator   gives containers environment variables of the site's
  framework  runs commands that it is given over HTTP

Nothing that exists is overwritten.`,
		Example: `  mezzo plugin new fair-gpus --kind allocator
  mezzo plugin new site --kind isolator --dir . --module example.com/team/site
  mezzo plugin new runner --kind framework --sdk ~/src/mezzo   # the SDK of a checkout`,
		RunE: func(_ *cobra.Command, args []string) error { return c.pluginNew(args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.kind, "kind", "", "allocator, isolator or framework (required)")
	f.StringVar(&o.dir, "dir", "", "where the files go (default: a new directory, called as the binary will be)")
	f.StringVar(&o.module, "module", "", "the path of the Go module (default: the name of the binary)")
	c.addJSONFlag(cmd, shapeOfValue(jsonOne, begunPlugin{}))
	f.StringVar(&o.sdk, "sdk", "", "a checkout of Mezzo whose SDK to use (default: the one that this binary lies in; else the published SDK of its version)")
	if err := cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"allocator", "isolator", "framework"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

func (c *cli) pluginNew(name string, o newPlugin) error {
	kind, known := plugin.KindOf(o.kind)
	switch {
	case o.kind == "":
		return usage("give --kind allocator, --kind isolator or --kind framework")
	case !known:
		return usage("--kind %s: there are allocator, isolator and framework", o.kind)
	case !plugin.ValidName(name):
		return usage("%q is not the name of a plugin: %s", name, plugin.NameForm)
	}
	sdk, err := findSDK(o.sdk)
	if err != nil {
		return err
	}
	files, err := scaffold.Files(scaffold.Plugin{Kind: kind, Name: name, Module: o.module, SDK: sdk})
	if err != nil {
		return err
	}
	if o.dir == "" {
		o.dir = plugin.BinaryName(kind, name)
	}
	if err := writeNew(o.dir, files); err != nil {
		return err
	}
	begun := begunPlugin{Kind: o.kind, Name: name, Dir: o.dir, Next: nextCommands(o.dir, sdk)}
	for _, f := range files {
		begun.Files = append(begun.Files, filepath.Join(o.dir, filepath.FromSlash(f.Path)))
	}
	if c.json {
		return c.printValue(begun)
	}
	_, err = fmt.Fprintf(c.out, "%s\n\nNext:\n\n  %s\n", strings.Join(begun.Files, "\n"), strings.Join(begun.Next, "\n  "))
	return err
}

// begunPlugin is what was written, in JSON.
type begunPlugin struct {
	Kind  string   `json:"kind"`
	Name  string   `json:"name"`
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
	Next  []string `json:"next"` // commands for a shell
}

// nextCommands are the commands that come next.
func nextCommands(dir string, sdk scaffold.SDK) []string {
	mezzo := ""
	if _, err := exec.LookPath("mezzo"); err != nil {
		if exe, err := os.Executable(); err == nil {
			mezzo = " MEZZO=" + quote(exe)
		}
	}
	next := []string{"cd " + quote(dir)}
	if sdk.Dir == "" {
		next = append(next, fmt.Sprintf("go mod tidy   # fetches the SDK, %s; where that is not published, begin anew with --sdk CHECKOUT", sdk.Version))
	}
	return append(next, "make test     # its own tests", "make verify"+mezzo, "make dev"+mezzo)
}

// findSDK looks where a new module can find the SDK.
func findSDK(dir string) (scaffold.SDK, error) {
	if dir == "" {
		if dir = ownCheckout(); dir == "" {
			return scaffold.SDK{Version: ownModuleVersion()}, nil
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return scaffold.SDK{}, err
	}
	sdk := scaffold.SDK{Dir: dir}
	if sdk.GoMod, err = os.ReadFile(filepath.Join(dir, "go.mod")); err == nil {
		sdk.GoSum, err = os.ReadFile(filepath.Join(dir, "go.sum"))
	}
	if err != nil {
		return scaffold.SDK{}, fmt.Errorf("--sdk %s is no checkout of Mezzo: %w", dir, err)
	}
	return sdk, nil
}

// ownCheckout is the checkout in whose bin directory this binary lies; empty when
// it lies elsewhere.
func ownCheckout() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return ""
	}
	dir := filepath.Dir(filepath.Dir(exe))
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || modfile.ModulePath(text) != scaffold.SDKModule {
		return ""
	}
	return dir
}

// ownModuleVersion is the version under which Go publishes what this binary was
// built from.
func ownModuleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path == scaffold.SDKModule {
		if v := info.Main.Version; semver.IsValid(v) && semver.Build(v) == "" { // +dirty is published nowhere
			return v
		}
	}
	return "v" + Version()
}

// writeNew writes files that must not exist yet: all of them, or none.
func writeNew(dir string, files []scaffold.File) (err error) {
	var there []string
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if _, err := os.Lstat(path); err == nil {
			there = append(there, path)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("nothing was written, since these are there already: %s; choose another --dir", strings.Join(there, ", "))
	}
	_, before := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var written []string
	defer func() {
		if err == nil {
			return
		}
		for _, path := range written {
			_ = os.Remove(path)
		}
		if before != nil {
			_ = os.Remove(dir)
		}
	}()
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := writeOne(path, f.Data); err != nil {
			return err
		}
		written = append(written, path)
	}
	return nil
}

func writeOne(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}
