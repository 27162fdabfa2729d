package plugintest

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/model"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// task is what the scenarios' tasks use.
func task() resource.Resources { return resource.MustParse("cpus:1;mem:1024") }

// capability skips a scenario of an optional part of the contract that the plugin does
// not serve.
func (c *scenario) capability(name, what string) {
	if !c.suite.serves(name) {
		c.skipf("it does not describe the capability %s: %s", name, what)
	}
}

func playMinRefuse(c *scenario) {
	begin := begun()
	begin.MinRefuse = time.Second
	s := c.sessionWith(model.New(begin))
	s.finish()
	s.newFramework("f", "*")
	s.newAgent("a", "cpus:4;mem:4096")
	for range 3 {
		s.decline(s.need("f", "a"), 0) // what comes at once is judged
		if s.wait("f", "a") == nil {
			s.failf("f declined agent a, with no filter; min_refuse is %v, and %v later it is not offered again", begin.MinRefuse, c.suite.options.Patience)
		}
	}
}

// persistent makes a volume of a disk.
func persistent() *mezzov1.Resource_DiskInfo {
	return &mezzov1.Resource_DiskInfo{
		Persistence: &mezzov1.Resource_DiskInfo_Persistence{Id: proto.String("verify"), Principal: proto.String("verify")},
		Volume:      &mezzov1.Volume{ContainerPath: proto.String("data"), Mode: mezzov1.Volume_RW.Enum()},
	}
}

// playShared has a volume that is shared, and reserved as volumes are.
func playShared(c *scenario) {
	c.capability("shared", "shared volumes are offered to nobody, or to one at a time")
	kind := resource.ScalarKind("disk").Push(resource.Reservation{Role: "eng", Dynamic: true}).
		WithDisk(persistent()).WithShared(true)
	volume := resource.Of(resource.Resource{Kind: kind, Scalar: 512 * resource.Unit, Count: 1})
	able := func(id string) *allocator.FrameworkUpdated {
		return &allocator.FrameworkUpdated{ID: id, Name: id, Roles: []string{"eng"}, Active: true, Capabilities: allocator.CapabilitySharedResources}
	}
	s := c.session()
	s.tell(able("f"))
	s.tell(&allocator.AgentUpdated{ID: "a", Version: 1, Total: resource.MustParse("cpus:4;mem:4096").Add(volume), Active: true, HoldingsSet: true})
	got := func(framework string) *allocator.Offer {
		for _, o := range s.to(framework, "a") {
			if o.Resources.Contains(volume) {
				return o
			}
		}
		return nil
	}
	for i, id := range []string{"f", "g", "h"} {
		if i > 0 {
			s.tell(able(id))
		}
		if !s.await(func() bool { return got(id) != nil }) {
			s.failf("framework %s can handle shared resources, and is not offered the shared volume of agent a, which %d others use", id, i)
		}
		// It uses the volume, and gives the rest back.
		s.answer = func(o *allocator.Offer) {
			if o.Framework == id {
				s.decline(o, time.Hour)
			}
		}
		for _, o := range s.to(id, "a") {
			s.tell(&allocator.Suppressed{Framework: id, Roles: []string{"eng"}})
			s.accept(o, o.Resources.Intersect(task()).Add(o.Resources.Shared()))
		}
		s.settle()
	}
}

