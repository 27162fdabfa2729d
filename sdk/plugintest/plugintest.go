package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Plugin is one instance of the plugin under test: served, but not yet
// configured.
type Plugin struct {
	// Conn reaches all of its services.
	Conn *grpc.ClientConn
	// Config is what Configure is given; nil: the defaults of its schema.
	Config []byte
	// ContractVersion is the version that Configure is given; 0: 1.
	ContractVersion uint32
	// Close ends the instance, however it is, and leaves nothing behind. It may
	// be called more than once.
	Close func()

	// What follows is for a plugin in a process of its own; all nil otherwise.

	// Exited is closed when the process has ended.
	Exited <-chan struct{}
	// Kill ends the process by SIGKILL, and returns when it has ended.
	Kill func()
	// LoseHost does to the process what the death of its host does: the pipe at
	// MEZZO_PLUGIN_HOST_FD ends.
	LoseHost func()
	// Output returns the last lines that the process printed, for evidence.
	Output func() []string
}

// Open starts a new instance of the plugin under test. It is called many times;
// each instance is closed before the next is opened.
type Open func(ctx context.Context) (*Plugin, error)

// Local serves a definition in this process, over a real connection. config is
// the JSON that Configure is given (see mezzo.plugin.v1.Type for the form of
// values); empty: the defaults of its schema. What can only be seen from a
// process's end is skipped.
func Local(def plugin.Definition, config string) Open {
	return func(context.Context) (*Plugin, error) {
		local, err := plugin.StartLocal(def, nil)
		if err != nil {
			return nil, err
		}
		p := &Plugin{Conn: local.Conn, Close: local.Close}
		if config != "" {
			p.Config = []byte(config)
		}
		return p, nil
	}
}

// Options change how patient a suite is.
type Options struct {
	// Patience bounds every wait for what must happen. Default: 10 s.
	Patience time.Duration
	// Quiet is for how long nothing must happen where something would be wrong,
	// and the silence after which a plugin is taken to have nothing to do.
	// Default: 300 ms.
	Quiet time.Duration
	// Done is told of every check as soon as its scenario has run; violations
	// seen later may still fail it. May be nil.
	Done func(name string)
}

func (o Options) withDefaults() Options {
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Quiet <= 0 {
		o.Quiet = 300 * time.Millisecond
	}
	return o
}

// Allocator runs the suites that an allocator must pass, each check a subtest.
func Allocator(t *testing.T, open Open) { test(t, plugin.Allocator, open) }

// Isolator runs the suites that an isolator must pass, each check a subtest.
func Isolator(t *testing.T, open Open) { test(t, plugin.Isolator, open) }

// Base runs the suite that a plugin of whatever kind must pass, each check a
// subtest.
func Base(t *testing.T, open Open) { test(t, pluginv1.Kind_KIND_UNSPECIFIED, open) }

func test(t *testing.T, kind pluginv1.Kind, open Open) {
	t.Helper()
	report, err := verify(t.Context(), open, Options{}, kind)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		t.Run(c.Name, func(t *testing.T) {
			switch c.Outcome {
			case Failed:
				t.Errorf("%s\n%s", c.Rule, strings.Join(c.Evidence, "\n"))
			case Skipped:
				t.Skip(strings.Join(c.Evidence, "; "))
			}
		})
	}
}

// Verify runs the base suite, and that of the kind which the plugin says it is.
// An error means that nothing could be checked; what a plugin does wrong is in
// the report.
func Verify(ctx context.Context, open Open, options Options) (*Report, error) {
	return verify(ctx, open, options, pluginv1.Kind(-1))
}

// rule is a check and the scenario that makes it.
type rule struct {
	name, sentence string
	run            func(*scenario)
}

