package pluginhost

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Inspect runs a binary just long enough to learn what it is, configures
// nothing, and returns its description and the checksum to pin it by, its
// companions included (see ParseChecksum). It needs no Host. An error is a
// *Error, as for a launch. The binary is run as this user.
func Inspect(ctx context.Context, path string) (*pluginv1.Description, string, error) {
	dir, err := os.MkdirTemp(shortTempDir(), "mezzo-inspect-")
	if err != nil {
		return nil, "", fmt.Errorf("inspect %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	spec := Spec{Path: path, ContractVersions: anyVersion()}
	spec.label = filepath.Base(path)
	if kind, name, ok := parseBinaryName(filepath.Base(path)); ok {
		spec.Kind, _ = plugin.KindOf(kind)
		spec.Name = name
	}
	real, e := spec.find()
	if e != nil {
		return nil, "", e
	}
	if _, e := spec.verify(real); e != nil {
		return nil, "", e
	}
	options := Options{}.withDefaults()
	l := launcher{
		spec: spec, path: real, versions: spec.versions(), socketDir: dir,
		startTimeout: options.StartTimeout, logger: hclog.NewNullLogger(),
	}
	p, e := l.launch(ctx)
	if e != nil {
		return nil, "", e
	}
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, options.ShutdownGrace)
		defer cancel()
		p.end(ctx)
	}()
	d, e := spec.ask(ctx, p, real, options.StartTimeout)
	if e != nil {
		return nil, "", e
	}
	if e := spec.verifyCompanions(real, d); e != nil {
		return nil, "", e
	}
	pin, err := pinOf(real, d)
	if err != nil {
		return nil, "", spec.verifyError(real, err, err.Error(), "let this user read the files")
	}
	return d, pin.String(), nil
}

// anyVersion lets the plugin choose: Describe is the same in every contract.
func anyVersion() []uint32 {
	versions := make([]uint32, 64)
	for i := range versions {
		versions[i] = uint32(i + 1)
	}
	return versions
}

// Check does all that Host.Start does, up to the plugin's own check of its
// configuration, which it asks to have no effect, and then ends the process.
// What it returns is what Start would return. It needs no Host and no data
// directory, so a plugin may be checked while it runs elsewhere. Of the options,
// Logger and the durations count.
func Check(ctx context.Context, spec Spec, options Options) error {
	dir, err := os.MkdirTemp(shortTempDir(), "mezzo-check-")
	if err != nil {
		return fmt.Errorf("check %s: %w", spec.title(), err)
	}
	defer os.RemoveAll(dir)
	options.DataDir = dir
	h, err := New(options)
	if err != nil {
		return err
	}
	defer h.Close(ctx)
	if e := h.check(ctx, spec); e != nil {
		e.Place = spec.Place
		return e
	}
	return nil
}

func (h *Host) check(ctx context.Context, spec Spec) *Error {
	logger := h.options.Logger.Named(spec.logName())
	p, g, e := h.introduce(ctx, spec, logger)
	if e != nil {
		return e
	}
	defer func() {
		ctx, cancel := context.WithTimeout(ctx, h.options.ShutdownGrace)
		defer cancel()
		p.end(ctx)
	}()
	return spec.configure(ctx, p, g, p.child.Name(), h.options, "", true, logger)
}
