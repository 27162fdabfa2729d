package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// base is what stands at the top of a file, for every process.
type base struct {
	dataDir, pluginDir string
	insecure           bool
	logLevel           string
	logJSON            bool
}

// listener is an address and where it was written.
type listener struct {
	name, address string
	rng           hcl.Range
}

// masterBlock holds the values of the master block over their defaults.
type masterBlock struct {
	Master
	written    bool
	rng        hcl.Range
	listeners  []listener
	frameworks []Plugin
}

// agentBlock holds the values of the agent block over their defaults.
type agentBlock struct {
	Agent
	written    bool
	rng        hcl.Range
	listeners  []listener
	frameworks []Plugin
}

var logLevels = []string{"trace", "debug", "info", "warn", "error"}

var rootSchema = schema(topAttributes,
	"master", "agent", "tls", "authorization", "telemetry", "election *", "registry *", "role *",
	"allocator *", "isolator *", "framework *")

// decode reads the whole of a configuration.
func (f *File) decode(d *decoder, body hcl.Body) {
	s, blocks := d.content(body, rootSchema)
	f.base.logLevel = "info"
	s.path("data_dir", &f.base.dataDir)
	s.path("plugin_dir", &f.base.pluginDir)
	s.oneOf("log_level", &f.base.logLevel, logLevels...)
	s.flag("log_json", &f.base.logJSON)
	s.flag("insecure", &f.base.insecure)

	f.master.Master = defaultMaster()
	if block := d.single(blocks, "master"); block != nil {
		f.master.decode(d, block)
	}
	f.agent.Agent = defaultAgent()
	if block := d.single(blocks, "agent"); block != nil {
		f.agent.decode(d, block)
	}
	if block := d.single(blocks, "tls"); block != nil {
		f.explicitTLS = d.tls(block)
	}
	if block := d.single(blocks, "authorization"); block != nil {
		f.authorization = d.authorization(block)
	}
	if block := d.single(blocks, "telemetry"); block != nil {
		f.tracing = d.telemetry(block)
	}
	f.election = d.election(blocks)
	f.registry = d.registry(blocks, f.election)
	f.roles = d.roles(blocks)
	f.allocator = d.allocator(blocks)
	f.isolators = d.plugins(blocks, KindIsolator)
	f.frameworks = d.plugins(blocks, KindFramework)
	d.distinct(f.frameworks, f.master.frameworks)
	d.distinct(f.frameworks, f.agent.frameworks)
}

func defaultMaster() Master {
	return Master{
		RPC:                    "127.0.0.1:5061",
		HTTP:                   "127.0.0.1:5060",
		OfferTimeout:           5 * time.Minute,
		BatchInterval:          5 * time.Millisecond,
		MinRefuse:              time.Second,
		MaxDecisionsPerSecond:  1_000_000,
		MinAllocatable:         []string{"cpus:0.01", "mem:32"},
		FilterGPUResources:     true,
		AgentPingInterval:      15 * time.Second,
		AgentPingTimeouts:      5,
		AgentReregisterTimeout: 10 * time.Minute,
		MaxCompletedFrameworks: 50,
		MaxCompletedTasks:      1000,
		MaxUnreachableTasks:    1000,
		MaxAwayAgents:          102_400,
		AgentForgetAfter:       14 * 24 * time.Hour,
		Revocation:             Revocation{MinGrace: 10 * time.Second, MaxPerMinute: 60},
	}
}

var masterSchema = schema(masterAttributes, "revocation", "domain", "framework *")

var domainSchema = schema(domainAttributes)

var revocationSchema = schema(revocationAttributes)

