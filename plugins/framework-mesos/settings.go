package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/znode"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// settings are the adapter's configuration.
type settings struct {
	Listen   string `hcl:"listen" help:"Where it listens, host:port; port 0 takes a free port, and the same one ever after. By default 127.0.0.1:5050 at a master, 127.0.0.1:5051 at an agent."`
	Hostname string `hcl:"hostname" help:"The name or address under which clients reach it: they are sent there by a standby, and executors and offers name it. By default the address of listen, or the machine's where that is all interfaces."`
	Insecure bool   `hcl:"insecure" default:"false" help:"Whether it may listen elsewhere than on loopback without TLS, or for clients that are not recognised: whoever reaches it can run commands on the cluster."`
	Cluster  string `hcl:"cluster" help:"A name of the cluster, for tools that show one."`

	ZK string `hcl:"zk" secret:"true" help:"At a master: where in ZooKeeper Mesos's clients find the leader, zk://[user:password@]host:port,…/path. A node json.info_… is there while this master leads. The path must be its own, with nothing else below it."`

	Authenticate []string     `hcl:"authenticate" help:"What credentials are asked for: readonly and readwrite (tools), scheduler, and executor: the token that the agent has given each executor, for which no credential is needed. Write it where all executors send it. By default readonly, readwrite and scheduler where there is a credential, else nothing."`
	Credentials  []credential `hcl:"credential,block" help:"Somebody who is recognised (HTTP basic authentication); the label is the principal."`
	TLS          *tlsFiles    `hcl:"tls,block" help:"HTTPS instead of HTTP."`
	Limits       limits       `hcl:"limits,block" help:"What clients can take."`
}

// credential is somebody who is recognised (HTTP basic authentication).
type credential struct {
	Name     string `hcl:"name,label" help:"The principal."`
	Password string `hcl:"password" required:"true" secret:"true" help:"The password of the principal."`
}

type tlsFiles struct {
	Cert string `hcl:"cert" required:"true" help:"The file of the certificate, PEM. Of this and the other files the whole path."`
	Key  string `hcl:"key" required:"true" help:"The file of its key, PEM."`
	CA   string `hcl:"ca" help:"The file of an authority, PEM: clients must show a certificate of it."`
}

type limits struct {
	Connections    int           `hcl:"connections" default:"20000" help:"How many connections may be open; what comes beyond is closed."`
	Body           plugin.Size   `hcl:"body" default:"32MiB" help:"The largest body of a request."`
	Bodies         plugin.Size   `hcl:"bodies" default:"256MiB" help:"The bodies that are held at one time, together."`
	Queue          plugin.Size   `hcl:"queue" default:"8MiB" help:"What may wait for one subscriber to the events of the cluster; one that is slower is cut off."`
	Streams        int           `hcl:"streams" default:"4" help:"How many streams one framework may have open."`
	Subscribers    int           `hcl:"subscribers" default:"1000" help:"How many clients may be subscribed to the events of the cluster."`
	HeaderTimeout  time.Duration `hcl:"header_timeout" default:"10s" help:"How long the head of a request may take."`
	RequestTimeout time.Duration `hcl:"request_timeout" default:"1m" help:"How long the body of a request may take."`
	IdleTimeout    time.Duration `hcl:"idle_timeout" default:"5m" help:"How long a connection may be idle."`
	WriteTimeout   time.Duration `hcl:"write_timeout" default:"30s" help:"For how long a client may take nothing of what is written to it."`
}

// realms are what authenticate may name.
var realms = map[string]transport.Realm{
	"readonly": transport.ReadOnly, "readwrite": transport.ReadWrite, "scheduler": transport.Scheduler, "executor": transport.Executor,
}

// executorRealm is the one that needs no credential: an agent gives its executors
// tokens.
const executorRealm = "executor"

// defaultRealms are asked for when there are credentials. Executors of which
// nothing is known may not know what to do with a token.
var defaultRealms = []string{"readonly", "readwrite", "scheduler"}

