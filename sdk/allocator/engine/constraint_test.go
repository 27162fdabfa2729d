package engine_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestOfferConstraints(t *testing.T) {
	const rack, gone, size, host = `selector { attribute_name: "rack" }`, `selector { attribute_name: "none" }`,
		`selector { attribute_name: "size" }`, `selector { pseudoattribute_type: HOSTNAME }`
	one := func(selector, predicate string) string {
		return "groups { attribute_constraints { " + selector + " predicate { " + predicate + " } } }"
	}
	for _, test := range []struct {
		name, constraints string
		want              bool
	}{
		{"none", ``, true},
		{"exists", one(rack, `exists {}`), true},
		{"does not exist", one(gone, `exists {}`), false},
		{"must not exist, and does", one(rack, `not_exists {}`), false},
		{"must not exist, and does not", one(gone, `not_exists {}`), true},
		{"equals one of two", one(rack, `text_equals { value: "r2" }`), true},
		{"equals neither", one(rack, `text_equals { value: "r3" }`), false},
		{"equals what is not there", one(gone, `text_equals { value: "r1" }`), false},
		{"differs from what is not there", one(gone, `text_not_equals { value: "r1" }`), true},
		{"matches", one(rack, `text_matches { regex: "r[2-5]" }`), true},
		{"matches a part only", one(rack, `text_matches { regex: "[0-9]" }`), false},
		{"does not match", one(rack, `text_not_matches { regex: "r1|r2" }`), false},
		{"a text's condition on a number", one(size, `text_equals { value: "x" }`), true},
		{"a number must not exist", one(size, `not_exists {}`), false},
		{"hostname", one(host, `text_matches { regex: "node-.*" }`), true},
		{"another hostname", one(host, `text_equals { value: "node-2" }`), false},
		{"zone that the agent has not", one(`selector { pseudoattribute_type: ZONE }`, `exists {}`), false},
		{"one group of two", one(gone, `exists {}`) + one(rack, `exists {}`), true},
		{"all of a group", `groups { attribute_constraints { ` + rack + ` predicate { exists {} } } attribute_constraints { ` + gone + ` predicate { exists {} } } }`, false},
		{"a pattern that does not compile", one(rack, `text_not_matches { regex: "(" }`), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var message schedulerv1.OfferConstraints_RoleConstraints
			if err := prototext.Unmarshal([]byte(test.constraints), &message); err != nil {
				t.Fatal(err)
			}
			data, err := proto.Marshal(&message)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, defaults(), &engine.DominantShare{})
			total := w.parse("cpus:1")
			w.tell(&allocator.AgentUpdated{ID: "a", Hostname: "node-1", Total: total, Active: true, HoldingsSet: true, Attributes: []allocator.Attribute{
				{Name: "rack", Text: "r1"}, {Name: "rack", Text: "r2"}, {Name: "size", Type: allocator.AttributeScalar, Scalar: 3 * resource.Unit}}})
			w.tell(&allocator.FrameworkUpdated{ID: "f", Roles: []string{"*"}, Active: true, Settings: []allocator.RoleSettings{{Role: "*", Constraints: data}}})
			if got := len(w.settle()) == 1; got != test.want {
				t.Errorf("offered %v, want %v", got, test.want)
			}
		})
	}
}
