package state_test

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

func customExecutor(id string) *mezzov1.ExecutorInfo {
	return &mezzov1.ExecutorInfo{
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, Type: mezzov1.ExecutorInfo_CUSTOM.Enum(),
		Command: &mezzov1.CommandInfo{Value: proto.String("./" + id)}, Resources: []*mezzov1.Resource{scalar("cpus", 0.1), scalar("mem", 32)},
	}
}

func executorCall(framework, executor string, kind executorv1.Call_Type) *executorv1.Call {
	return &executorv1.Call{
		Type: kind.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String(framework)}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String(executor)},
	}
}

func executorStatus(task string, s mezzov1.TaskState, uuid string) *mezzov1.TaskStatus {
	return &mezzov1.TaskStatus{
		TaskId: &mezzov1.TaskID{Value: proto.String(task)}, State: s.Enum(), Source: mezzov1.TaskStatus_SOURCE_EXECUTOR.Enum(),
		Uuid: []byte(fmt.Sprintf("%16s", uuid)),
	}
}

// executorCommand plays what executors do. Executors are x of framework F1
// unless the line says otherwise; a stream is named by its number.
//
// Calls have the executor's token, or with token=y that of another, with
// token=none none, and otherwise what stands there.
//
//	subscribe [stream=n] [adapter=a] [tasks=(t1)] [updates=(t1:RUNNING:7)]   with what is unacknowledged
//	report task=t1 state=RUNNING [uuid=7]     an UPDATE
//	say text                                  a MESSAGE
//	hang-up [stream=n]                        a stream ends
//	to-executor text                          the scheduler's MESSAGE
//	shutdown-executor
func executorCommand(w *world, d *datadriven.TestData) bool {
	framework, executor := arg(d, "framework", "F1"), arg(d, "executor", "x")
	executorCall := func(framework, executor string, kind executorv1.Call_Type) *executorv1.Call {
		call := executorCall(framework, executor, kind)
		switch name := arg(d, "token", executor); {
		case name == "none":
		case w.tokens[name] != "":
			call.Token = proto.String(w.tokens[name])
		case d.HasArg("token"):
			call.Token = proto.String(name)
		}
		return call
	}
	switch d.Cmd {
	case "subscribe":
		call := executorCall(framework, executor, executorv1.Call_SUBSCRIBE)
		call.Subscribe = &executorv1.Call_Subscribe{}
		for _, a := range d.CmdArgs {
			for _, v := range a.Vals {
				switch a.Key {
				case "tasks":
					call.Subscribe.UnacknowledgedTasks = append(call.Subscribe.UnacknowledgedTasks, taskInfo(v, ""))
				case "updates":
					p := strings.Split(v, ":")
					call.Subscribe.UnacknowledgedUpdates = append(call.Subscribe.UnacknowledgedUpdates,
						&executorv1.Call_Update{Status: executorStatus(p[0], taskState(p[1]), p[2])})
				}
			}
		}
		w.step(state.ExecutorSubscribe{Stream: uint64(number(d, "stream", 1)), Adapter: arg(d, "adapter", ""), Call: call})
	case "report":
		call := executorCall(framework, executor, executorv1.Call_UPDATE)
		s := executorStatus(arg(d, "task", "t1"), taskState(arg(d, "state", "RUNNING")), arg(d, "uuid", "1"))
		if d.HasArg("staging-source") {
			s.Source = mezzov1.TaskStatus_SOURCE_AGENT.Enum()
		}
		call.Update = &executorv1.Call_Update{Status: s}
		w.step(state.ExecutorCall{Caller: 1, Adapter: arg(d, "adapter", ""), Call: call})
	case "say":
		call := executorCall(framework, executor, executorv1.Call_MESSAGE)
		call.Message = &executorv1.Call_Message{Data: []byte(d.CmdArgs[0].Key)}
		w.step(state.ExecutorCall{Caller: 1, Call: call})
	case "hang-up":
		w.step(state.ExecutorClosed{Stream: uint64(number(d, "stream", 1))})
	default:
		return false
	}
	settleUnlessHeld(w, d)
	return true
}

// quiet keeps what happens out of the transcript.
func (w *world) quiet(f func()) {
	log := w.log
	w.log = func(string, ...any) {}
	f()
	w.log = log
}

func taskState(name string) mezzov1.TaskState {
	n, known := mezzov1.TaskState_value["TASK_"+name]
	if !known {
		panic("no such task state: " + name)
	}
	return mezzov1.TaskState(n)
}

func (w *world) describeExecutor(o state.Output) string {
	switch o := o.(type) {
	case state.SendExecutor:
		text := fmt.Sprintf("→ executor (stream %d) %v", o.Stream, o.Event.GetType())
		switch e := o.Event; {
		case e.GetSubscribed() != nil:
			s := e.GetSubscribed()
			text += fmt.Sprintf(" %s of %s in %s at port %d", s.GetExecutorInfo().GetExecutorId().GetValue(), s.GetFrameworkInfo().GetId().GetValue(),
				s.GetContainerId().GetValue(), s.GetAgentInfo().GetPort())
		case e.GetLaunch() != nil:
			text += " " + e.GetLaunch().GetTask().GetTaskId().GetValue()
		case e.GetLaunchGroup() != nil:
			for _, t := range e.GetLaunchGroup().GetTaskGroup().GetTasks() {
				text += " " + t.GetTaskId().GetValue()
			}
		case e.GetKill() != nil:
			text += " " + e.GetKill().GetTaskId().GetValue()
			if p := e.GetKill().GetKillPolicy(); p != nil {
				text += fmt.Sprintf(" within %v", p.GetGracePeriod().GetNanoseconds()/1e6) + "ms"
			}
		case e.GetAcknowledged() != nil:
			text += fmt.Sprintf(" %s %s", e.GetAcknowledged().GetTaskId().GetValue(), strings.TrimSpace(string(e.GetAcknowledged().GetUuid())))
		case e.GetMessage() != nil:
			text += fmt.Sprintf(" %q", e.GetMessage().GetData())
		}
		return w.short(text)
	case state.CloseExecutor:
		return fmt.Sprintf("close executor stream %d: %s", o.Stream, o.Reason)
	case state.RefuseExecutor:
		return fmt.Sprintf("refuse executor stream %d: %s (unknown=%v)", o.Stream, o.Message, o.Code == executorv1.CallResult_UNKNOWN_EXECUTOR)
	case state.AnswerExecutor:
		if o.Result.GetCode() == executorv1.CallResult_ACCEPTED {
			return "" // it goes without saying
		}
		return fmt.Sprintf("answer %v: %s", o.Result.GetCode(), o.Result.GetMessage())
	}
	return fmt.Sprintf("%T", o)
}
