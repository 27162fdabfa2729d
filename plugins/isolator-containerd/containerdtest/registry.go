package containerdtest

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is one on loopback, empty at first, that lives as long as the test.
type Registry struct {
	Host string // "127.0.0.1:PORT"
	CA   string // of one with TLS: a file with its certificate in PEM

	inner http.Handler

	mu       sync.Mutex
	requests []string
}

// ServeRegistry serves a registry by plain HTTP. wrap, when not nil, puts
// something between the clients and it: credentials, faults.
func ServeRegistry(t testing.TB, wrap func(http.Handler) http.Handler) *Registry {
	return serveRegistry(t, wrap, false)
}

// ServeRegistryTLS serves a registry by HTTPS, with a certificate that nobody
// trusts by default.
func ServeRegistryTLS(t testing.TB, wrap func(http.Handler) http.Handler) *Registry {
	return serveRegistry(t, wrap, true)
}

// NewRegistry is one that the caller serves: where, and under which names, is
// its own affair. Host and CA are not set.
func NewRegistry() *Registry {
	return &Registry{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
}

// ServeHTTP answers as a registry.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.inner.ServeHTTP(w, request)
}

func serveRegistry(t testing.TB, wrap func(http.Handler) http.Handler, tls bool) *Registry {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	r := NewRegistry()
	outer := r.inner
	if wrap != nil {
		outer = wrap(outer)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, request.Method+" "+request.URL.Path)
		r.mu.Unlock()
		outer.ServeHTTP(w, request)
	}))
	server.Config.ErrorLog = quiet
	if tls {
		server.StartTLS()
		r.CA = filepath.Join(t.TempDir(), "ca.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := os.WriteFile(r.CA, text, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.Host = server.Listener.Addr().String()
	return r
}

// Requests are those made so far whose "METHOD /path" contains part.
func (r *Registry) Requests(part string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, q := range r.requests {
		if strings.Contains(q, part) {
			out = append(out, q)
		}
	}
	return out
}

// Push gives the registry an image, behind whatever is wrapped around it, as
// repository:tag.
func (r *Registry) Push(t testing.TB, repository, tag string, image Image) Built {
	t.Helper()
	b := image.Build(t)
	r.pushContent(t, repository, b)
	r.put(t, "/v2/"+repository+"/manifests/"+tag, b.Manifest.MediaType, b.Manifest.Content)
	return b
}

// PushIndex gives the registry images of several platforms under one name, and
// returns the index.
func (r *Registry) PushIndex(t testing.TB, repository, tag string, list ...Image) Blob {
	t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, image := range list {
		b := image.Build(t)
		r.pushContent(t, repository, b)
		r.put(t, "/v2/"+repository+"/manifests/"+b.Manifest.Digest.String(), b.Manifest.MediaType, b.Manifest.Content)
		d := b.Manifest.Descriptor
		d.Platform = &b.Platform
		index.Manifests = append(index.Manifests, d)
	}
	out := blob(ocispec.MediaTypeImageIndex, encode(t, index))
	r.put(t, "/v2/"+repository+"/manifests/"+tag, out.MediaType, out.Content)
	return out
}

func (r *Registry) pushContent(t testing.TB, repository string, b Built) {
	t.Helper()
	for _, x := range append([]Blob{b.Config}, b.Layers...) {
		r.send(t, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+x.Digest.String(), "application/octet-stream", x.Content)
	}
}

func (r *Registry) put(t testing.TB, path, mediaType string, content []byte) {
	t.Helper()
	r.send(t, http.MethodPut, path, mediaType, content)
}

func (r *Registry) send(t testing.TB, method, path, mediaType string, content []byte) {
	t.Helper()
	request := httptest.NewRequest(method, path, bytes.NewReader(content))
	request.Header.Set("Content-Type", mediaType)
	answer := httptest.NewRecorder()
	r.inner.ServeHTTP(answer, request)
	if answer.Code != http.StatusCreated {
		t.Fatalf("%s %s: %d %s", method, path, answer.Code, answer.Body)
	}
}

// Basic asks for a user and a password.
func Basic(user, password string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Token asks for a token, which /token gives for a user and a password.
func Token(user, password, token string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refuse := func() {
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}`, http.StatusUnauthorized)
			}
			if r.URL.Path == "/token" {
				if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
					refuse()
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
				return
			}
			if r.Header.Get("Authorization") != "Bearer "+token {
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="test",scope="repository:`+strings.Trim(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")+`:pull"`)
				refuse()
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
