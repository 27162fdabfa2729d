package reload_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/reload"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func diagnostics(severity hcl.DiagnosticSeverity, summary string) hcl.Diagnostics {
	return hcl.Diagnostics{{Severity: severity, Summary: summary}}
}

func TestReload(t *testing.T) {
	type settings struct{}
	for name, test := range map[string]struct {
		read    hcl.Diagnostics
		applied error
		failed  bool
		says    string
		logs    string
	}{
		"all is well":              {logs: "[INFO]  the configuration was reloaded: changes=1 need_restart=1"},
		"with a warning":           {read: diagnostics(hcl.DiagWarning, "careful"), says: "careful", logs: "[WARN]  reload: the configuration was taken, with warnings"},
		"an error in the file":     {read: diagnostics(hcl.DiagError, "bad"), failed: true, says: "bad", logs: "[ERROR] the configuration was not reloaded: changes=0"},
		"an error of what runs":    {applied: errors.New("no such luck"), failed: true, says: "no such luck\n", logs: "changes=1"},
		"an error with its places": {applied: diagnostics(hcl.DiagError, "worse"), failed: true, says: "worse", logs: "[ERROR]"},
	} {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			r := &reload.Reloader[settings]{
				Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
				Ready:  func() error { return nil },
				Reread: func() (*settings, *config.File, hcl.Diagnostics) { return &settings{}, &config.File{}, test.read },
				Apply: func(_ context.Context, _ *settings, answer *operatorv1.ReloadResponse) error {
					var changes, restart reload.Changes
					changes.Compare("weight", 1, 2)
					changes.Compare("same", 1, 1.0)
					restart.Compare("tls", reload.TLS(nil), reload.TLS(&config.TLS{CA: "a", Cert: "b", Key: "c"}))
					answer.Changes, answer.Restart = changes, restart
					return test.applied
				},
			}
			answer, err := r.Reload(t.Context())
			if err != nil || answer.GetFailed() != test.failed || !strings.Contains(answer.GetDiagnostics(), test.says) {
				t.Errorf("%v, %v; want failed %t and %q", answer, err, test.failed, test.says)
			}
			if !strings.Contains(log.String(), test.logs) {
				t.Errorf("it logs %q, want %q", log.String(), test.logs)
			}
			if len(test.read) == 0 && (len(answer.GetChanges()) != 1 || answer.GetRestart()[0].GetTo() != "ca a, cert b, key c") {
				t.Errorf("the answer is %v", answer)
			}
		})
	}
}

func TestReloadThatIsNotTried(t *testing.T) {
	r := &reload.Reloader[int]{Logger: hclog.NewNullLogger()}
	wants := func(code codes.Code) {
		t.Helper()
		if answer, err := r.Reload(t.Context()); status.Code(err) != code {
			t.Errorf("%v, %v; want %v", answer, err, code)
		}
	}
	wants(codes.FailedPrecondition)
	ready := errors.New("not yet")
	r.Ready = func() error { return ready }
	r.Reread = func() (*int, *config.File, hcl.Diagnostics) {
		wants(codes.FailedPrecondition) // while another is under way
		return nil, &config.File{}, diagnostics(hcl.DiagError, "bad")
	}
	wants(codes.Unavailable)
	ready = nil
	r.Between(func() { wants(codes.FailedPrecondition) })
	wants(codes.OK)
}