func (m *masterBlock) decode(d *decoder, block *hcl.Block) {
	m.written, m.rng = true, block.DefRange
	s, blocks := d.content(block.Body, masterSchema)
	m.listeners = s.listeners(&m.RPC, &m.HTTP)
	s.flag("insecure", &m.Insecure)
	s.text("hostname", &m.Hostname)
	s.duration("offer_timeout", &m.OfferTimeout, 0)
	s.duration("batch_interval", &m.BatchInterval, 0)
	s.duration("min_refuse", &m.MinRefuse, 0)
	s.count("max_decisions_per_second", &m.MaxDecisionsPerSecond, 1)
	s.quantities("min_allocatable", &m.MinAllocatable)
	s.flag("filter_gpu_resources", &m.FilterGPUResources)
	s.duration("agent_ping_interval", &m.AgentPingInterval, time.Millisecond)
	s.count("agent_ping_timeouts", &m.AgentPingTimeouts, 1)
	s.duration("agent_reregister_timeout", &m.AgentReregisterTimeout, time.Millisecond)
	s.count("agent_removals_per_minute", &m.AgentRemovalsPerMinute, 0)
	s.duration("agent_forget_after", &m.AgentForgetAfter, time.Minute)
	s.count("max_away_agents", &m.MaxAwayAgents, 1)
	s.count("max_completed_frameworks", &m.MaxCompletedFrameworks, 0)
	s.count("max_completed_tasks", &m.MaxCompletedTasks, 0)
	s.count("max_unreachable_tasks", &m.MaxUnreachableTasks, 1)
	m.frameworks = d.plugins(blocks, KindFramework)
	if block := d.single(blocks, "revocation"); block != nil {
		s, _ := d.content(block.Body, revocationSchema)
		s.flag("enabled", &m.Revocation.Enabled)
		s.duration("min_grace", &m.Revocation.MinGrace, 0)
		s.count("max_per_minute", &m.Revocation.MaxPerMinute, 0)
	}
	d.domain(blocks, &m.Domain)
}

// domain reads where a machine is.
func (d *decoder) domain(blocks hcl.Blocks, to *Domain) {
	block := d.single(blocks, "domain")
	if block == nil {
		return
	}
	s, _ := d.content(block.Body, domainSchema)
	for _, part := range []struct {
		name string
		to   *string
	}{{"region", &to.Region}, {"zone", &to.Zone}} {
		rng, written := s.text(part.name, part.to)
		switch {
		case s.attrs[part.name] == nil:
			d.add(invalid(block.DefRange, "Incomplete domain", "A domain has a region and a zone; this one has no %s.", part.name))
		case written && strings.TrimSpace(*part.to) == "":
			d.add(invalid(rng, "Incomplete domain", "The %s is empty.", part.name))
		}
	}
}

// listeners reads rpc and http and gives those that were written.
func (s scope) listeners(rpc, http *string) (written []listener) {
	if rng, ok := s.address("rpc", rpc); ok {
		written = append(written, listener{"rpc", *rpc, rng})
	}
	if rng, ok := s.address("http", http); ok {
		written = append(written, listener{"http", *http, rng})
	}
	return written
}

func defaultAgent() Agent {
	return Agent{
		Masters:                       []string{"127.0.0.1:5061"},
		RPC:                           "127.0.0.1:5063",
		HTTP:                          "127.0.0.1:5062",
		RegistrationBackoff:           time.Second,
		PingTimeout:                   75 * time.Second,
		ReconfigurationPolicy:         "additive",
		ExecutorRegistrationTimeout:   time.Minute,
		ExecutorReregistrationTimeout: 10 * time.Second,
		ExecutorShutdownGrace:         5 * time.Second,
		RecoveryTimeout:               15 * time.Minute,
		LogSize:                       10 << 20,
		LogFiles:                      5,
		GCDelay:                       7 * 24 * time.Hour,
		GCDiskHeadroom:                0.1,
		GCInterval:                    time.Minute,
		DiskWatchInterval:             15 * time.Second,
		Fetcher:                       Fetcher{CacheSize: 2 << 30, MaxSize: 64 << 30, StallTimeout: time.Minute},
	}
}

var agentSchema = schema(agentAttributes, "fetcher", "secrets", "domain", "framework *")

var secretsSchema = schema(secretsAttributes)

var fetcherSchema = schema(fetcherAttributes)

