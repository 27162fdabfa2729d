package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// How well a name fits an object. The best fit counts, and has to be the only one.
const (
	noFit     = iota
	prefixFit // the beginning of its id
	nameFit   // its name, its host name, or the end of its id
	exactFit  // its id
)

// idFit is how well a name fits an id.
func idFit(name, id string) int {
	switch {
	case id == name:
		return exactFit
	case strings.HasSuffix(id, "-"+name):
		return nameFit
	case name != "" && strings.HasPrefix(id, name):
		return prefixFit
	}
	return noFit
}

// unknownError is that a name means nothing. list is the verb that lists what
// there is.
type unknownError struct{ what, name, list string }

func (e *unknownError) Error() string {
	return fmt.Sprintf("no %s %q is known; %s lists them", e.what, e.name, e.list)
}

// awaited says why tasks may be missing of what a master knows; empty: it knows all.
func awaited(ctx context.Context, client operatorv1.OperatorClient) string {
	s, err := client.GetStatus(ctx, &operatorv1.GetStatusRequest{})
	if err != nil || s.GetLeadership() != "recovering" {
		return "" // the question itself has an answer
	}
	return fmt.Sprintf("this master leads for %s, and %d of %d agents have not come back to it: what they run is not known until then", age(s.GetElected()), s.GetAgents().GetTotal()-s.GetAgents().GetActive(), s.GetAgents().GetTotal())
}

// pick returns the object that a name means. list is the verb that lists them;
// label is how one is called when several are meant.
func pick[T any](what, name, list string, items []T, fit func(T) int, label func(T) string) (T, error) {
	var found []T
	best := prefixFit
	for _, item := range items {
		switch f := fit(item); {
		case f > best:
			best, found = f, append(found[:0:0], item)
		case f == best:
			found = append(found, item)
		}
	}
	var none T
	switch len(found) {
	case 0:
		return none, &unknownError{what, name, list}
	case 1:
		return found[0], nil
	}
	labels := make([]string, 0, len(found))
	for _, item := range found[:min(len(found), 5)] {
		labels = append(labels, label(item))
	}
	if more := len(found) - len(labels); more > 0 {
		labels = append(labels, fmt.Sprintf("%d more", more))
	}
	return none, fmt.Errorf("%q means %d %ss: say which, of\n  %s", name, len(found), what, strings.Join(labels, "\n  "))
}

// findAgent finds an agent by its id, the beginning or the end of it, or its host
// name.
func findAgent(agents []*operatorv1.Agent, name string) (*operatorv1.Agent, error) {
	return pick("agent", name, "mezzo agents", agents, func(a *operatorv1.Agent) int {
		if strings.EqualFold(a.Hostname, name) {
			return max(nameFit, idFit(name, a.Id))
		}
		return idFit(name, a.Id)
	}, func(a *operatorv1.Agent) string { return fmt.Sprintf("%s (%s, %s)", a.Id, a.Hostname, a.State) })
}

// findFramework finds a framework by its id, the beginning or the end of it, or
// its name. Of one that is gone the name does not count while another has it.
func findFramework(frameworks []*operatorv1.Framework, name string) (*operatorv1.Framework, error) {
	named := func(f *operatorv1.Framework) bool { return f.Name == name }
	lives := false
	for _, f := range frameworks {
		lives = lives || named(f) && f.State != "completed"
	}
	return pick("framework", name, "mezzo frameworks --all", frameworks, func(f *operatorv1.Framework) int {
		if named(f) && (f.State != "completed" || !lives) {
			return max(nameFit, idFit(name, f.Id))
		}
		return idFit(name, f.Id)
	}, func(f *operatorv1.Framework) string { return fmt.Sprintf("%s (%s, %s)", f.Id, f.Name, f.State) })
}

// agentNamed asks for the agents and finds one.
func agentNamed(ctx context.Context, client operatorv1.OperatorClient, name string) (*operatorv1.Agent, error) {
	answer, err := client.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
	if err != nil {
		return nil, err
	}
	return findAgent(answer.GetAgents(), name)
}

// frameworkID is the id of the framework that a name means; empty for none.
func frameworkID(ctx context.Context, client operatorv1.OperatorClient, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	answer, err := client.ListFrameworks(ctx, &operatorv1.ListFrameworksRequest{Completed: true})
	if err != nil {
		return "", err
	}
	f, err := findFramework(answer.GetFrameworks(), name)
	return f.GetId(), err
}

// taskNamed finds a task by its id or the beginning of it, in a framework or in
// any; with ended also among those that have.
func taskNamed(ctx context.Context, client operatorv1.OperatorClient, name, framework string, ended bool) (*operatorv1.Task, error) {
	framework, err := frameworkID(ctx, client, framework)
	if err != nil {
		return nil, err
	}
	list := "mezzo tasks"
	if ended {
		list += " --all"
	}
	find := func(tasks []*operatorv1.Task) (*operatorv1.Task, error) {
		return pick("task", name, list, tasks, func(t *operatorv1.Task) int { return idFit(name, t.Id) }, func(t *operatorv1.Task) string {
			return fmt.Sprintf("%s (%s, --framework %s)", t.Id, taskState(t), t.FrameworkId)
		})
	}
	// By the id alone it is cheap; the list may be that of a large cluster.
	answer, err := client.ListTasks(ctx, &operatorv1.ListTasksRequest{TaskId: name, FrameworkId: framework, Completed: ended})
	if err == nil && len(answer.Tasks) == 0 {
		answer, err = client.ListTasks(ctx, &operatorv1.ListTasksRequest{FrameworkId: framework, Completed: ended})
	}
	if err != nil {
		return nil, err
	}
	task, err := find(answer.Tasks)
	if unknown := (*unknownError)(nil); errors.As(err, &unknown) {
		if why := awaited(ctx, client); why != "" {
			err = fmt.Errorf("%w; %s", err, why)
		}
	}
	return task, err
}
