package operation_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/operation"
	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func reserved(role string, amount float64) *mezzov1.Resource {
	return framework.Reserved(role, "ann", framework.Disk(amount))[0]
}

func volume(amount float64) *mezzov1.Resource {
	return framework.PersistentVolume(reserved("db", amount), "data", "data", "ann")
}

// TestThereAndBack: what an operation makes, its opposite makes undone, and no
// amount ever changes.
func TestThereAndBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		amount := float64(rapid.IntRange(2, 1_000_000).Draw(rt, "thousandths")) / 1000
		part := amount / 2
		v := volume(amount)
		if rapid.Bool().Draw(rt, "shared") {
			v = framework.Shared(v)
		}
		pairs := [][2]*mezzov1.Offer_Operation{
			{framework.Reserve("", reserved("db", amount)), framework.Unreserve("", reserved("db", amount))},
			{framework.CreateVolumes("", v), framework.DestroyVolumes("", v)},
		}
		if v.Shared == nil {
			less := resource.ScalarFromFloat(amount) - resource.ScalarFromFloat(part)
			if less > 0 && resource.ScalarFromFloat(part) > 0 {
				pairs = append(pairs, [2]*mezzov1.Offer_Operation{
					framework.ShrinkVolume("", v, part), framework.GrowVolume("", volume(less.Float()), reserved("db", resource.ScalarFromFloat(part).Float())),
				})
			}
		}
		for _, pair := range pairs {
			there, err := operation.Of(pair[0])
			if err != nil {
				rt.Fatal(err)
			}
			back, err := operation.Of(pair[1])
			if err != nil {
				rt.Fatal(err)
			}
			if !there.From.Equal(back.To) || !there.To.Equal(back.From) {
				rt.Fatalf("%s: %s to %s, and back %s to %s", pair[0].GetType(), there.From, there.To, back.From, back.To)
			}
			if !there.From.Quantities().Equal(there.To.Quantities()) {
				rt.Fatalf("%s: %s became %s", pair[0].GetType(), there.From, there.To)
			}
		}
	})
}

func TestRefused(t *testing.T) {
	other := volume(10)
	other.Disk.Source = &mezzov1.Resource_DiskInfo_Source{
		Type: mezzov1.Resource_DiskInfo_Source_MOUNT.Enum(), Mount: &mezzov1.Resource_DiskInfo_Source_Mount{Root: proto.String("/mnt")},
	}
	moved := framework.Reserve("", reserved("web", 10))
	for _, c := range []struct {
		name, want string
		op         *mezzov1.Offer_Operation
	}{
		{"nothing", "unknown operation type", &mezzov1.Offer_Operation{}},
		{"no resources", "names no resources", framework.Reserve("")},
		{"reserve what is not reserved", "not dynamically reserved", framework.Reserve("", framework.Disk(10))},
		{"reserve a volume", "the disk that it is made of can", framework.Reserve("", volume(10))},
		{"unreserve a volume", "must be destroyed before", framework.Unreserve("", volume(10))},
		{"create no volume", "it is not a persistent volume", framework.CreateVolumes("", reserved("db", 10))},
		{"create twice", "volume data of role db is there twice", framework.CreateVolumes("", volume(10), volume(20))},
		{"destroy no volume", "it is not a persistent volume", framework.DestroyVolumes("", framework.Disk(10))},
		{"grow by other disk", "must be disk like that of the volume", framework.GrowVolume("", volume(10), reserved("web", 1))},
		{"grow nothing", "'grow_volume' is not set", &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_GROW_VOLUME.Enum()}},
		{"shrink to nothing", "must be positive and less than the volume", framework.ShrinkVolume("", volume(10), 10)},
		{"shrink by less than counts", "must be positive and less than the volume", framework.ShrinkVolume("", volume(10), 0.0001)},
		{"shrink what is shared", "a shared volume cannot be resized", framework.ShrinkVolume("", framework.Shared(volume(10)), 1)},
		{"shrink a whole disk", "has all of it", framework.ShrinkVolume("", other, 1)},
		{"a disk of a provider", "needs a resource provider", &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_CREATE_DISK.Enum()}},
	} {
		if _, err := operation.Of(c.op); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	// From one role to another in one step.
	moved.Reserve.Source = []*mezzov1.Resource{reserved("db", 10)}
	if change, err := operation.Of(moved); err != nil || change.From[0].Kind.Role() != "db" || change.To[0].Kind.Role() != "web" {
		t.Errorf("a reservation that moves: %v %v", change, err)
	}
	moved.Reserve.Source = []*mezzov1.Resource{reserved("db", 11)}
	if _, err := operation.Of(moved); err == nil {
		t.Error("a reservation that moves changes the amount")
	}
}
