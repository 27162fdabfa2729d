package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"golang.org/x/net/http/httpproxy"
)

// resolver finds images at registries and fetches what they are made of.
func (c *Config) resolver(k *keyring) (docker.RegistryHosts, func(), error) {
	made := map[string]*http.Client{}
	// As docker does: what serves on this machine may do so without TLS.
	near := c.httpClient(nil)
	local := &http.Client{Transport: docker.NewHTTPFallback(near.Transport)}
	closeAll := func() {
		near.CloseIdleConnections()
		for _, client := range made {
			client.CloseIdleConnections()
		}
	}
	blocks := map[string]Registry{}
	for _, r := range c.Registries {
		blocks[canonicalHost(r.Host)] = r
		settings, err := r.tls()
		if err != nil {
			return nil, nil, fmt.Errorf("registry %s: %w", r.Host, err)
		}
		made[canonicalHost(r.Host)] = c.httpClient(settings)
	}
	made[""] = c.httpClient(nil)
	reach := func(address string) docker.RegistryHost {
		h, prefix, _ := strings.Cut(address, "/")
		block, known := blocks[canonicalHost(h)]
		client := made[""]
		switch {
		case known:
			client = made[canonicalHost(h)]
		case loopback(h):
			client = local
		}
		host := docker.RegistryHost{
			Client: client, Host: h, Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
			Authorizer:   docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(k.lookup)),
		}
		if block.PlainHTTP {
			host.Scheme = "http"
		}
		if prefix = strings.Trim(prefix, "/"); prefix != "" {
			host.Path += "/" + prefix
		}
		if canonicalHost(h) == "docker.io" {
			host.Host = "registry-1.docker.io"
		}
		return host
	}
	return func(h string) ([]docker.RegistryHost, error) {
		var list []docker.RegistryHost
		for _, m := range blocks[canonicalHost(h)].Mirrors {
			list = append(list, reach(m))
		}
		return append(list, reach(h)), nil
	}, closeAll, nil
}

// loopback is whether a registry is on this machine.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// tls returns nil where the registry asks for nothing of its own.
func (r *Registry) tls() (*tls.Config, error) {
	if r.CA == "" && !r.Insecure {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: r.Insecure}
	if r.CA != "" {
		text, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate in PEM", r.CA)
		}
		out.RootCAs = pool
	}
	return out, nil
}

func (c *Config) httpClient(settings *tls.Config) *http.Client {
	proxy := (&httpproxy.Config{HTTPProxy: c.Proxy, HTTPSProxy: c.Proxy, NoProxy: strings.Join(c.NoProxy, ",")}).ProxyFunc()
	transport := &http.Transport{
		Proxy:               func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:         (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSClientConfig:     settings,
		TLSHandshakeTimeout: 30 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        16,
		IdleConnTimeout:     30 * time.Second,
	}
	return &http.Client{Transport: &impatient{transport, c.Stall}}
}

// errStalled is what ends a pull whose registry sends nothing.
var errStalled = errors.New("the registry sends nothing")

// impatient gives up a request when nothing comes for so long, however much has
// come before.
type impatient struct {
	*http.Transport
	stall time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *impatient) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	stalled := fmt.Errorf("%w for %v (%s)", errStalled, t.stall, r.URL.Host)
	timer := time.AfterFunc(t.stall, func() { cancel(stalled) })
	response, err := t.Transport.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err != nil {
		err = because(ctx, err)
		cancel(nil)
		return nil, err
	}
	response.Body = &impatientBody{ReadCloser: response.Body, ctx: ctx, cancel: cancel, timer: timer, stall: t.stall}
	return response, nil
}

// because is err, or why the context was ended when that was for a stall.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

type impatientBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

// Read lets the clock run only while it waits for the registry.
func (b *impatientBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF {
		err = because(b.ctx, err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *impatientBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
