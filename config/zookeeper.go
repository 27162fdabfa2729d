package config

import (
	"fmt"
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
	s, _ := d.content(block.Body, zookeeperSchema)
	s.zookeeper(&e.Servers, &e.Path, &e.SessionTimeout)
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
		r.Servers, r.Path, r.SessionTimeout = e.Servers, e.Path, e.SessionTimeout
	}
	s, _ := d.content(block.Body, zookeeperSchema)
	s.zookeeper(&r.Servers, &r.Path, &r.SessionTimeout)
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

var bboltSchema = schema([]string{"file"})

var zookeeperSchema = schema([]string{"servers", "path", "session_timeout"})

func (s scope) zookeeper(servers *[]string, path *string, session *time.Duration) {
	var list []string
	if places, ok := s.texts("servers", &list); ok {
		*servers = list
		if len(list) == 0 {
			s.d.add(invalid(s.attrs["servers"].Expr.Range(), "No servers", "servers must name at least one ZooKeeper server."))
		}
		for i, server := range list {
			if err := checkAddress(server, false); err != nil {
				s.d.add(invalid(places[i], "Bad address", "In servers: %s.", err))
			}
		}
	}
	if rng, ok := s.text("path", path); ok {
		if err := checkNode(*path); err != nil {
			s.d.add(invalid(rng, "Bad path", "In path: %s.", err))
		}
	}
	s.duration("session_timeout", session, time.Second)
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
