package secret_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/secret"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func TestSecretsAreNotShown(t *testing.T) {
	c := &mezzov1.ContainerInfo{}
	if err := prototext.Unmarshal([]byte(`type: MESOS
		mesos { image { type: DOCKER docker { name: "web" config { type: VALUE value { data: "hush" } } } } }
		volumes { container_path: "a" mode: RW source { type: SECRET secret { type: VALUE value { data: "hush" } } } }
		volumes { container_path: "b" mode: RW image { type: DOCKER docker { name: "x" config { type: VALUE value { data: "hush" } } } } }
		volumes { container_path: "c" mode: RW host_path: "/c" }`), c); err != nil {
		t.Fatal(err)
	}
	before := proto.CloneOf(c)
	executor := &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, Container: c}
	for name, m := range map[string]proto.Message{"container": secret.Container(c), "executor": secret.Executor(executor)} {
		text, err := proto.Marshal(m)
		if err != nil {
			t.Errorf("%s cannot be sent any more: %v", name, err)
		}
		if bytes.Contains(text, []byte("hush")) || !bytes.Contains(text, []byte("web")) {
			t.Errorf("%s: %v", name, m)
		}
	}
	if !proto.Equal(before, c) {
		t.Error("the original has been changed")
	}
	plain := &mezzov1.ContainerInfo{Type: mezzov1.ContainerInfo_MESOS.Enum()}
	if secret.Container(plain) != plain || secret.Container(nil) != nil || secret.Executor(nil) != nil {
		t.Error("what has no secrets was copied")
	}
}

func TestCommand(t *testing.T) {
	plain := &mezzov1.CommandInfo{Value: proto.String("true"), Environment: &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{
		{Name: proto.String("A"), Value: proto.String("b")},
	}}}
	if secret.Command(plain) != plain || secret.InEnvironment(plain) {
		t.Error("a command without secrets was changed")
	}
	quiet := proto.CloneOf(plain)
	quiet.Environment.Variables = append(quiet.Environment.Variables, &mezzov1.Environment_Variable{
		Name: proto.String("S"), Type: mezzov1.Environment_Variable_SECRET.Enum(),
		Secret: &mezzov1.Secret{Type: mezzov1.Secret_VALUE.Enum(), Value: &mezzov1.Secret_Value{Data: []byte("unspeakable")}},
	})
	executor := &mezzov1.ExecutorInfo{ExecutorId: &mezzov1.ExecutorID{Value: proto.String("e")}, Command: quiet}
	for _, shown := range []proto.Message{secret.Command(quiet), secret.Executor(executor)} {
		if b, err := proto.Marshal(shown); err != nil || strings.Contains(string(b), "unspeakable") || !strings.Contains(string(b), "true") {
			t.Errorf("what is shown: %v, %v", shown, err)
		}
	}
	if string(quiet.Environment.Variables[1].Secret.Value.Data) != "unspeakable" {
		t.Error("the command itself was changed")
	}
}
