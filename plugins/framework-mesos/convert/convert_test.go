package convert_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	agentv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	masterv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
)

const cpus = `name: "cpus" type: SCALAR scalar { value: 1 } `

func res(t testing.TB, text string) *mezzov1.Resource {
	t.Helper()
	r := &mezzov1.Resource{}
	if err := prototext.Unmarshal([]byte(cpus+text), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func same(t testing.TB, what string, want, got proto.Message) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

const (
	static  = `reservations { type: STATIC role: "a" }`
	dynamic = `reservations { type: DYNAMIC role: "a" principal: "p" labels { labels { key: "k" } } }`
	refined = `reservations { type: STATIC role: "a" } reservations { type: DYNAMIC role: "a/b" }`
)

func TestForms(t *testing.T) {
	for _, test := range []struct{ inside, old, both string }{
		{``, `role: "*"`, `role: "*"`},
		{static, `role: "a"`, static + `role: "a"`},
		{`reservations { type: DYNAMIC role: "a" }`, `role: "a" reservation {}`, `reservations { type: DYNAMIC role: "a" } role: "a" reservation {}`},
		{dynamic, `role: "a" reservation { principal: "p" labels { labels { key: "k" } } }`,
			dynamic + `role: "a" reservation { principal: "p" labels { labels { key: "k" } } }`},
	} {
		inside := res(t, test.inside)
		old := proto.CloneOf(inside)
		if !convert.Downgrade(old) {
			t.Errorf("%q cannot be told", test.inside)
		}
		same(t, "old form", res(t, test.old), old)
		both := proto.CloneOf(inside)
		convert.Both(both)
		same(t, "both forms", res(t, test.both), both)
		for _, r := range []*mezzov1.Resource{old, both, proto.CloneOf(inside)} {
			convert.Upgrade(r)
			same(t, "back", inside, r)
		}
		// What has the form already keeps it.
		again := res(t, test.old)
		if convert.Downgrade(again) {
			same(t, "twice", res(t, test.old), again)
		}
	}
}

func TestRefined(t *testing.T) {
	r := res(t, refined)
	if convert.Downgrade(r) {
		t.Error("the old form cannot tell of this")
	}
	same(t, "down", res(t, refined), r)
	convert.Both(r)
	same(t, "both", res(t, refined), r)
	r = res(t, refined+` role: "a/b" reservation { principal: "x" }`)
	convert.Upgrade(r)
	same(t, "the new fields win", res(t, refined), r)
}

// What contradicts itself goes to the master as it is, which refuses it.
func TestContradictions(t *testing.T) {
	for _, text := range []string{
		static + `role: "b"`, refined + `role: "a"`, `role: "*" reservation { principal: "p" }`, `reservation {}`,
	} {
		r := res(t, text)
		convert.Upgrade(r)
		same(t, text, res(t, text), r)
		if err := resource.Validate(r); err == nil {
			t.Errorf("%s is valid", text)
		}
	}
}

// form draws a resource in any form.
func form(t *rapid.T) *mezzov1.Resource {
	role := func(name string) *string {
		return rapid.SampledFrom([]*string{nil, proto.String("*"), proto.String("a"), proto.String("a/b"), proto.String("")}).Draw(t, name)
	}
	reservation := func(name string) *mezzov1.Resource_ReservationInfo {
		return &mezzov1.Resource_ReservationInfo{
			Principal: role(name + " principal"), Role: role(name + " role"),
			Type: rapid.SampledFrom([]*mezzov1.Resource_ReservationInfo_Type{nil,
				mezzov1.Resource_ReservationInfo_STATIC.Enum(), mezzov1.Resource_ReservationInfo_DYNAMIC.Enum()}).Draw(t, name+" type"),
		}
	}
	r := &mezzov1.Resource{Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(),
		Scalar: &mezzov1.Value_Scalar{Value: proto.Float64(1)}, Role: role("role")}
	if rapid.Bool().Draw(t, "reservation") {
		r.Reservation = reservation("old")
	}
	for range rapid.IntRange(0, 2).Draw(t, "stack") {
		r.Reservations = append(r.Reservations, reservation("new"))
	}
	return r
}

// Whatever form a resource has, what the master makes of it is the same before and
// after; and what the old form can tell comes back from it.
func TestMeaningIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := form(t)
		meant, wrong := resource.FromProto([]*mezzov1.Resource{r})
		inside := proto.CloneOf(r)
		convert.Upgrade(inside)
		got, err := resource.FromProto([]*mezzov1.Resource{inside})
		if (err == nil) != (wrong == nil) {
			t.Fatalf("%v: was %v, is %v", r, wrong, err)
		}
		if wrong != nil {
			return
		}
		if !got.Equal(meant) {
			t.Errorf("%v became %v", meant, got)
		}
		if inside.Role != nil || inside.Reservation != nil {
			t.Errorf("old fields are left in %v", inside)
		}
		old := proto.CloneOf(inside)
		if whole := convert.Downgrade(old); whole != (len(inside.Reservations) < 2) {
			t.Errorf("%v: expressible: %v", inside, whole)
		}
		convert.Upgrade(old)
		if s := inside.Reservations; len(s) == 1 && s[0].GetType() == mezzov1.Resource_ReservationInfo_STATIC {
			s[0].Principal = nil // nobody's, so the old form has no place for it
		}
		if diff := cmp.Diff(inside, old, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

// fill sets everything in a message that is no deeper than depth, and in resources
// only what they may have in the old form.
func fill(m protoreflect.Message, depth int) {
	if r, ok := m.Interface().(*mezzov1.Resource); ok {
		proto.Merge(r, &mezzov1.Resource{
			Name: proto.String("cpus"), Type: mezzov1.Value_SCALAR.Enum(), Role: proto.String("a"),
			AllocationInfo: &mezzov1.Resource_AllocationInfo{Role: proto.String("a")},
		})
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.IsMap() && fd.MapValue().Message() != nil && depth > 0:
			entries := m.Mutable(fd).Map()
			fill(entries.Mutable(protoreflect.ValueOfString("k").MapKey()).Message(), depth-1)
		case fd.IsMap() || fd.Message() == nil || depth == 0:
		case fd.IsList():
			list := m.Mutable(fd).List()
			fill(list.AppendMutable().Message(), depth-1)
			fill(list.AppendMutable().Message(), depth-1)
		default:
			fill(m.Mutable(fd).Message(), depth-1)
		}
	}
}

// count counts the resources in a message, and those of which test is true.
func count(m protoreflect.Message, test func(*mezzov1.Resource) bool) (all, of int) {
	if r, ok := m.Interface().(*mezzov1.Resource); ok {
		if test(r) {
			of = 1
		}
		return 1, of
	}
	add := func(v protoreflect.Value) {
		a, o := count(v.Message(), test)
		all, of = all+a, of+o
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				add(v)
				return true
			})
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				add(v.List().Get(i))
			}
		default:
			add(v)
		}
		return true
	})
	return all, of
}

