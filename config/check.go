package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/sdk/client"
)

// Check gives what keeps a master from starting with this configuration though
// its text is right: what this version cannot do yet, and TLS files that cannot
// be used. The files are read now. A start and `mezzo config check` both ask it,
// so neither refuses what the other takes.
func (m *Master) Check() hcl.Diagnostics {
	d := &decoder{}
	d.checkZooKeeperTLS(m.Election.TLS)
	if m.Registry.TLS != m.Election.TLS {
		d.checkZooKeeperTLS(m.Registry.TLS)
	}
	d.checkTLS(m.TLS)
	d.checkTracing(m.Tracing)
	return byPlace(d.diags)
}

// Check does for an agent what (*Master).Check does for a master.
func (a *Agent) Check() hcl.Diagnostics {
	d := &decoder{}
	for _, text := range a.Masters {
		if strings.HasPrefix(text, "zks://") && a.TLS == nil {
			diag := invalid(a.MastersRange, "TLS to ZooKeeper without files", `"zks://" speaks TLS with this process's own certificate: write a tls block, or zk://.`)
			if a.MastersRange == (hcl.Range{}) {
				diag.Subject = nil // it was a flag
			}
			d.add(diag)
		}
	}
	d.checkTLS(a.TLS)
	d.checkTracing(a.Tracing)
	return byPlace(d.diags)
}

// checkZooKeeperTLS is checkTLS for the files of TLS to ZooKeeper.
func (d *decoder) checkZooKeeperTLS(t *ZooKeeperTLS) {
	if t == nil {
		return
	}
	if _, err := t.Client(); err != nil {
		d.add(invalid(t.DefRange, "Unusable TLS files", "%s.", strings.TrimPrefix(err.Error(), "tls: ")))
	}
}

// Client is the client's side of TLS to ZooKeeper. The files are read now.
func (t *ZooKeeperTLS) Client() (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	if t.Cert != "" {
		return client.Files{CA: t.CA, Cert: t.Cert, Key: t.Key}.Client()
	}
	return trusting(t.CA)
}

// trusting is TLS to who has a certificate of the authorities in the file.
func trusting(ca string) (*tls.Config, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("tls: ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("tls: ca %s holds no certificate in PEM form", ca)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// checkTLS complains about each file that cannot be read, or about what the
// files hold.
func (d *decoder) checkTLS(t *TLS) {
	if t == nil {
		return
	}
	readable := true
	for _, file := range []struct{ name, path string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
		if err := openable(file.path); err != nil {
			readable = false
			d.add(invalid(t.DefRange, "Unusable TLS file", "%s = %q: %s.", file.name, file.path, reason(err)))
		}
	}
	if !readable {
		return
	}
	if _, err := (client.Files{CA: t.CA, Cert: t.Cert, Key: t.Key}).Server(); err != nil {
		d.add(invalid(t.DefRange, "Unusable TLS files", "%s.", strings.TrimPrefix(err.Error(), "tls: ")))
	}
}

func openable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	switch info, err := f.Stat(); {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("it is a directory")
	}
	return nil
}

// CheckMasters complains about what an agent's masters cannot be.
func CheckMasters(masters []string) error {
	for _, text := range masters {
		if err := checkMaster(text, len(masters)); err != nil {
			return err
		}
	}
	return nil
}
