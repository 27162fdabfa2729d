package resource_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestTranscripts runs testdata/*: "parse" reads its input and prints it in
// normal form, or the exact error; "validate" does so for a v1 Resource in
// JSON; "role" checks a role's name.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "parse":
				r, err := resource.Parse(d.Input)
				if err != nil {
					return stable(err.Error())
				}
				if r.IsEmpty() {
					return "(nothing)"
				}
				again, err := resource.Parse(r.String())
				if err != nil || !again.Equal(r) {
					t.Errorf("%s: %q is read back as %q: %v", d.Pos, r, again, err)
				}
				return r.String()
			case "validate":
				m := new(mezzov1.Resource)
				if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal([]byte(d.Input), m); err != nil {
					t.Fatalf("%s: %v", d.Pos, err)
				}
				if err := resource.Validate(m); err != nil {
					return err.Error()
				}
				r, err := resource.FromProto([]*mezzov1.Resource{m})
				if err != nil {
					t.Errorf("%s: Validate accepts it and FromProto says %v", d.Pos, err)
				}
				return "valid: " + r.String()
			case "role":
				if err := resource.ValidateRole(strings.NewReplacer(`\t`, "\t", `\b`, "\b").Replace(d.Input)); err != nil {
					return err.Error()
				}
				return "valid"
			}
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

// stable replaces the space that protobuf writes as one of two characters,
// chosen by chance, to keep people from comparing its errors.
func stable(text string) string { return strings.ReplaceAll(text, "\u00a0", " ") }

func TestParseErrorPlace(t *testing.T) {
	_, err := resource.Parse("cpus:4; mem:x")
	var place *resource.ParseError
	if !errors.As(err, &place) {
		t.Fatalf("got %v, want a *ParseError", err)
	}
	if place.Offset != 12 || place.Text != "cpus:4; mem:x" {
		t.Errorf("got offset %d in %q, want 12", place.Offset, place.Text)
	}
}

func TestParseLongTextShowsItsNeighbourhood(t *testing.T) {
	_, err := resource.Parse(strings.Repeat("cpus:1;", 40) + "oops;" + strings.Repeat("mem:1;", 40))
	if err == nil || !strings.Contains(err.Error(), "oops") || len(err.Error()) > 250 {
		t.Errorf("got %v, want a short error that shows the place", err)
	}
}

// FuzzParse asserts that Parse never panics, that its results are in normal
// form, and that they survive both of their written forms.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "cpus:4;mem:4096;ports:[31000-32000];zones:{a,b}", "cpus(role):2", "cpus(eng/web):0.5;cpus:1.125",
		`cpus{"revocable":{}}:2`, `[{"name":"cpus","type":"SCALAR","scalar":{"value":4}}]`, "ports:[1-5,3-9,11]",
		"cpus(a, dyn):1", "cpus(a)(a/b, dyn, p, q){\"revocable\":{}}:1", "cpus:-1", "cpus:nan", "cpus:1e99", "ports:[18446744073709551615]", "zones:{}", "a(b", "cpus{:1", "[", "[{}]", ";;", "é:1",
		`disk{"reservations":[{"role":"a","type":"DYNAMIC"}],"disk":{"persistence":{"id":"v"},"volume":{"mode":"RW","container_path":"p"}},"shared":{}}:64`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := resource.Parse(text)
		if err != nil {
			if err.Error() == "" || r != nil {
				t.Fatalf("error %q with result %v", err, r)
			}
			return
		}
		if !resource.Of(r...).Equal(r) {
			t.Fatalf("%q is not in normal form", r)
		}
		for _, form := range []string{r.String(), r.JSON()} {
			again, err := resource.Parse(form)
			if err != nil || !again.Equal(r) {
				t.Fatalf("%q becomes %q, which is read back as %q: %v", text, form, again, err)
			}
		}
	})
}

// FuzzFromProto asserts that no v1 Resource that decodes makes the conversion
// panic, and that what is accepted survives the way back.
func FuzzFromProto(f *testing.F) {
	for _, k := range kinds() {
		m := k.ToProto()
		m.Scalar = &mezzov1.Value_Scalar{Value: proto.Float64(1.5)}
		m.Ranges = &mezzov1.Value_Ranges{Range: []*mezzov1.Value_Range{{Begin: proto.Uint64(1), End: proto.Uint64(9)}}}
		m.Set = &mezzov1.Value_Set{Item: []string{"a", "b"}}
		switch k.Type() {
		case resource.TypeScalar:
			m.Ranges, m.Set = nil, nil
		case resource.TypeRanges:
			m.Scalar, m.Set = nil, nil
		case resource.TypeSet:
			m.Scalar, m.Ranges = nil, nil
		}
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := new(mezzov1.Resource)
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		r, err := resource.FromProto([]*mezzov1.Resource{m, m})
		if err != nil {
			return
		}
		back, err := resource.FromProto(r.ToProto())
		if err != nil || !back.Equal(r) {
			t.Fatalf("%v becomes %v: %v", r, back, err)
		}
		if len(r) > 0 && r[0].Kind.Name() != m.GetName() {
			t.Fatalf("%v has another name than %v", r, m)
		}
	})
}