// No resource is overlooked, wherever it is in a message.
func TestEverywhere(t *testing.T) {
	converter := convert.New()
	isNew := func(r *mezzov1.Resource) bool { return r.Role == nil && len(r.Reservations) == 1 }
	isOld := func(r *mezzov1.Resource) bool {
		return r.GetRole() == "a" && len(r.Reservations) == 0 && r.AllocationInfo == nil
	}
	for _, m := range []proto.Message{
		&schedulerv1.Call{}, &schedulerv1.Event{}, &executorv1.Call{}, &executorv1.Event{}, &masterv1.Call{}, &masterv1.Response{},
		&masterv1.Event{}, &agentv1.Call{}, &agentv1.Response{}, &mezzov1.TaskInfo{}, &mezzov1.Resource{},
	} {
		name := m.ProtoReflect().Descriptor().FullName()
		fill(m.ProtoReflect(), 6)
		converter.Upgrade(m)
		if all, of := count(m.ProtoReflect(), isNew); all == 0 || of != all {
			t.Errorf("%s: %d of %d resources in the new form", name, of, all)
		}
		if !converter.Downgrade(m, convert.Form{}) {
			t.Errorf("%s: cannot be told", name)
		}
		if all, of := count(m.ProtoReflect(), isOld); of != all {
			t.Errorf("%s: %d of %d resources in the old form", name, of, all)
		}
	}
}

func framework(capabilities ...mezzov1.FrameworkInfo_Capability_Type) *mezzov1.FrameworkInfo {
	info := &mezzov1.FrameworkInfo{Role: proto.String("a"), Roles: []string{"b", "c"}}
	for _, c := range capabilities {
		info.Capabilities = append(info.Capabilities, &mezzov1.FrameworkInfo_Capability{Type: c.Enum()})
	}
	return info
}

func TestForFrameworks(t *testing.T) {
	const multi, refinement = mezzov1.FrameworkInfo_Capability_MULTI_ROLE, mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT
	offers := func(resource string, allocation *mezzov1.Resource_AllocationInfo) *schedulerv1.Event {
		return &schedulerv1.Event{Offers: &schedulerv1.Event_Offers{Offers: []*mezzov1.Offer{{
			AllocationInfo: allocation, Resources: []*mezzov1.Resource{res(t, resource)},
		}}}}
	}
	role, allocated := &mezzov1.Resource_AllocationInfo{Role: proto.String("a")}, ` allocation_info { role: "a" }`
	for name, test := range map[string]struct {
		info *mezzov1.FrameworkInfo
		want *schedulerv1.Event
	}{
		"neither":    {framework(), offers(`role: "a"`, nil)},
		"multi-role": {framework(multi), offers(`role: "a"`+allocated, role)},
		"refinement": {framework(refinement), offers(static, nil)},
		"both":       {framework(multi, refinement), offers(static+allocated, role)},
	} {
		event := offers(static+allocated, role)
		if !convert.New().Downgrade(event, convert.FormOf(test.info)) {
			t.Errorf("%s: cannot be told", name)
		}
		same(t, name, test.want, event)
	}
	// What is refined is not hidden: it is there, in the one form that it has.
	event := offers(refined+allocated, role)
	if convert.New().Downgrade(event, convert.Form{}) {
		t.Error("the old form cannot tell of this")
	}
	same(t, "refined", offers(refined, nil), event)
}

func BenchmarkDowngrade(b *testing.B) {
	event := &schedulerv1.Event{Offers: &schedulerv1.Event_Offers{}}
	for range 50 {
		event.Offers.Offers = append(event.Offers.Offers, &mezzov1.Offer{Resources: []*mezzov1.Resource{
			res(b, static), res(b, static), res(b, ``), res(b, dynamic),
		}})
	}
	converter := convert.New()
	b.ReportAllocs()
	for b.Loop() {
		converter.Downgrade(event, convert.Form{MultiRole: true})
		converter.Upgrade(event)
	}
}
