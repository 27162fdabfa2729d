package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

func constant(json string) func(*pluginv1.Schema) ([]byte, error) {
	return func(*pluginv1.Schema) ([]byte, error) { return []byte(json), nil }
}

func TestStartServesAndStops(t *testing.T) {
	r := newRig(t)
	bye := filepath.Join(r.dataDir, "bye")
	i := r.start(r.spec("bye:"+bye, `{"greeting": "good day"}`))
	g := r.up()
	if got := r.do(g, "greet"); got != "good day" {
		t.Errorf("greet: %q", got)
	}
	checksum, err := Checksum(r.bin)
	if err != nil {
		t.Fatal(err)
	}
	got := i.Status()
	if got.PID == 0 || got.Since.IsZero() {
		t.Errorf("status lacks pid or since: %+v", got)
	}
	got.PID, got.Since = 0, time.Time{}
	want := Status{
		Kind: "allocator", Name: "test", Path: r.bin, Checksum: checksum, Version: "1.2.3", ContractVersion: 1,
		Capabilities: []string{"talks"}, State: Healthy, Generation: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if got, want := r.do(g, "datadir"), filepath.Join(r.dataDir, "plugins", "allocator-test"); got != want {
		t.Errorf("data dir %q, want %q", got, want)
	}
	if i.Current() != g {
		t.Error("Current is not the generation that came up")
	}
	i.Stop(r.context())
	if err := r.down(); err != nil {
		t.Errorf("OnDown after Stop: %v, want nil", err)
	}
	if s := i.Status(); s.State != Stopped || s.PID != 0 {
		t.Errorf("after Stop: %+v", s)
	}
	if _, err := os.Stat(bye); err != nil {
		t.Errorf("the plugin's Shutdown did not run: %v", err)
	}
	if g.Context().Err() == nil {
		t.Error("the generation's context goes on")
	}
	if _, err := i.Await(r.context()); err == nil || !strings.Contains(err.Error(), "is stopped") {
		t.Errorf("Await after Stop: %v", err)
	}
	i.Stop(r.context()) // twice is no error
}

func TestCleanEnvironment(t *testing.T) {
	t.Setenv("MEZZO_SECRET_OF_THE_HOST", "hush")
	r := newRig(t)
	spec := r.spec("good", `{}`)
	spec.Env["EXTRA"] = "yes"
	r.start(spec)
	env := r.do(r.up(), "env")
	if strings.Contains(env, "hush") || strings.Contains(env, "HOME=") {
		t.Errorf("the host's environment leaks:\n%s", env)
	}
	if !strings.Contains(env, "EXTRA=yes") || !strings.Contains(env, "PATH=/usr/local/sbin:") {
		t.Errorf("environment lacks what it should have:\n%s", env)
	}
	for _, gone := range []string{plugin.CookieKey, plugin.EnvHostPipe} {
		if strings.Contains(env, gone) {
			t.Errorf("the plugin's children would inherit %s", gone)
		}
	}
}

func TestStrayPrintsBeforeTheHandshake(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("chatty", `{}`))
	r.up()
	wantText(t, r.log.String(), "loading policies…")
}

func TestOfferReachesTheHost(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	g := r.up()
	id, err := g.Offer(func(s grpc.ServiceRegistrar) { s.RegisterService(&controlService, master{}) })
	if err != nil {
		t.Fatal(err)
	}
	if got := r.do(g, fmt.Sprintf("dial %d", id)); got != "the master" {
		t.Errorf("through the broker: %q", got)
	}
}

type master struct{}

func (master) do(context.Context, string) (string, error) { return "the master", nil }