// verify runs the suites of a kind; -1 is whatever the plugin says.
func verify(ctx context.Context, open Open, options Options, kind pluginv1.Kind) (*Report, error) {
	s := &suite{open: open, options: options.withDefaults()}
	defer s.close()
	first, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open the plugin: %w", err)
	}
	d, err := describe(ctx, first, s.options.Patience)
	first.Close()
	if err != nil {
		return nil, fmt.Errorf("ask the plugin what it is: %w", err)
	}
	if kind > 0 && d.GetKind() != kind {
		return nil, fmt.Errorf("the plugin %q says that it is of kind %s, not %s", d.GetName(), plugin.KindName(d.GetKind()), plugin.KindName(kind))
	}
	s.description = d
	s.plan(baseRules())
	if kind == pluginv1.Kind(-1) {
		kind = d.GetKind()
	}
	switch kind {
	case plugin.Allocator:
		s.plan(allocatorRules())
	case plugin.Isolator:
		s.data, err = os.MkdirTemp("", "mezzo-verify-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(s.data)
		s.plan(isolatorRules())
	}
	for _, r := range s.rules {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.run(ctx, r)
		if s.options.Done != nil {
			s.options.Done(r.name)
		}
	}
	return s.report(), nil
}

// suite is one run of the checks.
type suite struct {
	open        Open
	options     Options
	description *pluginv1.Description
	rules       []rule
	verdicts    map[string]*verdict
	order       []string
	data        string // of isolators: kept across instances

	current   *Plugin // configured, and used by scenario after scenario
	sessions  uint64
	recovered *Plugin // the isolator that was told what to recover
}

func (s *suite) plan(rules []rule) {
	if s.verdicts == nil {
		s.verdicts = map[string]*verdict{}
	}
	for _, r := range rules {
		s.rules = append(s.rules, r)
		s.order = append(s.order, r.name)
		s.verdicts[r.name] = &verdict{Check: Check{Name: r.name, Rule: r.sentence, Outcome: Passed}, by: map[string][]string{}}
	}
}

// run makes one check. A scenario gives up by ending its goroutine, as a test
// does.
func (s *suite) run(ctx context.Context, r rule) {
	ctx, cancel := context.WithTimeout(ctx, 12*s.options.Patience)
	defer cancel()
	c := &scenario{suite: s, ctx: ctx, rule: r, verdict: s.verdicts[r.name]}
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer c.cleanup()
		r.run(c)
	}()
	<-done
	c.verdict.ran = true
	c.verdict.Milliseconds = milliseconds(time.Since(began))
}

// report adds to each check what was seen of its rule in other scenarios.
func (s *suite) report() *Report {
	for _, name := range s.order {
		s.attribute(s.verdicts[name])
	}
	out := &Report{Kind: plugin.KindName(s.description.GetKind()), Name: s.description.GetName(), Version: s.description.GetVersion()}
	for _, name := range s.order {
		out.Checks = append(out.Checks, s.verdicts[name].Check)
	}
	return out
}

// attribute turns violations of a rule into its failure, by the evidence of one
// scenario: its own, or the first. A rule that is broken after a snapshot only
// is the snapshot's failure.
func (s *suite) attribute(v *verdict) {
	if len(v.by) == 0 {
		return
	}
	where := ""
	for _, name := range append([]string{v.Name}, s.order...) {
		if v.by[name] != nil && (where == "" || where == checkSnapshot) {
			where = name
		}
	}
	to, title := v, "in the scenario of "+where+":"
	if where == checkSnapshot && v.Outcome != Failed {
		to = s.verdicts[checkSnapshot]
	}
	if to.Outcome == Failed && where != to.Name {
		return // its own evidence is enough
	}
	if to.Outcome == Skipped {
		to.Evidence = nil
	}
	to.fail(title)
	to.fail(v.by[where]...)
}

func (s *suite) close() {
	if s.current != nil {
		s.current.Close()
		s.current = nil
	}
}

// scenario is what one check plays.
type scenario struct {
	suite   *suite
	ctx     context.Context
	rule    rule
	verdict *verdict
	undo    []func()
	needs   []string // rules that this one stands on, besides basics
}

func (c *scenario) cleanup() {
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i]()
	}
}

// failf fails the check and ends the scenario.
func (c *scenario) failf(format string, args ...any) {
	c.verdict.fail(strings.Split(fmt.Sprintf(format, args...), "\n")...)
	runtime.Goexit()
}

