package state_test

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// healthCheck is one of each kind: after 5 s, every 10 s, for 2 s; three failures
// in a row are too many, and those of the first 20 s do not count.
func healthCheck(kind string) *mezzov1.HealthCheck {
	h := &mezzov1.HealthCheck{
		DelaySeconds: proto.Float64(5), IntervalSeconds: proto.Float64(10), TimeoutSeconds: proto.Float64(2),
		GracePeriodSeconds: proto.Float64(20), ConsecutiveFailures: proto.Uint32(3),
	}
	switch kind {
	case "command":
		h.Type = mezzov1.HealthCheck_COMMAND.Enum()
		h.Command = &mezzov1.CommandInfo{Value: proto.String("./healthy")}
	case "https":
		h.Type = mezzov1.HealthCheck_HTTP.Enum()
		h.Http = &mezzov1.HealthCheck_HTTPCheckInfo{Scheme: proto.String("https"), Port: proto.Uint32(8443), Path: proto.String("/health"), Protocol: mezzov1.NetworkInfo_IPv6.Enum()}
	case "tcp":
		h.Type = mezzov1.HealthCheck_TCP.Enum()
		h.Tcp = &mezzov1.HealthCheck_TCPCheckInfo{Port: proto.Uint32(5432)}
	}
	return h
}

func check(kind string) *mezzov1.CheckInfo {
	c := &mezzov1.CheckInfo{DelaySeconds: proto.Float64(1), IntervalSeconds: proto.Float64(10), TimeoutSeconds: proto.Float64(0)}
	switch kind {
	case "command":
		c.Type = mezzov1.CheckInfo_COMMAND.Enum()
		c.Command = &mezzov1.CheckInfo_Command{Command: &mezzov1.CommandInfo{Value: proto.String("./look")}}
	case "http":
		c.Type = mezzov1.CheckInfo_HTTP.Enum()
		c.Http = &mezzov1.CheckInfo_Http{Port: proto.Uint32(80)}
	case "tcp":
		c.Type = mezzov1.CheckInfo_TCP.Enum()
		c.Tcp = &mezzov1.CheckInfo_Tcp{Port: proto.Uint32(80)}
	}
	return c
}

func describeProbe(o state.Probe) string {
	text := fmt.Sprintf("probe %d of %s within %v:", o.Serial, o.Plan.Container, o.Timeout)
	if l := o.Look; l.Command != nil {
		return text + " command " + l.Command.GetValue()
	}
	return text + fmt.Sprintf(" scheme=%q port=%d path=%q ipv6=%v", o.Look.Scheme, o.Look.Port, o.Look.Path, o.Look.IPv6)
}

// checkText is what a check saw; "nothing" when it has seen nothing.
func checkText(c *mezzov1.CheckStatusInfo) string {
	switch {
	case c.GetCommand() != nil && c.GetCommand().ExitCode != nil:
		return fmt.Sprintf("exit-%d", c.GetCommand().GetExitCode())
	case c.GetHttp() != nil && c.GetHttp().StatusCode != nil:
		return fmt.Sprintf("http-%d", c.GetHttp().GetStatusCode())
	case c.GetTcp() != nil && c.GetTcp().Succeeded != nil:
		return fmt.Sprintf("tcp-%v", c.GetTcp().GetSucceeded())
	}
	return "nothing"
}
