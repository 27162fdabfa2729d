package main

import (
	"testing"

	"github.com/mezzo-os/mezzo/sdk/allocator"
)

// Amounts are thousandths: 1 CPU is 1000.
var cluster = &allocator.Cluster{Names: []string{"mem", "cpus"}, Total: []int64{64_000_000, 16_000}}

func TestWhoHoldsLessIsServedFirst(t *testing.T) {
	p := newPolicy(&settings{Resource: "cpus", Frameworks: []framework{{Name: "billing", Weight: 3}}})
	one := &allocator.Candidate{Framework: "f1", Name: "batch", Weight: 1, Held: []int64{0, 1000}}
	two := &allocator.Candidate{Framework: "f2", Name: "batch", Weight: 1, Held: []int64{0, 2000}}
	heavy := &allocator.Candidate{Framework: "f3", Name: "billing", Weight: 1, Held: []int64{0, 2000}}
	role := &allocator.Candidate{Role: "billing", Weight: 2, Held: []int64{0, 4000}}
	for _, test := range []struct {
		name          string
		first, second *allocator.Candidate
	}{
		{"one CPU is less than two", one, two},
		{"two thirds are less than one", heavy, one},
		{"nothing is less than anything", &allocator.Candidate{Framework: "f4", Weight: 1, Held: []int64{9000}}, heavy},
		{"a framework's weight is not that of a role with its name", heavy, role},
	} {
		if a, b := p.Rank(test.first, cluster).Share, p.Rank(test.second, cluster).Share; a >= b {
			t.Errorf("%s: the shares are %v and %v", test.name, a, b)
		}
	}
	if a, b := p.Rank(role, cluster), p.Rank(two, cluster); a != b {
		t.Errorf("four CPUs of weight 2 are %v, two of weight 1 are %v", a, b)
	}
}

func TestSettings(t *testing.T) {
	if wrong := (&settings{Resource: "cpus", Frameworks: []framework{{Name: "a", Weight: 1}, {Name: "b", Weight: 0.5}}}).Validate(); len(wrong) > 0 {
		t.Errorf("good settings: %v", wrong)
	}
	if wrong := (&settings{Frameworks: []framework{{Name: "a"}, {Name: "a"}}}).Validate(); len(wrong) != 2 {
		t.Errorf("no resource, and a framework twice: %v", wrong)
	}
	if wrong := (framework{Name: "a", Weight: -1}).Validate(); len(wrong) != 1 {
		t.Errorf("a negative weight: %v", wrong)
	}
}
