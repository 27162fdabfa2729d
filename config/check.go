package config

import (
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
	if m.Election.Kind == zookeeper {
		d.add(notYet(m.Election.DefRange, `Election "zookeeper"`, "Take the block out, for a master that is alone."))
	}
	if m.Registry.Kind == zookeeper {
		d.add(notYet(m.Registry.DefRange, `Registry "zookeeper"`, "Take the block out, to keep the registry in data_dir."))
	}
	d.checkTLS(m.TLS)
	return byPlace(d.diags)
}

// Check does for an agent what (*Master).Check does for a master.
func (a *Agent) Check() hcl.Diagnostics {
	d := &decoder{}
	for _, text := range a.Masters {
		if strings.HasPrefix(text, "zk://") {
			d.add(notYet(a.MastersRange, "Finding masters by ZooKeeper", `Write their addresses: masters = ["host:5061"].`))
		}
	}
	d.checkTLS(a.TLS)
	return byPlace(d.diags)
}

func notYet(rng hcl.Range, what, remedy string) *hcl.Diagnostic {
	diag := invalid(rng, what+" is not in this version", "%s", remedy)
	if rng == (hcl.Range{}) {
		diag.Subject = nil // it was a flag
	}
	return diag
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
