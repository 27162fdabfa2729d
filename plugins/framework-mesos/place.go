package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// place is where the adapter is reached, in the forms that clients want.
type place struct {
	// address is host:port, as published.
	address string
	// hostname is a name, or the address where there is none; ip is an address.
	hostname, ip string
	port         int
}

// lookupTimeout bounds the question for the machine's own address.
const lookupTimeout = 5 * time.Second

// findPlace works out where a listener is reached: under the name that the
// operator gave, or else at the address it is bound to, or else, where that is
// all interfaces, at the machine's. machine is the core's name for it.
func findPlace(ctx context.Context, bound net.Addr, given, machine string) place {
	tcp := bound.(*net.TCPAddr)
	p := place{port: tcp.Port, hostname: given}
	switch parsed := net.ParseIP(given); {
	case parsed != nil:
		p.ip = given
	case !tcp.IP.IsUnspecified():
		p.ip = tcp.IP.String()
	case given != "":
		p.ip = lookup(ctx, given)
	default:
		p.ip = lookup(ctx, machine)
	}
	host := given
	if host == "" {
		host, p.hostname = p.ip, machine
		if net.ParseIP(p.ip).IsLoopback() {
			p.hostname = "localhost" // nobody reaches it by the machine's name
		}
	}
	p.address = net.JoinHostPort(host, strconv.Itoa(p.port))
	return p
}

// lookup finds an address of a machine, of the fourth version if it has one:
// many clients know no other.
func lookup(ctx context.Context, name string) string {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, _ := net.DefaultResolver.LookupIP(ctx, "ip4", name)
	for _, ip := range found {
		if !ip.IsLoopback() {
			return ip.String()
		}
	}
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

// pid is the adapter's process as libprocess names it.
func (p place) pid(process string) string {
	return fmt.Sprintf("%s@%s", process, net.JoinHostPort(p.ip, strconv.Itoa(p.port)))
}

// complete puts the place into what clients are told of the master.
func (p place) complete(info *mezzov1.MasterInfo) {
	info.Hostname, info.Port, info.Pid = proto.String(p.hostname), proto.Uint32(uint32(p.port)), proto.String(p.pid("master"))
	// Clients compare it to tell what the API can do: it is not the core's.
	info.Version = proto.String(transport.MesosVersion)
	info.Ip = proto.Uint32(0)
	if ip := net.ParseIP(p.ip).To4(); ip != nil {
		// The schema has the address as a number whose first byte is the lowest in
		// memory.
		info.Ip = proto.Uint32(binary.LittleEndian.Uint32(ip))
	}
	info.Capabilities = nil
	for _, c := range []mezzov1.MasterInfo_Capability_Type{
		mezzov1.MasterInfo_Capability_AGENT_UPDATE, mezzov1.MasterInfo_Capability_AGENT_DRAINING, mezzov1.MasterInfo_Capability_QUOTA_V2,
	} {
		info.Capabilities = append(info.Capabilities, &mezzov1.MasterInfo_Capability{Type: c.Enum()})
	}
	info.Address = &mezzov1.Address{Hostname: proto.String(p.hostname), Ip: proto.String(p.ip), Port: proto.Int32(int32(p.port))}
}
