package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/isolator-containerd/containerdtest"
)

// internet is the part of the world that pages speak of, for machines that see
// nothing of it: Docker's registry with busybox, and example.org with an archive.
type internet struct {
	certificate tls.Certificate
	authority   string // PEM
	registry    *containerdtest.Registry
}

var internetHosts = []string{"registry-1.docker.io", "example.org"}

func newInternet(t *testing.T) *internet {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the internet"}, DNSNames: internetHosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	n := &internet{
		certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		authority:   string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		registry:    containerdtest.NewRegistry(),
	}
	n.registry.Push(t, "library/busybox", "latest", containerdtest.Busybox())
	return n
}

// setup has a machine find these hosts, and trust them.
func (n *internet) setup() string {
	return fmt.Sprintf("mkdir -p /etc/ssl/certs\necho '127.0.0.1 %s' >>/etc/hosts\ncat >>/etc/ssl/certs/ca-certificates.crt <<'END'\n%sEND\n",
		strings.Join(internetHosts, " "), n.authority)
}

// serve answers on the loopback device of a process's network.
func (n *internet) serve(t *testing.T, pid int) {
	t.Helper()
	listener, err := listenIn(fmt.Sprintf("/proc/%d/ns/net", pid), "127.0.0.1:443")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(n.answer),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{n.certificate}, MinVersion: tls.VersionTLS12},
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-ended
	})
}

func (n *internet) answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Host != "example.org":
		n.registry.ServeHTTP(w, r)
	case r.URL.Path == "/app.tar.gz":
		var out bytes.Buffer
		zip := gzip.NewWriter(&out)
		archive := tar.NewWriter(zip)
		script := "#!/bin/sh\necho it starts\n"
		_ = archive.WriteHeader(&tar.Header{Name: "app/start", Mode: 0o755, Size: int64(len(script))})
		_, _ = io.WriteString(archive, script)
		_, _ = archive.Close(), zip.Close()
		_, _ = w.Write(out.Bytes())
	default:
		http.NotFound(w, r)
	}
}

// listenIn listens in another network namespace. The socket stays there.
func listenIn(namespace, address string) (net.Listener, error) {
	type result struct {
		net.Listener
		error
	}
	done := make(chan result)
	go func() {
		// The thread is not given back: it ends with this goroutine.
		runtime.LockOSThread()
		fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err != nil {
			done <- result{nil, fmt.Errorf("network namespace %s: %w", namespace, err)}
			return
		}
		l, err := net.Listen("tcp", address)
		done <- result{l, err}
	}()
	r := <-done
	return r.Listener, r.error
}
