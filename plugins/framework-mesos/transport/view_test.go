package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/framework"
)

// What a client is shown it is asked for by its own name.
func TestMayView(t *testing.T) {
	answers := map[string]error{
		"alice": nil, "old": status.Error(codes.Unimplemented, "no such service"),
		"bob": status.Error(codes.PermissionDenied, "denied: bob may not"), "carl": status.Error(codes.Unavailable, "gone"),
		"": status.Error(codes.PermissionDenied, "denied: nobody may not"),
	}
	passwords := map[string]string{"alice": "x", "bob": "x", "carl": "x", "old": "x"}
	handle := func(s *transport.Server) {
		view := func(w http.ResponseWriter, r *http.Request) {
			if failure := transport.MayView(r); failure != nil {
				failure.Write(w)
				return
			}
			transport.Text(w, http.StatusOK, "shown")
		}
		s.Handle("", "/read", transport.Endpoint{Realm: transport.ReadOnly, Serve: view})
		s.Handle("", "/open", transport.Endpoint{Serve: view})
	}
	s := serve(t, transport.Options{
		Authenticators: map[transport.Realm][]transport.Authenticator{transport.ReadOnly: {transport.Basic(passwords)}},
		View: func(ctx context.Context) error {
			out, _ := metadata.FromOutgoingContext(ctx)
			return answers[strings.Join(out.Get(framework.PrincipalKey), ",")]
		},
	}, handle)
	for name, want := range map[string]answer{
		"alice": {200, nil, "shown"}, "old": {200, nil, "shown"}, "bob": {403, nil, "denied: bob may not"},
		"carl": {503, nil, "It is not known whether this may be seen: gone"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth(name, "x")
		got := send(t, s, "GET /read", "Authorization: "+request.Header.Get("Authorization"))
		if got.status != want.status || got.body != want.body {
			t.Errorf("%s is answered %d %q, want %d %q", name, got.status, got.body, want.status, want.body)
		}
	}
	if got := send(t, s, "GET /open"); got.status != 403 {
		t.Errorf("nobody is answered %v", got)
	}
	if got := send(t, serve(t, transport.Options{}, handle), "GET /read"); got.status != 200 {
		t.Errorf("where nobody is asked: %v", got)
	}
}

// Where no credential is asked for, the name in a certificate is the principal's.
func TestPrincipalOfACertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "marathon"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	who := func(w http.ResponseWriter, r *http.Request) {
		transport.Text(w, http.StatusOK, "<"+transport.PrincipalName(r)+">")
	}
	s := serve(t, transport.Options{
		TLS:            &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven},
		Authenticators: map[transport.Realm][]transport.Authenticator{transport.ReadWrite: {transport.Basic(map[string]string{"ann": "x"})}},
	}, func(s *transport.Server) {
		s.Handle("", "/read", transport.Endpoint{Realm: transport.ReadOnly, Serve: who})
		s.Handle("", "/write", transport.Endpoint{Realm: transport.ReadWrite, Serve: who})
		s.Handle("", "/executor", transport.Endpoint{Realm: transport.Executor, Serve: who})
	})
	ask := func(path, name string, pairs ...tls.Certificate) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Address()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name != "" {
			request.SetBasicAuth(name, "x")
		}
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: pairs},
		}}
		got, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		text, err := io.ReadAll(got.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, got := range map[string][2]string{
		"a certificate":                        {ask("/read", "", pair), "<marathon>"},
		"none":                                 {ask("/read", ""), "<>"},
		"a credential, where one is asked for": {ask("/write", "ann", pair), "<ann>"},
		"an executor, which has a token":       {ask("/executor", "", pair), "<>"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %s, want %s", name, got[0], got[1])
		}
	}
}
