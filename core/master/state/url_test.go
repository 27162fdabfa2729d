package state

import (
	"testing"

	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
)

// TestAgentURL: what offers say of where an agent is has an IP address that
// others can use.
func TestAgentURL(t *testing.T) {
	for _, c := range []struct {
		http, peer, ip string
		port           int32
	}{
		{"10.0.0.2:5062", "10.0.0.9:4711", "10.0.0.2", 5062},
		{"0.0.0.0:5062", "10.0.0.9:4711", "10.0.0.9", 5062},
		{"[::]:5062", "[2001:db8::1]:4711", "2001:db8::1", 5062},
		{"a1.example:5062", "10.0.0.9:4711", "10.0.0.9", 5062},
		{"", "10.0.0.9:4711", "10.0.0.9", 0},
		{"", "test", "", 0},
	} {
		url := agentURL(&linkv1.Agent{
			Hostname: "a1", HttpAddress: c.http, Endpoints: []*linkv1.Endpoint{{Name: "mesos", Address: "10.0.0.2:5051"}},
		}, c.peer)
		if a := url.GetAddress(); a.GetIp() != c.ip || a.GetPort() != c.port || a.GetHostname() != "a1" {
			t.Errorf("%s from %s: %v", c.http, c.peer, a)
		}
		if e := url.GetEndpoints(); len(e) != 1 || e[0].GetName() != "mesos" || e[0].GetAddress() != "10.0.0.2:5051" {
			t.Errorf("endpoints %v", e)
		}
	}
}
