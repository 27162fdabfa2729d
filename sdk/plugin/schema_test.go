package plugin

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

type mode string

type timing struct {
	Every time.Duration `hcl:"every" default:"10s" help:"How often."`
}

type preempt struct {
	After time.Duration `hcl:"after" required:"true"`
	Grace time.Duration `hcl:"grace_period" default:"10s"`
}

func (p preempt) Validate() []Diagnostic {
	if p.Grace > p.After {
		return []Diagnostic{Errorf("grace too long", "grace_period", "It must not be longer than after.")}
	}
	return nil
}

type device struct {
	Path string   `hcl:"path,label"`
	Size Size     `hcl:"size" default:"64MiB"`
	Tags []string `hcl:"tags"`
}

func (d device) Validate() []Diagnostic {
	if !strings.HasPrefix(d.Path, "/") {
		return []Diagnostic{Warningf("relative path", "", "%s is relative.", d.Path)}
	}
	return nil
}

type everything struct {
	timing
	Mode     mode              `hcl:"mode" default:"soft"`
	Strict   bool              `hcl:"strict" default:"true"`
	Count    int32             `hcl:"count" default:"3"`
	Ratio    float64           `hcl:"ratio" default:"0.5"`
	Limit    *int              `hcl:"limit"`
	Password string            `hcl:"password" secret:"true"`
	Names    []string          `hcl:"names" default:"[\"a\",\"b\"]"`
	Labels   map[string]string `hcl:"labels"`
	Preempt  *preempt          `hcl:"preempt" help:"Take back."`
	Timing   timing            `hcl:"timing"`
	Devices  []device          `hcl:"device"`
	Hidden   func()            `hcl:"-"`
	private  int
}

