package pluginhost

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// A probe is not configured; it ends when its host seems to be gone, when it is
// killed, and when it is closed.
func TestProbe(t *testing.T) {
	for name, end := range map[string]func(*Probe){
		"lose host": (*Probe).LoseHost,
		"kill":      (*Probe).Kill,
		"close":     (*Probe).Close,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p, err := OpenProbe(r.context(), r.spec("good", `{"greeting":"hi"}`), Options{StartTimeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if p.Description.GetName() != "test" || string(p.Config) != `{"greeting":"hi"}` || p.ContractVersion != 1 {
				t.Errorf("probe of %v, config %s, contract version %d", p.Description, p.Config, p.ContractVersion)
			}
			answer, err := pluginv1.NewPluginClient(p.Conn).Configure(r.context(), &pluginv1.ConfigureRequest{Config: p.Config, ContractVersion: 1})
			if err != nil || len(answer.GetDiagnostics()) > 0 {
				t.Fatalf("configure, for the first time: %v, %v", answer, err)
			}
			end(p)
			select {
			case <-p.Exited():
			case <-time.After(patience):
				t.Fatal("the process lives on")
			}
			p.Close()
			if unix.Kill(p.PID, 0) == nil {
				t.Errorf("process %d is left", p.PID)
			}
		})
	}
}

func TestProbeFailures(t *testing.T) {
	r := newRig(t)
	for mode, want := range map[string]Step{"exit": StepLaunch, "kind": StepDescribe} {
		_, err := OpenProbe(r.context(), r.spec(mode, `{}`), Options{StartTimeout: patience})
		var e *Error
		if !errors.As(err, &e) || e.Step != want {
			t.Errorf("%s: %v, want an error at step %v", mode, err, want)
		}
	}
	spec := r.spec("good", "")
	spec.Configure = func(*pluginv1.Schema) ([]byte, error) { return nil, errors.New("line 3 is wrong") }
	_, err := OpenProbe(r.context(), spec, Options{StartTimeout: patience})
	var e *Error
	if !errors.As(err, &e) || e.Step != StepConfigure {
		t.Errorf("a configuration that cannot be decoded: %v", err)
	}
}
