package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

const (
	standalone = "standalone"
	zookeeper  = "zookeeper"
	bbolt      = "bbolt"

	defaultNode           = "/mezzo"
	defaultSessionTimeout = 10 * time.Second
)

// election reads the election block; nil when none is written.
func (d *decoder) election(blocks hcl.Blocks) *Election {
	block := d.single(d.labelled(blocks, "election", standalone, zookeeper), "election")
	if block == nil {
		return nil
	}
	e := &Election{Kind: block.Labels[0], DefRange: block.DefRange}
	if e.Kind == standalone {
		d.content(block.Body, schema(nil))
		return e
	}
	e.Path, e.SessionTimeout = defaultNode, defaultSessionTimeout
	s, blocks := d.content(block.Body, zookeeperSchema)
	s.zookeeper(blocks, zookeeperValues{&e.Servers, &e.Path, &e.SessionTimeout, &e.Auth, &e.TLS})
	if s.attrs["servers"] == nil {
		d.add(missing(block, "servers"))
	}
	return e
}

// registry reads the registry block; nil when none is written. A zookeeper
// registry takes from the election what it does not say itself.
func (d *decoder) registry(blocks hcl.Blocks, e *Election) *Registry {
	block := d.single(d.labelled(blocks, "registry", bbolt, zookeeper), "registry")
	several := e != nil && e.Kind == zookeeper
	if block == nil {
		if several {
			d.add(unshared(e.DefRange))
		}
		return nil
	}
	r := &Registry{Kind: block.Labels[0], DefRange: block.DefRange}
	if r.Kind == bbolt {
		s, _ := d.content(block.Body, bboltSchema)
		s.path("file", &r.File)
		if several {
			d.add(unshared(block.DefRange))
		}
		return r
	}
	r.Path, r.SessionTimeout = defaultNode, defaultSessionTimeout
	if several {
		r.Servers, r.Path, r.SessionTimeout, r.Auth, r.TLS = e.Servers, e.Path, e.SessionTimeout, e.Auth, e.TLS
	}
	s, blocks := d.content(block.Body, zookeeperSchema)
	s.zookeeper(blocks, zookeeperValues{&r.Servers, &r.Path, &r.SessionTimeout, &r.Auth, &r.TLS})
	if s.attrs["servers"] == nil && !several {
		d.add(missing(block, "servers"))
	}
	return r
}

// unshared is the error of masters that elect a leader but keep a registry each:
// the next leader would not know what the last one had promised.
func unshared(rng hcl.Range) *hcl.Diagnostic {
	return invalid(rng, "Registry not shared",
		`With election "zookeeper" every master must see the same registry. Write registry "zookeeper" {}, which takes the election's servers.`)
}

func missing(block *hcl.Block, name string) *hcl.Diagnostic {
	return invalid(block.Body.MissingItemRange(), "Missing required argument",
		"The argument %q is required in %s %q, but no definition was found.", name, block.Type, block.Labels[0])
}

var bboltSchema = schema(bboltAttributes)

var zookeeperSchema = schema(zookeeperAttributes, "tls")

var zookeeperTLSSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "ca", Required: true}, {Name: "cert"}, {Name: "key"},
}}

// zookeeperValues are where the values of a block go.
type zookeeperValues struct {
	servers *[]string
	path    *string
	session *time.Duration
	auth    *string
	tls     **ZooKeeperTLS
}

