package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func secretValue(text string) *mezzov1.Secret {
	return &mezzov1.Secret{Type: mezzov1.Secret_VALUE.Enum(), Value: &mezzov1.Secret_Value{Data: []byte(text)}}
}

func secretNamed(name, key string) *mezzov1.Secret {
	s := &mezzov1.Secret{Type: mezzov1.Secret_REFERENCE.Enum(), Reference: &mezzov1.Secret_Reference{Name: proto.String(name)}}
	if key != "" {
		s.Reference.Key = proto.String(key)
	}
	return s
}

func TestSecretValues(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	for path, text := range map[string]string{
		filepath.Join(dir, "plain"): "p\n", filepath.Join(dir, "tls", "key"): "k", outside: "o", filepath.Join(dir, "large"): strings.Repeat("x", secretMost+1),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := &secrets{dir: dir}
	for _, test := range []struct {
		name       string
		of         *secrets
		secret     *mezzov1.Secret
		want, fail string
	}{
		{"a value", s, secretValue("here"), "here", ""},
		{"a file", s, secretNamed("plain", ""), "p\n", ""},
		{"a key", s, secretNamed("tls", "key"), "k", ""},
		{"unknown", s, secretNamed("absent", ""), "", "secret absent is not known"},
		{"an unknown key", s, secretNamed("tls", "absent"), "", "secret tls (key absent) is not known"},
		{"no key", s, secretNamed("tls", ""), "", "one with parts needs a key"},
		{"out of the directory", s, secretNamed("../outside", ""), "", "have no slash"},
		{"a dot", s, secretNamed("..", ""), "", "do not begin with a dot"},
		{"a link out", s, secretNamed("link", ""), "", "secret link cannot be read"},
		{"too large", s, secretNamed("large", ""), "", "larger than"},
		{"no directory", &secrets{}, secretNamed("plain", ""), "", "no secrets { dir"},
		{"nothing", s, &mezzov1.Secret{}, "", "neither of type VALUE"},
		{"both", s, &mezzov1.Secret{Type: mezzov1.Secret_VALUE.Enum(), Value: secretValue("x").Value, Reference: secretNamed("plain", "").Reference}, "", "neither of type"},
	} {
		got, err := test.of.value(test.secret)
		if string(got) != test.want || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s: %q, %v; want %q, %q", test.name, got, err, test.want, test.fail)
		}
	}
}

// What is mounted is a file for the task's user alone; what isolators are told
// names no value.
func TestSecretVolumes(t *testing.T) {
	s := &secrets{files: filepath.Join(t.TempDir(), "secrets")}
	p := &state.Plan{Container: "c1", Task: &isolatorv1.Task{Container: &mezzov1.ContainerInfo{Volumes: []*mezzov1.Volume{
		{ContainerPath: proto.String("a"), HostPath: proto.String("/tmp"), Mode: mezzov1.Volume_RW.Enum()},
		{ContainerPath: proto.String("b"), Mode: mezzov1.Volume_RO.Enum(), Source: &mezzov1.Volume_Source{
			Type: mezzov1.Volume_Source_SECRET.Enum(), Secret: secretValue("quiet"),
		}},
	}}}}
	if err := s.check(p); err != nil {
		t.Fatal(err)
	}
	who, err := lookupUser("")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a launch that is tried again
		if err := s.put(p, who); err != nil {
			t.Fatal(err)
		}
	}
	mounted := s.mount(p)
	v := mounted.Task.GetContainer().GetVolumes()[1]
	path := v.GetSource().GetHostPath().GetPath()
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "quiet" {
		t.Errorf("the file holds %q (%v)", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o400 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if strings.Contains(mounted.Task.String(), "quiet") || strings.Contains(withoutSecrets(p.Task).String(), "quiet") {
		t.Errorf("isolators are told the value: %v", mounted.Task)
	}
	if p.Task.GetContainer().GetVolumes()[1].GetSource().GetSecret() == nil {
		t.Error("what the machine gave was changed")
	}
	if err := s.drop("c1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	p.Task.Container.Volumes[1].Mode = mezzov1.Volume_RW.Enum()
	if err := s.check(p); err == nil || !strings.Contains(err.Error(), "volume b: a secret can only be read") {
		t.Errorf("a secret to write: %v", err)
	}
}

// An image's docker.config that is one of the operator's secrets reaches who
// fetches the image, and nobody else.
func TestSecretOfAnImage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"registry": `{"auths":{}}`, "garbage": "quiet"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &secrets{dir: dir}
	plan := func(config *mezzov1.Secret) *state.Plan {
		return &state.Plan{Task: &isolatorv1.Task{
			Image: &isolatorv1.TaskImage{Reference: "reg.example/app"},
			Container: &mezzov1.ContainerInfo{Mesos: &mezzov1.ContainerInfo_MesosInfo{Image: &mezzov1.Image{
				Type: mezzov1.Image_DOCKER.Enum(), Docker: &mezzov1.Image_Docker{Name: proto.String("reg.example/app"), Config: config},
			}}},
		}}
	}
	p := plan(secretNamed("registry", ""))
	if err := s.check(p); err != nil {
		t.Fatal(err)
	}
	told, err := s.credentials(p.Task)
	if err != nil || string(told.GetImage().GetDockerConfig()) != `{"auths":{}}` {
		t.Errorf("who fetches the image is told %q (%v)", told.GetImage().GetDockerConfig(), err)
	}
	if len(p.Task.GetImage().GetDockerConfig()) > 0 {
		t.Error("what the machine gave was changed, and would be kept with the value")
	}
	for name, want := range map[string]string{"absent": "docker.config: secret absent is not known", "garbage": "secret garbage: the image's docker.config is not the JSON"} {
		if err := s.check(plan(secretNamed(name, ""))); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "quiet") {
			t.Errorf("secret %s: %v, want %q", name, err, want)
		}
	}
}
