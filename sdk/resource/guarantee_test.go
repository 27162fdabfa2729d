package resource_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

func TestGuaranteed(t *testing.T) {
	got := resource.Guaranteed(map[string]resource.Quantities{
		"eng":           resource.MustParse("cpus:4;mem:10").Quantities(),
		"eng/web":       resource.MustParse("cpus:3").Quantities(),
		"eng/web/ads":   resource.MustParse("cpus:1;gpus:2").Quantities(),
		"eng/batch/x/y": resource.MustParse("cpus:2").Quantities(),
		"ops":           resource.MustParse("cpus:1").Quantities(),
		"none":          nil,
	})
	for name, want := range map[string]string{
		"eng": "cpus:5;gpus:2;mem:10", "eng/web": "cpus:3;gpus:2", "eng/web/ads": "cpus:1;gpus:2",
		"eng/batch": "cpus:2", "eng/batch/x": "cpus:2", "eng/batch/x/y": "cpus:2", "ops": "cpus:1", "": "cpus:6;gpus:2;mem:10",
	} {
		if got[name].String() != want {
			t.Errorf("%q has %s, want %s", name, got[name], want)
		}
	}
	if len(got) != 8 {
		t.Errorf("got %v", got)
	}
}

// What is guaranteed to a role is no less than its own guarantee and than what
// is guaranteed to its children, and is one of them.
func TestGuaranteedIsTheGreater(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		own := map[string]resource.Quantities{}
		for range rapid.IntRange(0, 8).Draw(t, "roles") {
			name := rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "a/d", "e", "e/f/g"}).Draw(t, "role")
			own[name] = resource.MustParse(fmt.Sprintf("cpus:%d", rapid.IntRange(0, 9).Draw(t, "cpus"))).Quantities()
		}
		got := resource.Guaranteed(own)
		for name := range got {
			var children resource.Scalar
			for child := range got {
				if child != "" && resource.ParentRole(child) == name {
					children += got[child].Get("cpus")
				}
			}
			if want := max(own[name].Get("cpus"), children); got[name].Get("cpus") != want {
				t.Fatalf("%v: %q has %v, want %v", own, name, got[name], want)
			}
		}
	})
}