func (s scope) zookeeper(blocks hcl.Blocks, to zookeeperValues) {
	var list []string
	if places, ok := s.texts("servers", &list); ok {
		*to.servers = list
		if len(list) == 0 {
			s.d.add(invalid(s.attrs["servers"].Expr.Range(), "No servers", "servers must name at least one ZooKeeper server."))
		}
		for i, server := range list {
			if err := checkAddress(server, false); err != nil {
				s.d.add(invalid(places[i], "Bad address", "In servers: %s.", err))
			}
		}
	}
	if rng, ok := s.text("path", to.path); ok {
		if err := checkNode(*to.path); err != nil {
			s.d.add(invalid(rng, "Bad path", "In path: %s.", err))
		}
	}
	s.duration("session_timeout", to.session, time.Second)
	if rng, ok := s.text("auth", to.auth); ok {
		*to.auth = strings.TrimSpace(*to.auth) // of a file, the last line ends
		if user, password, both := strings.Cut(*to.auth, ":"); !both || user == "" || password == "" {
			s.d.add(invalid(rng, "Bad credentials", `auth must be "user:password"; env("NAME") and file("path") keep it out of this file.`))
		}
	}
	block := s.d.single(blocks, "tls")
	if block == nil {
		return
	}
	t, _ := s.d.content(block.Body, zookeeperTLSSchema)
	files := &ZooKeeperTLS{DefRange: block.DefRange}
	t.path("ca", &files.CA)
	t.path("cert", &files.Cert)
	t.path("key", &files.Key)
	if (files.Cert == "") != (files.Key == "") {
		s.d.add(invalid(block.DefRange, "Incomplete TLS files", "cert and key go together: write both, or neither."))
	}
	*to.tls = files
}

// ZooKeeperAddress is where an ensemble keeps a cluster's leader.
type ZooKeeperAddress struct {
	Servers []string // host:port each
	Path    string   // "/mezzo"
	Auth    string   // "user:password"; empty: none
	TLS     bool
}

// IsZooKeeper is whether an address of masters is of the form that
// ParseZooKeeper takes.
func IsZooKeeper(text string) bool {
	return strings.HasPrefix(text, "zk://") || strings.HasPrefix(text, "zks://")
}

// WithoutCredentials are masters as they may be shown.
func WithoutCredentials(masters []string) []string {
	out := slices.Clone(masters)
	for i, text := range out {
		if !IsZooKeeper(text) {
			continue
		}
		scheme, rest, _ := strings.Cut(text, "://")
		out[i] = scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
	}
	return out
}

// ParseZooKeeper reads "zk://[user:password@]host:port,…/path", or "zks://…" for
// TLS.
func ParseZooKeeper(text string) (a ZooKeeperAddress, err error) {
	rest, plain := strings.CutPrefix(text, "zk://")
	if !plain {
		if rest, a.TLS = strings.CutPrefix(text, "zks://"); !a.TLS {
			return a, fmt.Errorf(`%q is neither host:port nor "zk://host:port,…/path"`, text)
		}
	}
	// Not net/url, which takes a list of hosts for one host with a bad port.
	hosts, path, ok := strings.Cut(rest, "/")
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		// The password may have slashes.
		a.Auth = rest[:at]
		hosts, path, ok = strings.Cut(rest[at+1:], "/")
		if user, password, both := strings.Cut(a.Auth, ":"); !both || user == "" || password == "" {
			return a, fmt.Errorf(`the address of ZooKeeper at %q has credentials that are not "user:password"`, hosts)
		}
	}
	if !ok || path == "" {
		return a, fmt.Errorf(`the address of ZooKeeper at %q names no path; write "zk://host:port,…/path"`, hosts)
	}
	a.Servers, a.Path = strings.Split(hosts, ","), "/"+path
	for _, host := range a.Servers {
		if err := checkAddress(host, false); err != nil {
			return a, err
		}
	}
	return a, checkNode(a.Path)
}

// checkNode complains about what is not the path of a ZooKeeper node below the
// root.
func checkNode(path string) error {
	if len(path) < 2 || path[0] != '/' {
		return fmt.Errorf(`%q is not the path of a ZooKeeper node; write one such as "/mezzo"`, path)
	}
	for part := range strings.SplitSeq(path[1:], "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf(`%q is not the path of a ZooKeeper node: its parts must not be empty, "." or ".."`, path)
		}
	}
	return nil
}