func playConstraints(c *scenario) {
	c.capability("constraints", "frameworks are offered what their offer constraints exclude")
	s := c.session()
	rack := func(id string, attributes ...allocator.Attribute) {
		s.tell(&allocator.AgentUpdated{ID: id, Hostname: "host-" + id, Version: 1, Total: resource.MustParse("cpus:4;mem:4096"), Active: true, HoldingsSet: true, Attributes: attributes})
	}
	rack("r1", allocator.Attribute{Name: "rack", Text: "r1"})
	rack("r2", allocator.Attribute{Name: "rack", Text: "r2"}, allocator.Attribute{Name: "ssd", Text: "yes"})
	rack("none")
	named := &schedulerv1.AttributeConstraint_Selector{Selector: &schedulerv1.AttributeConstraint_Selector_AttributeName{AttributeName: "rack"}}
	host := &schedulerv1.AttributeConstraint_Selector{Selector: &schedulerv1.AttributeConstraint_Selector_PseudoattributeType_{
		PseudoattributeType: schedulerv1.AttributeConstraint_Selector_HOSTNAME}}
	type predicate = schedulerv1.AttributeConstraint_Predicate
	for i, x := range []struct {
		what      string
		selector  *schedulerv1.AttributeConstraint_Selector
		predicate *predicate
		want      []string
	}{
		{"the rack is r1", named, &predicate{Predicate: &schedulerv1.AttributeConstraint_Predicate_TextEquals_{
			TextEquals: &schedulerv1.AttributeConstraint_Predicate_TextEquals{Value: proto.String("r1")}}}, []string{"r1"}},
		{"the rack is not r1", named, &predicate{Predicate: &schedulerv1.AttributeConstraint_Predicate_TextNotEquals_{
			TextNotEquals: &schedulerv1.AttributeConstraint_Predicate_TextNotEquals{Value: proto.String("r1")}}}, []string{"r2", "none"}},
		{"there is a rack", named, &predicate{Predicate: &schedulerv1.AttributeConstraint_Predicate_Exists_{
			Exists: &schedulerv1.AttributeConstraint_Predicate_Exists{}}}, []string{"r1", "r2"}},
		{"there is no rack", named, &predicate{Predicate: &schedulerv1.AttributeConstraint_Predicate_NotExists_{
			NotExists: &schedulerv1.AttributeConstraint_Predicate_NotExists{}}}, []string{"none"}},
		{"the host name ends in 2", host, &predicate{Predicate: &schedulerv1.AttributeConstraint_Predicate_TextMatches_{
			TextMatches: &schedulerv1.AttributeConstraint_Predicate_TextMatches{Regex: proto.String(".*2")}}}, []string{"r2"}},
	} {
		constraints, err := proto.Marshal(&schedulerv1.OfferConstraints_RoleConstraints{Groups: []*schedulerv1.OfferConstraints_RoleConstraints_Group{
			{AttributeConstraints: []*schedulerv1.AttributeConstraint{{Selector: x.selector, Predicate: x.predicate}}}}})
		if err != nil {
			s.c.failf("write a constraint: %v", err)
		}
		id := fmt.Sprint("f", i)
		s.never = func(o *allocator.Offer) string {
			for _, agent := range x.want {
				if o.Agent == agent {
					return ""
				}
			}
			return "the framework wants agents of which it is true that " + x.what
		}
		s.tell(&allocator.FrameworkUpdated{ID: id, Name: id, Roles: []string{"*"}, Active: true, Settings: []allocator.RoleSettings{{Role: "*", Constraints: constraints}}})
		for _, agent := range x.want {
			if s.wait(id, agent) == nil {
				s.failf("%s is constrained to agents of which it is true that %s; agent %s is not offered to it", id, x.what, agent)
			}
		}
		s.settle()
		s.leave(id)
		s.never = nil
		s.acknowledged()
	}
}

// playConversions reserves what a framework was offered, makes a volume of it,
// and unreserves what nobody holds.
func playConversions(c *scenario) {
	c.needs = []string{"revive"}
	s := c.session()
	s.newFramework("f", "eng")
	s.newAgent("a", "cpus:4;mem:4096;disk:1024")
	s.need("f", "a")
	s.settle()
	s.newFramework("g", "ops")
	plain := resource.MustParse("cpus:2;mem:2048;disk:512")
	reservation := resource.Reservation{Role: "eng", Dynamic: true, Principal: "verify"}
	reserved := plain.Push(reservation)
	version := uint64(1)
	convert := func(framework string, from, to resource.Resources) {
		version++
		role := ""
		if framework != "" {
			role = "eng"
		}
		s.tell(&allocator.Converted{Agent: "a", Framework: framework, Role: role, From: from, To: to, Version: version})
	}
	for _, o := range s.to("f", "a") {
		s.Take(o)
	}
	convert("f", plain, reserved)
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"eng"}})
	s.tell(&allocator.Released{Agent: "a", Framework: "f", Role: "eng", Resources: s.Held[s.holder("a", "f", "eng")]})
	rest := func() bool { return s.Free("a").Equal(reserved) }
	if !s.await(rest) {
		s.failf("f reserved %s of agent a to eng, and gave everything back; g, in role ops, is not offered the rest", plain)
	}
	s.settle()
	s.tell(&allocator.Revived{Framework: "f", Roles: []string{"eng"}})
	if !s.await(func() bool { return len(s.to("f", "a")) > 0 && s.Free("a").IsEmpty() }) {
		s.failf("f reserved %s of agent a to its role eng, and is not offered it", plain)
	}
	s.settle()
	disk := resource.MustParse("disk:512").Push(reservation)
	volume := resource.Of(resource.Resource{Kind: disk[0].Kind.WithDisk(persistent()), Scalar: 512 * resource.Unit, Count: 1})
	for _, o := range s.to("f", "a") {
		s.Take(o)
	}
	convert("f", disk, volume)
	s.tell(&allocator.Released{Agent: "a", Framework: "f", Role: "eng", Resources: s.Held[s.holder("a", "f", "eng")]})
	if !s.await(func() bool {
		for _, o := range s.to("f", "a") {
			if o.Resources.Contains(volume) {
				return true
			}
		}
		return false
	}) {
		s.failf("f made a volume on agent a, and gave everything back; the volume is not offered to it")
	}
	s.tell(&allocator.Suppressed{Framework: "f", Roles: []string{"eng"}})
	for _, o := range s.to("f", "a") {
		s.decline(o, 0)
	}
	s.settle()
	// The operator destroys and unreserves what nobody holds.
	convert("", volume, disk)
	convert("", reserved, plain)
	s.allOffered("a", "the operator unreserved everything that was reserved")
}
