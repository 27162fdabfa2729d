package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Pin is a parsed checksum: the plugin's own, and those of the companion
// programs beside it. See docs/decisions/002-companion-checksum.md.
type Pin struct {
	Plugin     string            // "sha256:" and 64 hexadecimal digits
	Companions map[string]string // by file name; nil for a plugin without any
}

var (
	digestForm    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	companionForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
)

// ParseChecksum reads what an operator pins: the sha256 of the plugin, then, for
// each companion, a comma, its file name, "=" and its sha256:
//
//	sha256:0f3a…
//	sha256:0f3a…,mezzo-shim=sha256:77e1…
func ParseChecksum(text string) (Pin, error) {
	own, rest, more := strings.Cut(text, ",")
	pin := Pin{Plugin: own}
	if !digestForm.MatchString(own) {
		return Pin{}, fmt.Errorf(`checksum %q: want "sha256:" and 64 hexadecimal digits`, text)
	}
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		name, digest, ok := strings.Cut(part, "=")
		if !ok || !companionForm.MatchString(name) || !digestForm.MatchString(digest) {
			return Pin{}, fmt.Errorf(`checksum %q: after a comma want NAME=sha256:…, as "mezzo plugin lock" writes it`, text)
		}
		if pin.Companions == nil {
			pin.Companions = map[string]string{}
		}
		if _, twice := pin.Companions[name]; twice {
			return Pin{}, fmt.Errorf("checksum %q: companion %s stands twice", text, name)
		}
		pin.Companions[name] = digest
	}
	return pin, nil
}

// String is the form that ParseChecksum reads, companions in order of name.
func (p Pin) String() string {
	names := make([]string, 0, len(p.Companions))
	for name := range p.Companions {
		names = append(names, name)
	}
	sort.Strings(names)
	out := p.Plugin
	for _, name := range names {
		out += "," + name + "=" + p.Companions[name]
	}
	return out
}

// Checksum returns the sha256 of one file, as "sha256:…".
func Checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// companions returns the names of the companion programs that a plugin declares.
func companions(d *pluginv1.Description) []string {
	var out []string
	for _, c := range d.GetCapabilities() {
		if name, ok := strings.CutPrefix(c, plugin.CompanionPrefix); ok {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

// pinOf computes the checksum of a plugin with its companions.
func pinOf(path string, d *pluginv1.Description) (Pin, error) {
	own, err := Checksum(path)
	if err != nil {
		return Pin{}, err
	}
	pin := Pin{Plugin: own}
	for _, name := range companions(d) {
		if !companionForm.MatchString(name) {
			return Pin{}, fmt.Errorf("companion %q: not the name of a file beside the plugin", name)
		}
		digest, err := Checksum(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return Pin{}, fmt.Errorf("companion %s: %w", name, err)
		}
		if pin.Companions == nil {
			pin.Companions = map[string]string{}
		}
		pin.Companions[name] = digest
	}
	return pin, nil
}
