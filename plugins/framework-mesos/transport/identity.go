package transport

import (
	"encoding/binary"
	"net"
	"strconv"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Advertised is where clients find a server that listens at address: one that
// listens everywhere is at the first address of its host, and clients want it
// as a literal. The result is host:port, as address is where nothing is better.
func Advertised(address, hostname string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return address
	}
	candidates, _ := net.LookupIP(hostname)
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok {
				candidates = append(candidates, n.IP)
			}
		}
	}
	for _, ip := range candidates {
		if ip.To4() != nil && ip.IsGlobalUnicast() {
			return net.JoinHostPort(ip.String(), port)
		}
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// MasterInfo is how clients are told of a master: id is its own, address, as
// Advertised returns it, is where its adapter of this kind is found.
func MasterInfo(id, hostname, address string) *mezzov1.MasterInfo {
	host, text, _ := net.SplitHostPort(address)
	port, _ := strconv.ParseUint(text, 10, 16)
	if hostname == "" {
		hostname = host
	}
	info := &mezzov1.MasterInfo{
		Id: proto.String(id), Ip: proto.Uint32(0), Port: proto.Uint32(uint32(port)), Pid: proto.String("master@" + address),
		Hostname: proto.String(hostname), Version: proto.String(MesosVersion),
		Address: &mezzov1.Address{Hostname: proto.String(hostname), Ip: proto.String(host), Port: proto.Int32(int32(port))},
	}
	// The schema has an IPv4 address as a number whose first byte is the lowest
	// in memory.
	if ip := net.ParseIP(host).To4(); ip != nil {
		info.Ip = proto.Uint32(binary.LittleEndian.Uint32(ip))
	}
	for _, c := range []mezzov1.MasterInfo_Capability_Type{
		mezzov1.MasterInfo_Capability_AGENT_UPDATE, mezzov1.MasterInfo_Capability_AGENT_DRAINING, mezzov1.MasterInfo_Capability_QUOTA_V2,
	} {
		info.Capabilities = append(info.Capabilities, &mezzov1.MasterInfo_Capability{Type: c.Enum()})
	}
	return info
}
