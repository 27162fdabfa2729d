package agent

import (
	"context"
	"slices"

	"github.com/mezzo-os/mezzo/core/agent/state"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// detail is the agent as frameworks see it.
func (a *Agent) detail(ctx context.Context) (*operatorv1.AgentStateDetail, error) {
	var d state.Detail
	if err := a.query(ctx, func(m *state.Machine) { d = m.Detail() }); err != nil {
		return nil, err
	}
	out := &operatorv1.AgentStateDetail{Info: d.Info, Version: d.Version, Started: stamp(a.born), Frameworks: d.Frameworks, Operations: d.Operations}
	for _, e := range d.Executors {
		x := &operatorv1.AgentExecutor{
			FrameworkId: e.FrameworkID, Info: e.Info, Role: e.Role, ContainerId: e.Container, Command: e.Command, Completed: e.Completed,
		}
		if e.Sandbox != "" {
			x.Directory = a.work.path(e.Sandbox)
		}
		out.Executors = append(out.Executors, x)
	}
	for _, t := range d.Tasks {
		out.Tasks = append(out.Tasks, &operatorv1.AgentTask{Task: t.Task, Role: t.Role, Place: string(t.Place), Run: t.Run})
	}
	for s, n := range d.Ended {
		out.Ended = append(out.Ended, &operatorv1.EndedTasks{State: s.Enum(), Count: n})
	}
	slices.SortFunc(out.Ended, func(x, y *operatorv1.EndedTasks) int { return int(x.GetState()) - int(y.GetState()) })
	return out, nil
}