// skipf ends the scenario without a verdict.
func (c *scenario) skipf(format string, args ...any) {
	if c.verdict.Outcome == Passed {
		c.verdict.Outcome = Skipped
		c.verdict.Evidence = append(c.verdict.Evidence, fmt.Sprintf(format, args...))
	}
	runtime.Goexit()
}

// violated notes that a rule was broken, whoever's scenario this is.
func (c *scenario) violated(name string, lines ...string) {
	v := c.suite.verdicts[name]
	if v == nil {
		v = c.verdict
	}
	if v.by[c.rule.name] == nil {
		v.by[c.rule.name] = lines
	}
}

// call bounds one call by the suite's patience.
func (c *scenario) call() context.Context {
	ctx, cancel := context.WithTimeout(c.ctx, c.suite.options.Patience)
	c.undo = append(c.undo, cancel)
	return ctx
}

// fresh opens an instance that ends with the scenario.
func (c *scenario) fresh() *Plugin {
	c.suite.close()
	p, err := c.suite.open(c.ctx)
	if err != nil {
		c.failf("the plugin does not start: %v", err)
	}
	c.undo = append(c.undo, p.Close)
	return p
}

// configured returns the instance that scenarios share, and another when that
// one is gone.
func (c *scenario) configured() *Plugin {
	s := c.suite
	if s.current != nil {
		if _, err := pluginv1.NewPluginClient(s.current.Conn).Ping(c.call(), &pluginv1.PingRequest{}); err == nil {
			return s.current
		}
		s.close()
	}
	p, err := s.open(c.ctx)
	if err != nil {
		c.skipf("the plugin does not start: %v", err)
	}
	if err := s.configure(c.call(), p); err != nil {
		p.Close()
		c.skipf("the plugin is not configured: %v", err)
	}
	s.current = p
	return p
}

// configure gives an instance its settings.
func (s *suite) configure(ctx context.Context, p *Plugin) error {
	config, err := s.config(p)
	if err != nil {
		return err
	}
	answer, err := pluginv1.NewPluginClient(p.Conn).Configure(ctx, &pluginv1.ConfigureRequest{
		Config: config, ContractVersion: max(1, p.ContractVersion), DataDir: s.data,
	})
	if err != nil {
		return err
	}
	return failed(answer.GetDiagnostics())
}

func (s *suite) config(p *Plugin) ([]byte, error) {
	if p.Config != nil {
		return p.Config, nil
	}
	return Defaults(s.description.GetSchema())
}

// failed returns the errors among diagnostics as one.
func failed(ds []*pluginv1.Diagnostic) error {
	var errs []error
	for _, d := range ds {
		if d.GetSeverity() != pluginv1.Severity_SEVERITY_WARNING {
			errs = append(errs, fmt.Errorf("%s: %s: %s", strings.Join(d.GetPath(), "."), d.GetSummary(), d.GetDetail()))
		}
	}
	return errors.Join(errs...)
}

// Defaults returns the configuration of an operator who wrote nothing: every
// default of the schema. It fails when something is required.
func Defaults(schema *pluginv1.Schema) ([]byte, error) {
	values := map[string]json.RawMessage{}
	for _, a := range schema.GetAttributes() {
		switch {
		case a.GetDefaultJson() != "":
			values[a.GetName()] = json.RawMessage(a.GetDefaultJson())
		case a.GetRequired():
			return nil, fmt.Errorf("the attribute %q is required: give the suite a configuration", a.GetName())
		}
	}
	for _, b := range schema.GetBlocks() {
		if b.GetRequired() {
			return nil, fmt.Errorf("the block %q is required: give the suite a configuration", b.GetName())
		}
	}
	return json.Marshal(values)
}

func describe(ctx context.Context, p *Plugin, patience time.Duration) (*pluginv1.Description, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return pluginv1.NewPluginClient(p.Conn).Describe(ctx, &pluginv1.DescribeRequest{})
}
