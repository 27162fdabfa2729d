package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// configure gives the process its settings. With validateOnly the plugin checks
// them and does nothing.
func (s Spec) configure(ctx context.Context, p *process, g *Generation, path string, options Options, dataDir string, validateOnly bool, logger hclog.Logger) *Error {
	fail := func(problem, remedy string, cause error) *Error {
		return &Error{Plugin: s.title(), Path: path, Step: StepConfigure, Problem: problem, Remedy: remedy, Err: cause}
	}
	config := []byte("{}")
	if s.Configure != nil {
		var err error
		if config, err = s.Configure(g.Description.GetSchema()); err != nil {
			return fail("its configuration is wrong\n"+err.Error(), "", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, options.ConfigureTimeout)
	defer cancel()
	answer, err := p.base.Configure(ctx, &pluginv1.ConfigureRequest{
		Config: config, ContractVersion: g.ContractVersion, DataDir: dataDir, ValidateOnly: validateOnly,
	})
	if err != nil {
		e := fail(p.callProblem("take its configuration", options.ConfigureTimeout, err), "see its log lines above; report it to the plugin's author", err)
		e.Output = p.out.get()
		return e
	}
	if len(answer.GetDiagnostics()) == 0 {
		return nil
	}
	err = s.mapDiagnostics(g.Description.GetSchema(), answer.GetDiagnostics())
	for _, d := range answer.GetDiagnostics() {
		if d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING {
			return fail("it rejected its configuration\n"+err.Error(), "", err)
		}
	}
	logger.Warn("the plugin has something to say about its configuration", "diagnostics", err.Error())
	return nil
}

// mapDiagnostics never returns nil, whatever Spec.MapDiagnostics does.
func (s Spec) mapDiagnostics(schema *pluginv1.Schema, ds []*pluginv1.Diagnostic) error {
	if s.MapDiagnostics != nil {
		if err := s.MapDiagnostics(schema, ds); err != nil {
			return err
		}
	}
	var lines []string
	for _, d := range ds {
		word := "error"
		if d.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING {
			word = "warning"
		}
		line := word + ": " + d.GetSummary()
		if len(d.GetPath()) > 0 {
			line = fmt.Sprintf("%s: at %s: %s", word, strings.Join(d.GetPath(), "."), d.GetSummary())
		}
		if d.GetDetail() != "" {
			line += ": " + d.GetDetail()
		}
		lines = append(lines, "  "+line)
	}
	return errors.New(strings.Join(lines, "\n"))
}
