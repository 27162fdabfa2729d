package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestSettingsAreChecked(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.pem")
	for name, test := range map[string]struct {
		config string
		want   string // part of the first complaint; empty: there is none
	}{
		"nothing":               {`{}`, ""},
		"loopback":              {`{"listen": "127.0.0.1:5050"}`, ""},
		"loopback by name":      {`{"listen": "localhost:5050"}`, ""},
		"loopback, version 6":   {`{"listen": "[::1]:5050"}`, ""},
		"no port":               {`{"listen": "127.0.0.1"}`, "listen: Bad address"},
		"a port by name":        {`{"listen": "127.0.0.1:http"}`, "listen: Bad address"},
		"all interfaces":        {`{"listen": "0.0.0.0:5050"}`, "listen: Listener without TLS"},
		"no host":               {`{"listen": ":5050"}`, "listen: Listener without TLS"},
		"with credentials only": {`{"listen": "0.0.0.0:5050", "credential": [{"name": "ann", "password": "x"}]}`, "listen: Listener without TLS"},
		"insecure":              {`{"listen": "0.0.0.0:5050", "insecure": true}`, ""},
		"TLS for anybody":       {`{"listen": "10.0.0.1:1", "tls": {"cert": "c", "key": "k"}}`, "listen: Listener for anybody"},
		"no such files":         {`{"tls": {"cert": "` + missing + `", "key": "` + missing + `"}}`, "tls: Unusable TLS files"},
		"a relative path":       {`{"tls": {"cert": "` + missing + `", "key": "k"}}`, "tls.key: Relative path"},
		"realms":                {`{"authenticate": ["readonly"], "credential": [{"name": "ann", "password": "x"}]}`, ""},
		"an unknown realm":      {`{"authenticate": ["writing"]}`, "authenticate.0: Unknown realm"},
		"executors alone":       {`{"authenticate": ["executor"]}`, ""},
		"nobody to ask":         {`{"authenticate": ["readonly"]}`, "authenticate.0: Nobody could authenticate"},
		"a credential twice":    {`{"credential": [{"name": "ann", "password": "x"}, {"name": "ann", "password": "y"}]}`, "credential.1: Bad credential"},
		"a credential of none":  {`{"credential": [{"name": "ann", "password": ""}]}`, "credential.0: Bad credential"},
	} {
		s := new(settings)
		if err := plugin.DecodeConfig([]byte(test.config), s); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := ""
		if complaints := s.Validate(); len(complaints) > 0 {
			got = complaints[0].String()
		}
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestCredentialsCountForRealms(t *testing.T) {
	ann := []credential{{Name: "ann", Password: "x"}}
	for name, test := range map[string]struct {
		settings settings
		want     []transport.Realm
	}{
		"none":       {settings{}, nil},
		"by default": {settings{Credentials: ann}, []transport.Realm{transport.ReadOnly, transport.ReadWrite, transport.Scheduler}},
		"as written": {settings{Credentials: ann, Authenticate: []string{"executor"}}, []transport.Realm{transport.Executor}},
	} {
		var got []transport.Realm
		asked := test.settings.authenticators()
		for _, r := range []transport.Realm{transport.Open, transport.ReadOnly, transport.ReadWrite, transport.Scheduler, transport.Executor} {
			if len(asked[r]) > 0 {
				got = append(got, r)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if text := new(settings).flags(place{})["authenticate_http_frameworks"]; text != "false" {
		t.Errorf("without credentials the flag authenticate_http_frameworks is %q", text)
	}
}

func TestPlaceIsWhatClientsCanUse(t *testing.T) {
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 5050} }
	for name, test := range map[string]struct {
		bound          net.Addr
		given, machine string
		want           place
	}{
		"loopback":      {at("127.0.0.1"), "", "box", place{"127.0.0.1:5050", "localhost", "127.0.0.1", 5050}},
		"one interface": {at("10.1.2.3"), "", "box", place{"10.1.2.3:5050", "box", "10.1.2.3", 5050}},
		"by name":       {at("10.1.2.3"), "m1.example.org", "box", place{"m1.example.org:5050", "m1.example.org", "10.1.2.3", 5050}},
		"by address":    {at("0.0.0.0"), "192.0.2.7", "box", place{"192.0.2.7:5050", "192.0.2.7", "192.0.2.7", 5050}},
		"version 6":     {at("2001:db8::1"), "", "box", place{"[2001:db8::1]:5050", "box", "2001:db8::1", 5050}},
	} {
		got := findPlace(t.Context(), test.bound, test.given, test.machine)
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	// All interfaces, and a machine that nobody knows by its name: an address of
	// its own is better than none.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := findPlace(ctx, at("0.0.0.0"), "", "no-such-machine.invalid"); net.ParseIP(got.ip) == nil || net.ParseIP(got.ip).IsUnspecified() {
		t.Errorf("on all interfaces the address is %q", got.ip)
	}

	info := &mezzov1.MasterInfo{Id: proto.String("m"), Hostname: proto.String("core"), Port: proto.Uint32(5061), Version: proto.String("0.1.0")}
	place{"10.1.2.3:5050", "box", "10.1.2.3", 5050}.complete(info)
	if info.GetIp() != 0x0302010a || info.GetPort() != 5050 || info.GetVersion() != "1.11.0" || info.GetPid() != "master@10.1.2.3:5050" || info.GetHostname() != "box" ||
		info.GetAddress().GetIp() != "10.1.2.3" || info.GetAddress().GetPort() != 5050 {
		t.Errorf("clients are told %v", info)
	}
}
