package znode_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/znode"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]znode.URL{
		"zk://z1:2181/mesos":               {Servers: []string{"z1:2181"}, Path: "/mesos"},
		"zk://z1:2181,z2:2181":             {Servers: []string{"z1:2181", "z2:2181"}, Path: "/"},
		"zk://z1:2181/":                    {Servers: []string{"z1:2181"}, Path: "/"},
		"zk://u:p@w@z1:2181/a/mesos/":      {Servers: []string{"z1:2181"}, Path: "/a/mesos", Auth: "u:p@w"},
		"zk://u:p/w@[::1]:2181,z:1/x/y/zz": {Servers: []string{"[::1]:2181", "z:1"}, Path: "/x/y/zz", Auth: "u:p/w"},
	} {
		got, err := znode.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for text, says := range map[string]string{
		"file:///etc/mesos/zk": "zk://host:port", "zk://z1/mesos": "not host:port", "zk://": "not host:port",
		"zk://secret@z:1/m": "user:password", "zk://z:1/a//b": "not the path",
	} {
		if _, err := znode.Parse(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s gave %v, want an error that says %q", text, err, says)
		}
	}
}
