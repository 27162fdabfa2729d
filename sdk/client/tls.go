package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// Files name the PEM files of mutual TLS. All three are needed.
//
// Each end proves who it is with Cert and Key, and believes who CA has signed.
// Cert and Key are read again when they change on disk, so that a certificate
// can be renewed without a restart; CA is read once.
type Files struct {
	CA   string
	Cert string
	Key  string
}

// Server returns the configuration of a listener that demands a certificate
// of every client.
func (f Files) Server() (*tls.Config, error) {
	pool, pair, err := f.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return pair.get()
		},
	}, nil
}

// Client returns the configuration of a client that shows its certificate.
func (f Files) Client() (*tls.Config, error) {
	pool, pair, err := f.load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return pair.get()
		},
	}, nil
}

func (f Files) load() (*x509.CertPool, *keyPair, error) {
	for _, part := range []struct{ name, path string }{{"ca", f.CA}, {"cert", f.Cert}, {"key", f.Key}} {
		if part.path == "" {
			return nil, nil, fmt.Errorf("tls: %s is not set; mutual TLS needs ca, cert and key", part.name)
		}
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("tls: ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("tls: ca %s holds no certificate in PEM form", f.CA)
	}
	pair := &keyPair{files: f}
	if _, err := pair.get(); err != nil {
		return nil, nil, err
	}
	return pool, pair, nil
}

// keyPair is a certificate and its key, read again when the files change.
type keyPair struct {
	files Files

	mu       sync.Mutex
	current  *tls.Certificate
	modified [2]time.Time
}

// get returns the newest pair. When the files have changed to something that
// cannot be used (half written, say), the pair that was good stays in use.
func (k *keyPair) get() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	modified, err := k.stat()
	if err == nil && k.current != nil && modified == k.modified {
		return k.current, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(k.files.Cert, k.files.Key)
	}
	switch {
	case err == nil:
		k.current, k.modified = &pair, modified
		return k.current, nil
	case k.current != nil:
		return k.current, nil
	default:
		return nil, fmt.Errorf("tls: cert %s with key %s: %w", k.files.Cert, k.files.Key, err)
	}
}

func (k *keyPair) stat() (modified [2]time.Time, err error) {
	cert, certErr := os.Stat(k.files.Cert)
	key, keyErr := os.Stat(k.files.Key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return modified, err
	}
	return [2]time.Time{cert.ModTime(), key.ModTime()}, nil
}