func TestSchemaOf(t *testing.T) {
	got, err := SchemaOf(&everything{private: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := &pluginv1.Schema{}
	if err := prototext.Unmarshal([]byte(`
		attributes { name: "every" type: TYPE_DURATION default_json: "10000000000" help: "How often." }
		attributes { name: "mode" type: TYPE_STRING default_json: "\"soft\"" }
		attributes { name: "strict" type: TYPE_BOOL default_json: "true" }
		attributes { name: "count" type: TYPE_INT default_json: "3" }
		attributes { name: "ratio" type: TYPE_NUMBER default_json: "0.5" }
		attributes { name: "limit" type: TYPE_INT }
		attributes { name: "password" type: TYPE_STRING secret: true }
		attributes { name: "names" type: TYPE_STRING_LIST default_json: "[\"a\",\"b\"]" }
		attributes { name: "labels" type: TYPE_STRING_MAP }
		blocks {
			name: "preempt" help: "Take back."
			schema {
				attributes { name: "after" type: TYPE_DURATION required: true }
				attributes { name: "grace_period" type: TYPE_DURATION default_json: "10000000000" }
			}
		}
		blocks { name: "timing" schema { attributes { name: "every" type: TYPE_DURATION default_json: "10000000000" help: "How often." } } }
		blocks {
			name: "device" repeated: true label: "path"
			schema {
				attributes { name: "size" type: TYPE_SIZE default_json: "67108864" }
				attributes { name: "tags" type: TYPE_STRING_LIST }
			}
		}
	`), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
}

func TestAuthorsMistakes(t *testing.T) {
	for _, c := range []struct {
		config any
		want   string
	}{
		{nil, "want a struct"},
		{7, "want a struct"},
		{struct{ Name string }{}, "Name: hcl tag \"\": want a name"},
		{struct {
			Name string `hcl:"the name"`
		}{}, "want a name"},
		{struct {
			Name chan int `hcl:"name"`
		}{}, "chan int cannot be written in HCL"},
		{struct {
			Many [][]string `hcl:"many"`
		}{}, "cannot be written in HCL"},
		{struct {
			Wait time.Duration `hcl:"wait" default:"soon"`
		}{}, `default "soon"`},
		{struct {
			Small int8 `hcl:"small" default:"300"`
		}{}, `default "300"`},
		{struct {
			A string `hcl:"a" default:"x" required:"true"`
		}{}, "exclude each other"},
		{struct {
			A string `hcl:"a"`
			B string `hcl:"a"`
		}{}, `B: the name "a" is taken by A`},
		{struct {
			Device device `hcl:"device"`
		}{}, "must be a slice"},
		{struct {
			N int `hcl:"n,label"`
		}{}, "a label must be a string"},
		{struct {
			N string `hcl:"n,optional"`
		}{}, `unknown option "optional"`},
		{struct {
			Inner []struct{ X string } `hcl:"inner"`
		}{}, "X: hcl tag"},
	} {
		if _, err := SchemaOf(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%T: error %v, want one with %q", c.config, err, c.want)
		}
	}
}

func TestDecodeConfig(t *testing.T) {
	nine := 9
	for _, c := range []struct {
		name, json string
		want       everything
	}{
		{"empty", ``, everything{
			timing: timing{10 * time.Second}, Mode: "soft", Strict: true, Count: 3, Ratio: 0.5,
			Names: []string{"a", "b"}, Timing: timing{10 * time.Second},
		}},
		{"full", `{
			"every": 5000000000, "mode": "hard", "strict": false, "count": -4, "ratio": 2, "limit": 9, "password": "x", "names": [],
			"labels": {"rack": "r1"}, "preempt": {"after": 60000000000}, "timing": {"every": 1},
			"device": [{"path": "/dev/a", "tags": ["t"]}, {"path": "b", "size": 1}]
		}`, everything{
			timing: timing{5 * time.Second}, Mode: "hard", Count: -4, Ratio: 2, Limit: &nine, Password: "x", Names: []string{},
			Labels: map[string]string{"rack": "r1"}, Preempt: &preempt{time.Minute, 10 * time.Second}, Timing: timing{1},
			Devices: []device{{"/dev/a", 64 << 20, []string{"t"}}, {"b", 1, nil}},
		}},
	} {
		var got everything
		if err := DecodeConfig([]byte(c.json), &got); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(everything{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestDecodeConfigRefuses(t *testing.T) {
	for _, c := range []struct{ json, path, problem string }{
		{`{"colour": 1}`, "colour", "knows no such setting"},
		{`{"count": 3000000000}`, "count", "3000000000 is no int32"},
		{`{"strict": "yes"}`, "strict", "is no bool"},
		{`{"password": 12345}`, "password", "its value, which is secret, is no string"},
		{`{"limit": "x"}`, "limit", "is no int"},
		{`{"preempt": {}}`, "preempt.after", "a value is required"},
		{`{"preempt": 7}`, "preempt", "want a block"},
		{`{"device": {}}`, "device", "want a list of blocks"},
		{`{"device": [{"path": "/a"}, {"path": "/b", "size": "big"}]}`, "device.1.size", "is no plugin.Size"},
		{`[]`, "", "want a block"},
	} {
		err := DecodeConfig([]byte(c.json), new(everything))
		var bad *ConfigError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v, want a *ConfigError", c.json, err)
			continue
		}
		if strings.Join(bad.Path, ".") != c.path || !strings.Contains(bad.Problem, c.problem) {
			t.Errorf("%s: %q at %q, want %q at %q", c.json, bad.Problem, bad.Path, c.problem, c.path)
		}
	}
	if err := DecodeConfig(nil, everything{}); err == nil {
		t.Error("a struct that is no pointer is taken")
	}
}

func TestValidateReachesBlocks(t *testing.T) {
	var c everything
	if err := DecodeConfig([]byte(`{"preempt": {"after": 1}, "device": [{"path": "/a"}, {"path": "b"}]}`), &c); err != nil {
		t.Fatal(err)
	}
	got := validate(&c)
	want := []Diagnostic{
		{Summary: "grace too long", Detail: "It must not be longer than after.", Path: []string{"preempt", "grace_period"}},
		{Warning: true, Summary: "relative path", Detail: "b is relative.", Path: []string{"device", "1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !Failed(got) || Failed(got[1:]) {
		t.Error("Failed does not tell errors from warnings")
	}
}

func TestSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Range(0, math.MaxInt64).Draw(t, "size"))
		if rapid.Bool().Draw(t, "round") {
			s = s >> 40 << 40
		}
		if got, err := ParseSize(s.String()); err != nil || got != s {
			t.Fatalf("%d is written %s and read as %d, %v", int64(s), s, int64(got), err)
		}
	})
	for text, want := range map[string]Size{"0": 0, "17": 17, "1KiB": 1024, "64MiB": 64 << 20, "7PiB": 7 << 50} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "64MB", "64mib", "64 MiB", "9000PiB", "1KiBKiB", "99999999999999999999"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}
