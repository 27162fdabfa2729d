package image_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/image"
)

// TestCredentials: each way to say them works, none is refused, and no secret is
// in an error.
func TestCredentials(t *testing.T) {
	containerdtest.Require(t)
	for kind, wrap := range map[string]func(http.Handler) http.Handler{
		"basic": containerdtest.Basic("user", "s3cret"), "token": containerdtest.Token("user", "s3cret", "t0ken"),
	} {
		t.Run(kind, func(t *testing.T) {
			r := containerdtest.ServeRegistry(t, wrap)
			r.Push(t, "app", "1", containerdtest.Busybox())
			name := r.Host + "/app:1"
			config := func(password string) []byte {
				text, err := json.Marshal(map[string]any{"auths": map[string]any{r.Host: map[string]string{"username": "user", "password": password}}})
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
			b := newBench(t, open(r.Host))
			err := b.refused(image.Want{Reference: name}, name)
			if image.Transient(err) {
				t.Errorf("to try again without credentials is no use: %v", err)
			}
			if err := b.refused(image.Want{Reference: name, DockerConfig: config("wr0ng")}, name); strings.Contains(err.Error(), "wr0ng") || image.Transient(err) {
				t.Errorf("wrong credentials: %v", err)
			}
			if _, err := b.Provide(b.ctx(), "task", image.Want{Reference: name, DockerConfig: config("s3cret")}, nil); err != nil {
				t.Errorf("the task's credentials: %v", err)
			}
			// A pull that is asked for is made with the credentials of who asks.
			b.refused(image.Want{Reference: name, Policy: image.Always}, name)

			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, config("s3cret"), 0o600); err != nil {
				t.Fatal(err)
			}
			for how, c := range map[string]image.Config{
				"registry":      {Registries: []image.Registry{{Host: r.Host, PlainHTTP: true, Username: "user", Password: "s3cret"}}},
				"docker_config": {Registries: []image.Registry{{Host: r.Host, PlainHTTP: true}}, DockerConfig: file},
			} {
				c.Stall = patience
				s, err := image.New(image.Options{Client: func() (*client.Client, error) { return b.client, nil }, Namespace: b.d.Namespace, Config: c})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Provide(b.ctx(), how, image.Want{Reference: name, Policy: image.Always}, nil); err != nil {
					t.Errorf("credentials of %s: %v", how, err)
				}
				s.Close()
			}
		})
	}
}

// TestMirrors: they are asked first, in order, each with its own credentials; what
// one has not, or one that is away or refuses them, is no hindrance.
func TestMirrors(t *testing.T) {
	containerdtest.Require(t)
	origin, mirror := containerdtest.ServeRegistry(t, nil), containerdtest.ServeRegistry(t, containerdtest.Basic("m", "pw"))
	origin.Push(t, "both", "1", containerdtest.Busybox())
	origin.Push(t, "only", "1", containerdtest.Busybox())
	mirror.Push(t, "copies/both", "1", containerdtest.Busybox())
	const away = "127.0.0.1:1"
	locked := containerdtest.ServeRegistry(t, containerdtest.Basic("m", "another"))
	b := newBench(t, image.Config{Registries: []image.Registry{
		{Host: locked.Host, PlainHTTP: true, Username: "m", Password: "pw"},
		{Host: origin.Host, PlainHTTP: true, Mirrors: []string{away, locked.Host, mirror.Host + "/copies"}},
		{Host: mirror.Host, PlainHTTP: true, Username: "m", Password: "pw"},
		{Host: away, PlainHTTP: true},
	}})
	b.usable(b.provide("c1", origin.Host+"/both:1"), "c1")
	if n := origin.Requests("both"); len(n) > 0 {
		t.Errorf("the registry was asked for what a mirror has: %v", n)
	}
	b.usable(b.provide("c2", origin.Host+"/only:1"), "c2")
	for name, m := range map[string]*containerdtest.Registry{"mirror": mirror, "one that refuses": locked} {
		if len(m.Requests("only")) == 0 {
			t.Errorf("the %s was not asked", name)
		}
	}
}

// TestProxy: registries are reached through it, but for those that are not to be.
func TestProxy(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil) // takes a proxy's requests as well
	r.Push(t, "app", "1", containerdtest.Busybox())
	config := open("reg.invalid")
	config.Registries = append(config.Registries, image.Registry{Host: "direct.invalid", PlainHTTP: true})
	config.Proxy, config.NoProxy = "http://"+r.Host, []string{"direct.invalid"}
	b := newBench(t, config)
	b.usable(b.provide("c1", "reg.invalid/app:1"), "c1")
	asked := len(r.Requests(""))
	b.refused(image.Want{Reference: "direct.invalid/app:1"}, "direct.invalid")
	if n := len(r.Requests("")); n != asked {
		t.Errorf("the proxy was asked for what is reached without it")
	}
}

// TestCertificates: a registry's certificate is checked, against the operator's
// own where there is one.
func TestCertificates(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistryTLS(t, nil)
	r.Push(t, "app", "1", containerdtest.Busybox())
	name := r.Host + "/app:1"
	b := newBench(t, image.Config{})
	b.refused(image.Want{Reference: name}, "certificate")
	for _, block := range []image.Registry{{Host: r.Host, CA: r.CA}, {Host: r.Host, Insecure: true}} {
		s, err := image.New(image.Options{
			Client: func() (*client.Client, error) { return b.client, nil }, Namespace: b.d.Namespace,
			Config: image.Config{Stall: patience, Registries: []image.Registry{block}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Provide(b.ctx(), "c", image.Want{Reference: name, Policy: image.Always}, nil); err != nil {
			t.Errorf("%+v: %v", block, err)
		}
		s.Close()
	}
}

// TestLoopback: a registry of this machine needs no TLS, and no word in the
// configuration, as with docker; another's address does.
func TestLoopback(t *testing.T) {
	containerdtest.Require(t)
	r := containerdtest.ServeRegistry(t, nil)
	r.Push(t, "app", "1", containerdtest.Busybox())
	b := newBench(t, image.Config{})
	b.usable(b.provide("c1", r.Host+"/app:1"), "c1")
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		t.Fatal(err)
	}
	name := "localhost:" + port + "/app:1"
	b.usable(b.provide("c2", name), "c2")
	// The same registry, behind a name that is not this machine's own.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodConnect {
			t.Errorf("%s %s without TLS", q.Method, q.URL)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = conn.Read(make([]byte, 1<<14)) // the client's hello
		_, _ = io.WriteString(conn, "HTTP/1.0 400 this is no TLS\r\n\r\n")
		_ = conn.Close()
	}))
	t.Cleanup(proxy.Close)
	far := newBench(t, image.Config{Proxy: proxy.URL})
	far.refused(image.Want{Reference: "reg.invalid:" + port + "/app:1"}, "plain_http")
}
