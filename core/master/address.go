package master

import (
	"context"
	"net"
	"time"
)

// lookupTimeout bounds the question for the machine's own address.
const lookupTimeout = 2 * time.Second

// addressOf is the IP address under which others reach a listener: the one that
// it is bound to, or, where that is all interfaces, the one that the machine's
// name stands for, or one that an interface has. Of the fourth version where
// there is one, since many clients know no other.
func addressOf(ctx context.Context, listener, name string) string {
	host, _, err := net.SplitHostPort(listener)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return host
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, _ := net.DefaultResolver.LookupIP(ctx, "ip", name)
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			found = append(found, n.IP)
		}
	}
	best := ""
	for _, ip := range found {
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
			continue
		}
		if ip.To4() != nil {
			return ip.String()
		}
		if best == "" {
			best = ip.String()
		}
	}
	if best == "" {
		return "127.0.0.1" // the machine has no other
	}
	return best
}
