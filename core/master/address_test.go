package master

import (
	"context"
	"net"
	"testing"
)

// What is told to schedulers is an address that they can dial, also where the
// listener is on all interfaces.
func TestAddressOf(t *testing.T) {
	for _, test := range []struct{ listener, name, want string }{
		{"127.0.0.1:5061", "m1.example.org", "127.0.0.1"},
		{"10.1.2.3:5061", "192.0.2.7", "10.1.2.3"},
		{"[2001:db8::1]:5061", "192.0.2.7", "2001:db8::1"},
		{"0.0.0.0:5061", "192.0.2.7", "192.0.2.7"},
		{"[::]:5061", "192.0.2.7", "192.0.2.7"},
	} {
		if got := addressOf(t.Context(), test.listener, test.name); got != test.want {
			t.Errorf("%s of %s is reached at %q, want %q", test.listener, test.name, got, test.want)
		}
	}
	// A name that nobody knows: an address of an interface is better than none.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := net.ParseIP(addressOf(ctx, "0.0.0.0:5061", "no-such-machine.invalid")); got == nil || got.IsUnspecified() {
		t.Errorf("on all interfaces it is reached at %v", got)
	}
}
