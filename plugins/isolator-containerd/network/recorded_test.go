package network

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/mezzo-os/mezzo/internal/recorded"
)

// TestRecorded is that what earlier versions hold of CNI plugins' is still known:
// it is given back when the container ends, whichever version does that.
func TestRecorded(t *testing.T) {
	open := func(t *testing.T, dir string) *Manager {
		m, err := New(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	recorded.Check(t, recorded.Kind{Name: "networks", Write: func(t *testing.T, dir string) {
		m := open(t, dir)
		for id, rec := range map[string]*record{
			"bridged": {
				Version: recordVersion, Netns: true, Hostname: "web-1", Ready: true,
				Attachments: []attachment{{
					Network: "mezzo", Interface: "eth0", Config: json.RawMessage(`{"cniVersion":"1.0.0","name":"mezzo","plugins":[{"type":"bridge"}]}`),
					Ports: []portMapping{{HostPort: 31000, ContainerPort: 80, Protocol: "tcp"}}, IPs: []string{"10.9.0.7"},
					Info: json.RawMessage(`{"name":"mezzo","portMappings":[{"hostPort":31000,"containerPort":80}]}`),
				}},
				Result: []json.RawMessage{json.RawMessage(`{"name":"mezzo","ipAddresses":[{"ipAddress":"10.9.0.7"}]}`)},
			},
			"begun": {Version: recordVersion, Netns: true, Hostname: "web-2"},
			"alone": {Version: recordVersion, Hostname: "h", Ready: true},
		} {
			if err := os.MkdirAll(m.dir(id), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := m.save(id, rec); err != nil {
				t.Fatal(err)
			}
		}
	}, Read: func(t *testing.T, dir string) any {
		m := open(t, dir)
		ids, err := os.ReadDir(dir + "/containers")
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]*record{}
		for _, e := range ids {
			if out[e.Name()], err = m.load(e.Name()); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}})
}
