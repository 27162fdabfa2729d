package agent_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	linkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// An operation is shown from when it is known to be done until that is
// acknowledged, also by the agent's next process.
func TestOperationsAreShown(t *testing.T) {
	m := newMaster(t)
	p := start(t, options(t, m, newIsolator(t, newKernel()).up()))
	m.registered()
	m.ready()
	uuid := []byte("0123456789abcdef")
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_Operation{Operation: &linkv1.Operation{
		FrameworkId: "F1", OperationId: "o", Uuid: uuid, Info: framework.Reserve("o", framework.Reserved("db", "ann", resource.MustParse("cpus:1").ToProto()...)...),
	}}})
	told := func() *linkv1.OperationUpdate {
		return await(m, "the operation's end", func(a *linkv1.AgentMessage) (*linkv1.OperationUpdate, bool) {
			return a.GetOperation(), a.GetOperation() != nil
		})
	}
	end := told()
	shown := func() []*mezzov1.Operation {
		t.Helper()
		state, err := p.GetState(within(t), &operatorv1.GetAgentStateRequest{Detail: true})
		if err != nil {
			t.Fatal(err)
		}
		return state.GetDetail().GetOperations()
	}
	check := func() {
		t.Helper()
		list := shown()
		if len(list) != 1 || string(list[0].GetUuid().GetValue()) != string(uuid) || list[0].GetFrameworkId().GetValue() != "F1" ||
			list[0].GetInfo().GetType() != mezzov1.Offer_Operation_RESERVE || !proto.Equal(list[0].GetLatestStatus(), end.GetStatus()) {
			t.Fatalf("operations are %v, want the one that ended with %v", list, end.GetStatus())
		}
	}
	check()
	p = start(t, p.crashed(t))
	m.registered()
	check()
	m.send(&linkv1.MasterMessage{Message: &linkv1.MasterMessage_AcknowledgeOperation{AcknowledgeOperation: &linkv1.AcknowledgeOperation{
		FrameworkId: "F1", OperationUuid: uuid, StatusUuid: end.GetStatus().GetUuid().GetValue(),
	}}})
	m.run(task("t1")) // which is behind it
	m.update(mezzov1.TaskState_TASK_RUNNING)
	if list := shown(); len(list) != 0 {
		t.Errorf("acknowledged, it is still shown: %v", list)
	}
}
