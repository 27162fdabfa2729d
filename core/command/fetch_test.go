package command

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestURIs(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	got, err := uris([]string{"http://h/a,b.tgz", "http://h/x?a=1,2,cache,executable", "/data/a.tar,extract=false,output=lib/a.tar,checksum=" + sum})
	if err != nil {
		t.Fatal(err)
	}
	want := []*mezzov1.CommandInfo_URI{
		{Value: proto.String("http://h/a,b.tgz")},
		{Value: proto.String("http://h/x?a=1,2"), Cache: proto.Bool(true), Executable: proto.Bool(true)},
		{Value: proto.String("/data/a.tar"), Extract: proto.Bool(false), OutputFile: proto.String("lib/a.tar"), Checksum: proto.String(sum)},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"ftp://h/x": "not fetched here", "a.tgz": "neither a URL", "http://h/x,checksum=abc": "no known kind", "http://h/x,output=../x": "leaves the sandbox",
	} {
		if _, err := uris([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--uri %s: %v, want %q", text, err, want)
		}
	}
}
