package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
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

	// Offer serves something of the host's to the plugin, and returns the broker
	// id at which it is reached; until Close. It may be nil: adapters are not
	// verified then.
	Offer func(register func(grpc.ServiceRegistrar)) (uint32, error)

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
		p := &Plugin{Conn: local.Conn, Close: local.Close, Offer: local.Offer}
		if config != "" {
			p.Config = []byte(config)
		}
		return p, nil
	}
}

// Options change what a suite checks, and how patient it is.
type Options struct {
	// Only names the checks to make; empty: all. What they stand on is not made
	// with them. A name that no check of the plugin's kind has is an error.
	Only []string
	// Patience bounds every wait for what must happen. Default: 10 s.
	Patience time.Duration
	// Settle is the settle window. Contracts say what must not be decided, and
	// nobody can wait for that for ever: so a suite waits until the plugin has
	// acknowledged the last event that it was told, when it knows all that it
	// needs, and then until it was silent for a settle window. What it decides
	// wrongly later than that is still found if it is in the same scenario, and
	// is missed otherwise; right decisions are never taken for wrong ones,
	// however short the window.
	//
	// Default: ten times the longest that the plugin took to offer what was free
	// in the check called offers, 50 ms at least and 300 ms at most; 300 ms where
	// that check was not made.
	Settle time.Duration
	// Done is told of every check as soon as its scenario has run; violations
	// seen later may still fail it. May be nil.
	Done func(name string)
}

func (o Options) withDefaults() Options {
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	return o
}

const minSettle, maxSettle = 50 * time.Millisecond, 300 * time.Millisecond

// window is the settle window now.
func (s *suite) window() time.Duration {
	if s.options.Settle > 0 {
		return s.options.Settle
	}
	if s.reaction == 0 {
		return maxSettle
	}
	return max(minSettle, min(10*s.reaction, maxSettle))
}

// serves says whether the plugin describes a capability: an optional part of
// its kind's contract.
func (s *suite) serves(capability string) bool {
	return slices.Contains(s.description.GetCapabilities(), capability)
}

// Allocator runs the suites that an allocator must pass, each check a subtest.
func Allocator(t *testing.T, open Open) { test(t, plugin.Allocator, open) }

// Isolator runs the suites that an isolator must pass, each check a subtest.
func Isolator(t *testing.T, open Open) { test(t, plugin.Isolator, open) }

// Framework runs the suites that a framework adapter must pass, each check a
// subtest. An adapter serves once, so that each instance needs a definition of
// its own:
//
//	plugintest.Framework(t, func(ctx context.Context) (*plugintest.Plugin, error) {
//		return plugintest.Local(definition().Plugin(), `{"listen":"127.0.0.1:0"}`)(ctx)
//	})
func Framework(t *testing.T, open Open) { test(t, plugin.Framework, open) }

// testPatience is for machines that run other tests at the same time.
const testPatience = time.Minute

func test(t *testing.T, kind pluginv1.Kind, open Open) {
	t.Helper()
	report, err := verify(t.Context(), open, Options{Patience: testPatience}, kind)
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

// Checks are the checks of a kind, in their order, none made yet; those of every
// plugin are among them.
func Checks(kind pluginv1.Kind) []Check {
	var out []Check
	for _, r := range rulesOf(kind) {
		out = append(out, Check{Name: r.name, Rule: r.sentence})
	}
	return out
}

// rulesOf are the base suite's rules, and those of a kind.
func rulesOf(kind pluginv1.Kind) []rule {
	switch kind {
	case plugin.Allocator:
		return append(baseRules(), allocatorRules()...)
	case plugin.Isolator:
		return append(baseRules(), isolatorRules()...)
	case plugin.Framework:
		return append(baseRules(), frameworkRules()...)
	}
	return baseRules()
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
	if kind == pluginv1.Kind(-1) {
		kind = d.GetKind()
	}
	if err := s.plan(rulesOf(kind)); err != nil {
		return nil, err
	}
	if kind == plugin.Isolator || kind == plugin.Framework {
		if s.temp, err = os.MkdirTemp("", "mezzo-verify-"); err != nil {
			return nil, err
		}
		s.data = s.temp
		defer os.RemoveAll(s.temp)
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
	data        string // what Configure is told: kept across instances
	temp        string // of isolators and adapters: where files may be

	current   *Plugin // configured, and used by scenario after scenario
	sessions  uint64
	reaction  time.Duration // how long it took at most to decide something
	recovered *Plugin       // the isolator that was told what to recover
}

// plan takes up the rules that are to be checked. All have a verdict, so that
// what is seen of one in another's scenario has its place.
func (s *suite) plan(rules []rule) error {
	s.verdicts = map[string]*verdict{}
	for _, r := range rules {
		s.verdicts[r.name] = &verdict{Check: Check{Name: r.name, Rule: r.sentence, Outcome: Passed}, by: map[string][]string{}}
		if len(s.options.Only) == 0 || slices.Contains(s.options.Only, r.name) {
			s.rules = append(s.rules, r)
			s.order = append(s.order, r.name)
		}
	}
	for _, name := range s.options.Only {
		if s.verdicts[name] == nil {
			return &UnknownCheckError{Name: name, Known: slices.Sorted(maps.Keys(s.verdicts))}
		}
	}
	return nil
}

// UnknownCheckError says that Options.Only names a check that there is not.
type UnknownCheckError struct {
	Name  string
	Known []string
}

func (e *UnknownCheckError) Error() string {
	return fmt.Sprintf("there is no check %q for plugins of this kind; there are: %s", e.Name, strings.Join(e.Known, ", "))
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
	for _, name := range slices.Sorted(maps.Keys(s.verdicts)) {
		s.attribute(s.verdicts[name])
	}
	out := &Report{Kind: plugin.KindName(s.description.GetKind()), Name: s.description.GetName(), Version: s.description.GetVersion()}
	for _, name := range s.order {
		out.Checks = append(out.Checks, s.verdicts[name].Check)
	}
	return out
}

// owners are the scenarios whose check fails when another's rule is broken there
// and nowhere else: it is not the rule that the plugin does not know.
var owners = []string{checkSnapshot, checkConversions, checkSessionsBeside, checkSessions}

// attribute turns violations of a rule into its failure, by the evidence of one
// scenario: its own, or the first, or where only owners saw it, theirs.
func (s *suite) attribute(v *verdict) {
	if len(v.by) == 0 {
		return
	}
	where := ""
	for _, name := range append([]string{v.Name}, s.order...) {
		if v.by[name] != nil && (where == "" || slices.Contains(owners, where) && !slices.Contains(owners, name)) {
			where = name
		}
	}
	to, title := v, "in the scenario of "+where+":"
	if slices.Contains(owners, where) && v.Outcome != Failed || !slices.Contains(s.order, v.Name) {
		if to = s.verdicts[where]; !slices.Contains(s.order, where) {
			to = s.verdicts[s.order[0]] // of those that were made
		}
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

// violated notes that a rule was broken in a scenario: this, or what a part of
// it tries besides.
func (c *scenario) violated(name, where string, lines ...string) {
	v := c.suite.verdicts[name]
	if v == nil {
		v = c.verdict
	}
	if v.by[where] == nil {
		v.by[where] = lines
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