func TestStartTwice(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{}`))
	_, err := r.host.Start(r.context(), r.spec("good", `{}`))
	if err == nil || !strings.Contains(err.Error(), `allocator "test": it runs already`) {
		t.Errorf("second start: %v", err)
	}
}

// TestLaunchFailures is one failure at each step after the checks of the file,
// and all of the message that the operator reads.
func TestLaunchFailures(t *testing.T) {
	short := func(o *Options) { o.StartTimeout, o.ConfigureTimeout = 400*time.Millisecond, 400*time.Millisecond }
	for _, c := range []struct {
		name, mode, config string
		change             func(*Options)
		spec               func(*Spec)
		step               Step
		want               []string
	}{
		{
			name: "garbage on stdout, then exit", mode: "garbage", step: StepLaunch,
			want: []string{"it exited with status 0 before it was ready", `stdout began: "Welcome to the wrong program!"`, "what to do: check that this file is a Mezzo plugin"},
		},
		{
			name: "garbage without end", mode: "flood", step: StepLaunch,
			want: []string{"it writes on stdout, but not the plugin handshake", `stdout began: "la la`, "what to do: check that this file is a Mezzo plugin"},
		},
		{
			name: "exits at once", mode: "exit", step: StepLaunch,
			want: []string{"it exited with status 3 before it was ready", "last lines on stderr:", "first line", "cannot open /dev/policy", "what to do:"},
		},
		{
			name: "hangs before the handshake", mode: "silent", change: short, step: StepLaunch,
			want: []string{"it did not shake hands within 400ms", "what to do:"},
		},
		{
			name: "closes stdout and stays", mode: "mute", step: StepLaunch,
			want: []string{"it closed stdout without the plugin handshake, and runs on", "what to do:"},
		},
		{
			name: "wrong kind", mode: "kind", step: StepDescribe,
			want: []string{"it is of kind isolator, not allocator", `what to do: declare it as isolator "test"`},
		},
		{
			name: "wrong name", mode: "name:other", step: StepDescribe,
			want: []string{`it calls itself "other"`, `what to do: declare it as allocator "other"`},
		},
		{
			name: "contract too new", mode: "contract:7", step: StepNegotiate,
			want: []string{"it serves version 7 of the allocator contract, and this mezzo speaks 1: the plugin is newer", "what to do: upgrade mezzo"},
		},
		{
			name: "contract too old", mode: "contract:1", step: StepNegotiate,
			spec: func(s *Spec) { s.ContractVersions = []uint32{2, 3} },
			want: []string{"it serves version 1 of the allocator contract, and this mezzo speaks 2 and 3: the plugin is older", "what to do: install a newer release"},
		},
		{
			name: "operator's configuration wrong", mode: "good", step: StepConfigure,
			spec: func(s *Spec) {
				s.Place = "master.hcl:12,1-17"
				s.Configure = func(schema *pluginv1.Schema) ([]byte, error) {
					return nil, errors.New("master.hcl:14,5-9: no attribute " + schema.Attributes[0].Name + "s")
				}
			},
			want: []string{"its configuration is wrong\nmaster.hcl:14,5-9: no attribute greetings", "declared at: master.hcl:12,1-17"},
		},
		{
			name: "plugin validates", mode: "good", config: `{"greeting": ""}`, step: StepConfigure,
			want: []string{"it rejected its configuration\n", "error: at greeting: empty greeting: Say something."},
		},
		{
			name: "plugin refuses", mode: "good", config: `{"refuse": true}`, step: StepConfigure,
			spec: func(s *Spec) {
				s.MapDiagnostics = func(schema *pluginv1.Schema, ds []*pluginv1.Diagnostic) error {
					return fmt.Errorf("master.hcl:15: %s: %s (one of %d settings)", ds[0].Path[0], ds[0].Detail, len(schema.Attributes))
				}
			},
			want: []string{"it rejected its configuration\nmaster.hcl:15: greeting: It is not said here. (one of 5 settings)"},
		},
		{
			name: "plugin cannot read its configuration", mode: "good", config: `{"wait": "soon"}`, step: StepConfigure,
			want: []string{"error: at wait: invalid value"},
		},
		{
			name: "configure hangs", mode: "good", config: `{"wait": 60000000000}`, step: StepConfigure,
			change: func(o *Options) { o.ConfigureTimeout = 400 * time.Millisecond },
			want:   []string{"it did not take its configuration within 400ms"},
		},
		{
			name: "configure kills it", mode: "good", config: `{"exit": true}`, step: StepConfigure,
			want: []string{"it exited with status 5 when it was asked to take its configuration", "dying in Configure"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			change := c.change
			if change == nil {
				change = func(*Options) {}
			}
			r := newRig(t, change)
			if c.config == "" {
				c.config = "{}"
			}
			spec := r.spec(c.mode, c.config)
			if c.spec != nil {
				c.spec(&spec)
			}
			e := r.startError(spec)
			if e.Step != c.step {
				t.Errorf("step %q, want %q", e.Step, c.step)
			}
			wantText(t, e.Error(), append([]string{`allocator "test": `}, c.want...)...)
			wantText(t, e.Error(), "file: "+r.bin)
		})
	}
}

func TestVersionErrorIsTyped(t *testing.T) {
	r := newRig(t)
	var v *VersionError
	if e := r.startError(r.spec("contract:7", "{}")); !errors.As(e, &v) {
		t.Fatalf("no *VersionError in %v", e)
	}
	want := &VersionError{Plugin: `allocator "test"`, Path: r.bin, PluginServes: []uint32{7}, HostSpeaks: []uint32{1}}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if v.PluginIsOlder() {
		t.Error("version 7 is said to be older than 1")
	}
}

func TestWarningsAreLogged(t *testing.T) {
	r := newRig(t)
	r.start(r.spec("good", `{"warn": true}`))
	wantText(t, r.log.String(), "[WARN]", "allocator.test", "odd greeting", "Nobody says that.")
}

// TestStartIsCancelled cancels at once and later: the answer is the same.
func TestStartIsCancelled(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond} {
		r := newRig(t)
		ctx, cancel := context.WithCancel(context.Background())
		if after == 0 {
			cancel()
		} else {
			time.AfterFunc(after, cancel)
		}
		_, err := r.host.Start(ctx, r.spec("silent", `{}`))
		if err == nil || !strings.Contains(err.Error(), "its start was cancelled") {
			t.Errorf("cancelled after %s: %v", after, err)
		}
		cancel()
	}
}

// TestBusyBinary starts a file that is open for writing, as one is that was just
// copied; whoever writes it is done when the host has noticed.
func TestBusyBinary(t *testing.T) {
	var script *os.File
	r := newRig(t, func(o *Options) {
		o.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: writerFunc(func(line []byte) {
			if strings.Contains(string(line), "being written; trying once more") {
				script.Close()
			}
		})})
	})
	spec := r.spec("good", `{}`)
	spec.Path = filepath.Join(r.dataDir, "bin", "mezzo-allocator-busy")
	r.write(spec.Path, []byte("#!/bin/sh\nexec "+r.bin+"\n"), 0o755)
	var err error
	if script, err = os.OpenFile(spec.Path, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	r.start(spec)
	if err := script.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the file was not busy: the test tests nothing (%v)", err)
	}
}

func TestBinaryThatStaysBusy(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", `{}`)
	spec.Path = filepath.Join(r.dataDir, "bin", "mezzo-allocator-busy")
	r.write(spec.Path, []byte("#!/bin/sh\nexec "+r.bin+"\n"), 0o755)
	script, err := os.OpenFile(spec.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer script.Close()
	wantText(t, r.startError(spec).Error(), "it cannot be started: text file busy", "what to do:")
}

type writerFunc func(line []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