func (a *agentBlock) decode(d *decoder, block *hcl.Block) {
	a.written, a.rng = true, block.DefRange
	s, blocks := d.content(block.Body, agentSchema)
	a.listeners = s.listeners(&a.RPC, &a.HTTP)
	s.flag("insecure", &a.Insecure)
	s.masters(&a.Masters, &a.MastersRange)
	s.text("hostname", &a.Hostname)
	s.path("work_dir", &a.WorkDir)
	s.resources("resources", &a.Resources, checkAgentResources)
	s.attributes(&a.Attributes)
	s.duration("registration_backoff", &a.RegistrationBackoff, time.Millisecond)
	s.duration("ping_timeout", &a.PingTimeout, time.Millisecond)
	s.oneOf("reconfiguration_policy", &a.ReconfigurationPolicy, "additive", "equal", "any")
	s.duration("executor_registration_timeout", &a.ExecutorRegistrationTimeout, time.Millisecond)
	s.duration("executor_reregistration_timeout", &a.ExecutorReregistrationTimeout, time.Millisecond)
	s.duration("executor_shutdown_grace", &a.ExecutorShutdownGrace, time.Millisecond)
	s.duration("recovery_timeout", &a.RecoveryTimeout, time.Millisecond)
	s.size("log_size", &a.LogSize, 4096)
	s.count("log_files", &a.LogFiles, 1)
	s.duration("gc_delay", &a.GCDelay, 0)
	s.number("gc_disk_headroom", &a.GCDiskHeadroom, func(n float64) bool { return n >= 0 && n <= 1 }, "from 0 to 1")
	s.duration("gc_interval", &a.GCInterval, time.Second)
	s.duration("disk_watch_interval", &a.DiskWatchInterval, time.Second)
	s.flag("enforce_disk", &a.EnforceDisk)
	if block := d.single(blocks, "fetcher"); block != nil {
		s, _ := d.content(block.Body, fetcherSchema)
		s.size("cache_size", &a.Fetcher.CacheSize, 0)
		s.size("max_size", &a.Fetcher.MaxSize, 1)
		s.duration("stall_timeout", &a.Fetcher.StallTimeout, time.Millisecond)
	}
	if block := d.single(blocks, "secrets"); block != nil {
		s, _ := d.content(block.Body, secretsSchema)
		s.path("dir", &a.Secrets.Dir)
	}
	d.domain(blocks, &a.Domain)
	a.frameworks = d.plugins(blocks, KindFramework)
}

// masters reads the masters of an agent.
func (s scope) masters(to *[]string, rng *hcl.Range) {
	var list []string
	places, ok := s.texts("masters", &list)
	if !ok {
		return
	}
	if len(list) == 0 {
		s.d.add(invalid(s.attrs["masters"].Expr.Range(), "No masters", "masters must name at least one master."))
		return
	}
	for i, text := range list {
		err := checkMaster(text, len(list))
		if err != nil {
			s.d.add(invalid(places[i], "Bad address", "In masters: %s.", err))
			ok = false
		}
	}
	if ok {
		*to, *rng = list, s.attrs["masters"].Expr.Range()
	}
}

// checkMaster complains about what is neither host:port nor zk://….
func checkMaster(text string, of int) error {
	if !strings.Contains(text, "://") {
		return checkAddress(text, false)
	}
	if IsZooKeeper(text) && of > 1 {
		return fmt.Errorf("an address of ZooKeeper must stand alone: it finds the leader by itself")
	}
	_, err := ParseZooKeeper(text)
	return err
}

var attributeName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func (s scope) attributes(to *[]AgentAttribute) {
	value, rng, ok := s.value("attributes", cty.Map(cty.String))
	if !ok {
		return
	}
	for it := value.ElementIterator(); it.Next(); { // in order of the keys
		key, element := it.Element()
		switch name := key.AsString(); {
		case !attributeName.MatchString(name):
			s.d.add(invalid(rng, "Bad attribute", "The attribute name %q must be letters, digits, '_', '-' and '.'.", name))
		case element.IsNull():
			s.d.add(invalid(rng, "Bad attribute", "The attribute %s is null; it must be a string.", name))
		default:
			*to = append(*to, AgentAttribute{name, element.AsString()})
		}
	}
}

var tlsSchema = schema(tlsAttributes)

func (d *decoder) tls(block *hcl.Block) *TLS {
	s, _ := d.content(block.Body, tlsSchema)
	t := &TLS{DefRange: block.DefRange}
	s.path("ca", &t.CA)
	s.path("cert", &t.Cert)
	s.path("key", &t.Key)
	return t
}

// labelled gives the blocks of a type whose label is one of the words, when
// words are given, and complains about the others.
func (d *decoder) labelled(blocks hcl.Blocks, kind string, words ...string) (good hcl.Blocks) {
	for _, block := range blocks {
		switch {
		case block.Type != kind:
		case len(words) > 0 && !slices.Contains(words, block.Labels[0]):
			d.add(invalid(block.LabelRanges[0], "Unknown "+kind, "%q is not known; it must be one of %s.%s",
				block.Labels[0], strings.Join(words, ", "), suggest(block.Labels[0], words)))
		default:
			good = append(good, block)
		}
	}
	return good
}
