package plugintest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// shutdownGrace is how long a host waits for a plugin to end.
const shutdownGrace = 5 * time.Second

// baseRules are what every plugin must keep.
func baseRules() []rule {
	return []rule{
		{"describe", "Describe says name, version, kind and contract versions, before Configure, and the same again.", playDescribe},
		{"schema", "The schema has names that HCL can write, known types, and defaults that fit them.", playSchema},
		{"validate-only", "Configure with validate_only accepts the configuration, and has no effect that is seen.", playValidateOnly},
		{"configure", "Configure accepts the configuration.", playConfigure},
		{"rejects", "Configure rejects what is no configuration, values of a wrong type, and contract versions that it does not serve.", playRejects},
		{"serves", "It serves the contract of the kind that it says it is of.", playServes},
		{"health", "Health tells a state at once: healthy, or another and why.", playHealth},
		{"ping", "Ping is answered at once, before and after Configure, and many times.", playPing},
		{"metrics", "Metrics, where they are served, keep the contract's names and bounds, come at once, and at every call have the same families; what is counted never goes back.", playMetrics},
		{"shutdown", "Shutdown is answered, and the process ends within 5 seconds.", playShutdown},
		{"host-death", "The process ends by itself when its host is gone.", playHostDeath},
	}
}

func playDescribe(c *scenario) {
	client := pluginv1.NewPluginClient(c.fresh().Conn)
	d, err := client.Describe(c.call(), &pluginv1.DescribeRequest{})
	if err != nil {
		c.failf("Describe failed: %v", err)
	}
	again, err := client.Describe(c.call(), &pluginv1.DescribeRequest{})
	switch {
	case err != nil:
		c.failf("the second Describe failed: %v", err)
	case !proto.Equal(d, again):
		c.failf("the first Describe said: %v\nthe second: %v", d, again)
	case !plugin.ValidName(d.GetName()):
		c.failf("its name is %q; want %s", d.GetName(), plugin.NameForm)
	case d.GetVersion() == "":
		c.failf("it has no version")
	case plugin.KindName(d.GetKind()) == "unknown":
		c.failf("its kind is %v; want allocator, isolator or framework", d.GetKind())
	case len(d.GetContractVersions()) == 0 || slices.Contains(d.GetContractVersions(), 0):
		c.failf("its contract versions are %v; want at least one, each at least 1", d.GetContractVersions())
	case d.GetSchema() == nil:
		c.failf("it has no schema; one that is empty says that there are no settings")
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

func playSchema(c *scenario) {
	if problems := schemaProblems(c.suite.description.GetSchema(), ""); len(problems) > 0 {
		c.verdict.fail(problems...)
	}
}

// schemaProblems finds what a host could not use.
func schemaProblems(s *pluginv1.Schema, path string) (out []string) {
	add := func(name, format string, args ...any) {
		out = append(out, path+name+": "+fmt.Sprintf(format, args...))
	}
	seen := map[string]bool{}
	name := func(n string) {
		switch {
		case !identifier.MatchString(n):
			add(n, "%q is no name that HCL can write", n)
		case seen[n]:
			add(n, "stands twice in the schema")
		}
		seen[n] = true
	}
	for _, a := range s.GetAttributes() {
		name(a.GetName())
		if _, known := pluginv1.Type_name[int32(a.GetType())]; !known || a.GetType() == pluginv1.Type_TYPE_UNSPECIFIED {
			add(a.GetName(), "has no type that is known (%v)", a.GetType())
			continue
		}
		if a.GetRequired() && a.GetDefaultJson() != "" {
			add(a.GetName(), "is required and has a default: one of them means nothing")
		}
		if a.GetSecret() && a.GetDefaultJson() != "" {
			add(a.GetName(), "is a secret with a default, which everybody may read")
		}
		if text := a.GetDefaultJson(); text != "" && !fits(text, a.GetType()) {
			add(a.GetName(), "its default %s is no %v", text, a.GetType())
		}
	}
	for _, b := range s.GetBlocks() {
		name(b.GetName())
		if b.GetSchema() == nil {
			add(b.GetName(), "is a block without a schema")
		}
		if b.GetLabel() != "" && !identifier.MatchString(b.GetLabel()) {
			add(b.GetName(), "its label %q is no name", b.GetLabel())
		}
		out = append(out, schemaProblems(b.GetSchema(), path+b.GetName()+".")...)
	}
	return out
}

// fits says whether a JSON text is a value of the type.
func fits(text string, typ pluginv1.Type) bool {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	var v any
	if decoder.Decode(&v) != nil || decoder.More() {
		return false
	}
	allStrings := func(list []any) bool {
		return !slices.ContainsFunc(list, func(x any) bool { _, ok := x.(string); return !ok })
	}
	switch typ {
	case pluginv1.Type_TYPE_STRING:
		_, ok := v.(string)
		return ok
	case pluginv1.Type_TYPE_BOOL:
		_, ok := v.(bool)
		return ok
	case pluginv1.Type_TYPE_INT, pluginv1.Type_TYPE_DURATION, pluginv1.Type_TYPE_SIZE:
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		_, err := n.Int64()
		return err == nil
	case pluginv1.Type_TYPE_NUMBER:
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		f, err := n.Float64()
		return err == nil && !math.IsInf(f, 0)
	case pluginv1.Type_TYPE_STRING_LIST:
		list, ok := v.([]any)
		return ok && allStrings(list)
	case pluginv1.Type_TYPE_STRING_MAP:
		m, ok := v.(map[string]any)
		if !ok {
			return false
		}
		var list []any
		for _, x := range m {
			list = append(list, x)
		}
		return allStrings(list)
	}
	return false
}

func playValidateOnly(c *scenario) {
	p := c.fresh()
	config, err := c.suite.config(p)
	if err != nil {
		c.skipf("%v", err)
	}
	client := pluginv1.NewPluginClient(p.Conn)
	for range 2 { // no effect: the second is as the first
		answer, err := client.Configure(c.call(), &pluginv1.ConfigureRequest{Config: config, ContractVersion: max(1, p.ContractVersion), ValidateOnly: true})
		if err != nil {
			c.failf("Configure with validate_only failed: %v\nthe configuration: %s", err, config)
		}
		if err := failed(answer.GetDiagnostics()); err != nil {
			c.failf("it rejects the configuration %s:\n%v", config, err)
		}
	}
	if _, err := client.Describe(c.call(), &pluginv1.DescribeRequest{}); err != nil {
		c.failf("after validate_only, Describe failed: %v", err)
	}
}

func playConfigure(c *scenario) {
	if err := c.suite.configure(c.call(), c.fresh()); err != nil {
		c.failf("%v", err)
	}
}

// playRejects gives what a host never gives: a plugin that accepts it would run
// with settings that nobody wrote.
func playRejects(c *scenario) {
	client := pluginv1.NewPluginClient(c.fresh().Conn)
	accepted := func(config string, version uint32) bool {
		answer, err := client.Configure(c.call(), &pluginv1.ConfigureRequest{Config: []byte(config), ContractVersion: version, ValidateOnly: true})
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded:
			c.failf("Configure with %q for contract version %d: %v", config, version, err)
		}
		return err == nil && failed(answer.GetDiagnostics()) == nil
	}
	config, err := c.suite.config(&Plugin{})
	if err != nil {
		config = []byte("{}")
	}
	if version := slices.Max(append([]uint32{1}, c.suite.description.GetContractVersions()...)) + 1000; accepted(string(config), version) {
		c.failf("it serves the contract versions %v, and accepts a configuration for version %d", c.suite.description.GetContractVersions(), version)
	}
	version := slices.Min(append([]uint32{1 << 31}, c.suite.description.GetContractVersions()...))
	schema := c.suite.description.GetSchema()
	if len(schema.GetAttributes())+len(schema.GetBlocks()) == 0 {
		return // there is nothing that it could read
	}
	for _, text := range []string{"{", "[]", `"words"`} {
		if accepted(text, version) {
			c.failf("Configure accepts %s, which is no configuration", text)
		}
	}
	for _, a := range schema.GetAttributes() {
		values := map[string]json.RawMessage{}
		if json.Unmarshal(config, &values) != nil {
			return
		}
		values[a.GetName()] = json.RawMessage(`{"not": ["a", "value"]}`)
		text, err := json.Marshal(values)
		if err != nil {
			c.failf("write a configuration: %v", err)
		}
		if accepted(string(text), version) {
			c.failf("Configure accepts %s, in which %s is no %v", text, a.GetName(), a.GetType())
		}
	}
}

func playServes(c *scenario) {
	err := c.use(c.ready())
	if status.Code(err) == codes.Unimplemented {
		c.failf("it says that it is an %s, and does not serve that contract: %v", plugin.KindName(c.suite.description.GetKind()), err)
	}
}

// use makes a first call of the kind's contract, with nothing in it.
func (c *scenario) use(p *Plugin) (err error) {
	switch c.suite.description.GetKind() {
	case plugin.Allocator:
		var stream grpc.BidiStreamingClient[allocatorv1.FromCore, allocatorv1.FromAllocator]
		if stream, err = allocatorv1.NewAllocatorClient(p.Conn).Allocate(c.call()); err == nil {
			_ = stream.CloseSend() // Recv says what became of it
			_, err = stream.Recv()
		}
	case plugin.Isolator:
		_, err = isolatorv1.NewIsolatorClient(p.Conn).Recover(c.call(), &isolatorv1.RecoverRequest{})
	case plugin.Framework:
		_, err = frameworkv1.NewFrameworkClient(p.Conn).Serve(c.call(), &frameworkv1.ServeRequest{})
	}
	return err
}

// ready is a configured instance of the scenario's own.
func (c *scenario) ready() *Plugin {
	p := c.fresh()
	if err := c.suite.configure(c.call(), p); err != nil {
		c.skipf("the plugin is not configured: %v", err)
	}
	return p
}

func playHealth(c *scenario) {
	p := c.ready()
	stream, err := pluginv1.NewPluginClient(p.Conn).Health(c.call(), &pluginv1.HealthRequest{})
	if err != nil {
		c.failf("Health failed: %v", err)
	}
	h, err := stream.Recv()
	switch {
	case err != nil:
		c.failf("Health told nothing: %v", err)
	case h.GetState() < pluginv1.HealthStatus_STATE_HEALTHY || h.GetState() > pluginv1.HealthStatus_STATE_UNHEALTHY:
		c.failf("the state is %v", h.GetState())
	case h.GetState() != pluginv1.HealthStatus_STATE_HEALTHY && h.GetMessage() == "":
		c.failf("the state is %v, and nothing says why", h.GetState())
	}
}

func playPing(c *scenario) {
	p := c.fresh()
	client := pluginv1.NewPluginClient(p.Conn)
	ping := func(when string) {
		for range 20 {
			began := time.Now()
			if _, err := client.Ping(c.call(), &pluginv1.PingRequest{}); err != nil {
				c.failf("%s Configure: %v", when, err)
			}
			if took := time.Since(began); took > 2*time.Second {
				c.failf("%s Configure: an answer took %v", when, took)
			}
		}
	}
	ping("before")
	if err := c.suite.configure(c.call(), p); err != nil {
		c.skipf("the plugin is not configured: %v", err)
	}
	ping("after")
}

func playShutdown(c *scenario) {
	p := c.ready()
	if _, err := pluginv1.NewPluginClient(p.Conn).Shutdown(c.call(), &pluginv1.ShutdownRequest{}); err != nil && status.Code(err) != codes.Unavailable {
		c.failf("Shutdown failed: %v", err)
	}
	if p.Exited == nil {
		return
	}
	select {
	case <-p.Exited:
	case <-time.After(shutdownGrace):
		c.failf("the process runs on %v after Shutdown; a host would kill it", shutdownGrace)
	}
}

func playHostDeath(c *scenario) {
	p := c.ready()
	if p.LoseHost == nil {
		c.skipf("the plugin is served in the test's process")
	}
	p.LoseHost()
	select {
	case <-p.Exited:
	case <-time.After(shutdownGrace):
		c.failf("the pipe that MEZZO_PLUGIN_HOST_FD names has ended, and %v later the process runs on", shutdownGrace)
	}
}
