package state_test

import (
	"github.com/cockroachdb/datadriven"

	"github.com/mezzo-os/mezzo/sdk/framework"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// operationCommand is an operation that a line of a transcript asks for.
func operationCommand(d *datadriven.TestData) *linkv1.MasterMessage {
	id, role := arg(d, "id", ""), arg(d, "role", "db")
	disk := framework.Reserved(role, "ann", framework.Disk(float64(number(d, "disk", 100))))[0]
	volume := testVolume(d, float64(number(d, "disk", 100)))
	var op *mezzov1.Offer_Operation
	switch arg(d, "do", "") {
	case "reserve":
		op = framework.Reserve(id, disk)
	case "unreserve":
		op = framework.Unreserve(id, disk)
	case "create":
		op = framework.CreateVolumes(id, volume)
	case "destroy":
		op = framework.DestroyVolumes(id, volume)
	case "grow":
		op = framework.GrowVolume(id, volume, framework.Reserved(role, "ann", framework.Disk(float64(number(d, "by", 1))))[0])
	case "shrink":
		op = framework.ShrinkVolume(id, volume, float64(number(d, "by", 1)))
	default:
		op = &mezzov1.Offer_Operation{}
	}
	return &linkv1.MasterMessage{Message: &linkv1.MasterMessage_Operation{Operation: &linkv1.Operation{
		FrameworkId: arg(d, "framework", "F"), OperationId: id, Uuid: []byte(arg(d, "name", "")), Info: op,
	}}}
}

func testVolume(d *datadriven.TestData, size float64) *mezzov1.Resource {
	disk := framework.Reserved(arg(d, "role", "db"), "ann", framework.Disk(size))[0]
	volume := framework.PersistentVolume(disk, arg(d, "volume", "data"), arg(d, "at", "data"), "ann")
	if d.HasArg("shared") {
		volume = framework.Shared(volume)
	}
	return volume
}