// Validate implements plugin.Validator.
func (s *settings) Validate() (out []plugin.Diagnostic) {
	out = append(out, s.checkAddress()...)
	if s.ZK != "" {
		if _, err := znode.Parse(s.ZK); err != nil {
			out = append(out, plugin.Errorf("Bad address of ZooKeeper", "zk", "In zk: %s.", err))
		}
	}
	seen := map[string]bool{}
	for i, c := range s.Credentials {
		if c.Name == "" || c.Password == "" || seen[c.Name] {
			out = append(out, plugin.Errorf("Bad credential", fmt.Sprintf("credential.%d", i), "Each credential needs a name of its own and a password."))
		}
		seen[c.Name] = true
	}
	for i, r := range s.Authenticate {
		path := fmt.Sprintf("authenticate.%d", i)
		if _, known := realms[r]; !known {
			out = append(out, plugin.Errorf("Unknown realm", path, "%q is none of readonly, readwrite, scheduler, executor.", r))
		} else if len(s.Credentials) == 0 && r != executorRealm {
			out = append(out, plugin.Errorf("Nobody could authenticate", path, "There is no credential block: add one, or take %q out.", r))
		}
	}
	return append(out, s.TLS.validate()...)
}

// validate demands whole paths: the adapter is not told in which folder the
// configuration stands, and its own working directory is nobody's business.
func (t *tlsFiles) validate() (out []plugin.Diagnostic) {
	if t == nil {
		return nil
	}
	for _, file := range []struct{ name, path string }{{"cert", t.Cert}, {"key", t.Key}, {"ca", t.CA}} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			out = append(out, plugin.Errorf("Relative path", "tls."+file.name, "%q is relative: write the whole path of the file.", file.path))
		}
	}
	if len(out) > 0 {
		return out
	}
	if _, err := t.config(); err != nil {
		out = append(out, plugin.Errorf("Unusable TLS files", "tls", "%s.", err))
	}
	return out
}

// checkAddress holds the rule that a listener elsewhere than on loopback is
// guarded, or the operator has said that it may do without.
func (s *settings) checkAddress() []plugin.Diagnostic {
	if s.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return []plugin.Diagnostic{plugin.Errorf("Bad address", "listen", "%q is not host:port.", s.Listen)}
	}
	if s.Insecure || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	const remedy = "Whoever reaches the port can run commands on the cluster. Add %s, listen on 127.0.0.1, or write insecure = true."
	switch {
	case s.TLS == nil:
		return []plugin.Diagnostic{plugin.Errorf("Listener without TLS", "listen", remedy, "a tls block")}
	case s.TLS.CA == "" && len(s.Credentials) == 0:
		return []plugin.Diagnostic{plugin.Errorf("Listener for anybody", "listen", remedy, "credential blocks, or ca to the tls block")}
	}
	return nil
}

func (t *tlsFiles) config() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, err
	}
	out := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if t.CA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, err
	}
	out.ClientCAs = x509.NewCertPool()
	if !out.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New(t.CA + " holds no certificate")
	}
	out.ClientAuth = tls.RequireAndVerifyClientCert
	return out, nil
}

// authenticators are those of each realm.
func (s *settings) authenticators() map[transport.Realm][]transport.Authenticator {
	names := s.Authenticate
	if len(names) == 0 && len(s.Credentials) > 0 {
		names = defaultRealms
	}
	if len(names) == 0 {
		return nil
	}
	passwords := map[string]string{}
	for _, c := range s.Credentials {
		passwords[c.Name] = c.Password
	}
	basic := []transport.Authenticator{transport.Basic(passwords)}
	out := map[transport.Realm][]transport.Authenticator{}
	for _, name := range names {
		out[realms[name]] = basic
	}
	if out[transport.Executor] != nil {
		out[transport.Executor] = []transport.Authenticator{transport.Bearer()}
	}
	return out
}

func (s *settings) limits() transport.Limits {
	l := s.Limits
	return transport.Limits{
		Connections: l.Connections, Body: int64(l.Body), Bodies: int64(l.Bodies), Header: l.HeaderTimeout,
		Request: l.RequestTimeout, Idle: l.IdleTimeout, Write: l.WriteTimeout,
	}
}

// flags are the settings as Mesos would name them.
func (s *settings) flags(at place) map[string]string {
	asked := s.authenticators()
	is := func(r transport.Realm) string { return strconv.FormatBool(asked[r] != nil) }
	out := map[string]string{
		"ip": at.ip, "port": strconv.Itoa(at.port), "hostname": at.hostname,
		"authenticate_http_readonly": is(transport.ReadOnly), "authenticate_http_readwrite": is(transport.ReadWrite),
		"authenticate_http_frameworks": is(transport.Scheduler), "authenticate_http_executors": is(transport.Executor),
	}
	if s.Cluster != "" {
		out["cluster"] = s.Cluster
	}
	return out
}
