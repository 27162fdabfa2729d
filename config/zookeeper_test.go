package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/config"
)

func TestParseZooKeeper(t *testing.T) {
	for text, want := range map[string]config.ZooKeeperAddress{
		"zk://z1:2181/mezzo":               {Servers: []string{"z1:2181"}, Path: "/mezzo"},
		"zks://z1:2181,z2:2182/a/b":        {Servers: []string{"z1:2181", "z2:2182"}, Path: "/a/b", TLS: true},
		"zk://u:p@z1:2181,z2:2181/mezzo":   {Servers: []string{"z1:2181", "z2:2181"}, Path: "/mezzo", Auth: "u:p"},
		"zk://u:p@ss/w:rd@z1:2181/mezzo":   {Servers: []string{"z1:2181"}, Path: "/mezzo", Auth: "u:p@ss/w:rd"},
		"zk://[::1]:2181,127.0.0.1:2181/m": {Servers: []string{"[::1]:2181", "127.0.0.1:2181"}, Path: "/m"},
	} {
		got, err := config.ParseZooKeeper(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for text, says := range map[string]string{
		"http://z1:2181/mezzo":    "neither",
		"zk://z1:2181":            "names no path",
		"zk://z1:2181/":           "names no path",
		"zk://z1/mezzo":           "z1",
		"zk://secret@z1:2181/m":   "user:password",
		"zk://z1:2181/mezzo//x":   "must not be empty",
		"zk://z1:2181,,z2:2181/m": "",
	} {
		if _, err := config.ParseZooKeeper(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s gave %v, want an error that says %q", text, err, says)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
	shown := config.WithoutCredentials([]string{"zk://u:p@ss@z1:2181,z2:2181/m", "zks://z1:2181/m", "h:5061"})
	if diff := cmp.Diff([]string{"zk://z1:2181,z2:2181/m", "zks://z1:2181/m", "h:5061"}, shown); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}
