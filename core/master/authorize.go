package master

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// authorize asks whether the caller may do something.
func (m *Master) authorize(ctx context.Context, action rpc.Action, object rpc.Object) error {
	return m.authorizer.Authorize(ctx, rpc.PrincipalFrom(ctx), action, object)
}

// authorizeAll asks for several objects, all of which the caller must be allowed.
func (m *Master) authorizeAll(ctx context.Context, action rpc.Action, objects []rpc.Object) error {
	for _, object := range objects {
		if err := m.authorize(ctx, action, object); err != nil {
			return err
		}
	}
	return nil
}

// indifferent is whether nobody will look at what an object is.
func (m *Master) indifferent() bool { return m.options.Authorizer == nil && m.policy.Open() }

// known looks something up in the mirror; again, once that has caught up, if it
// is not there: what was answered a moment ago may be on its way. It is nil when
// there is no such thing.
func known[V any](ctx context.Context, m *Master, find func() *V) *V {
	v := find()
	if v == nil && !m.indifferent() {
		(&operatorService{master: m}).catchUp(ctx)
		v = find()
	}
	return v
}

func (m *Master) knownFramework(ctx context.Context, id string) *state.FrameworkView {
	return known(ctx, m, func() *state.FrameworkView { return m.mirror.framework(id) })
}

// frameworkRoles are those of a FrameworkInfo, one at least.
func frameworkRoles(info *mezzov1.FrameworkInfo) []string {
	if roles := info.GetRoles(); len(roles) > 0 {
		return roles
	}
	return []string{info.GetRole()}
}

// frameworkObjects are a framework in each of its roles, or something of it whose
// role nobody knows. Of a framework that is not known its id is all.
func frameworkObjects(f *state.FrameworkView, framework, id string) []rpc.Object {
	object := rpc.Object{ID: id, FrameworkID: framework}
	if f == nil {
		return []rpc.Object{object}
	}
	object.User, object.Owner = f.Info.GetUser(), f.Info.GetPrincipal()
	var out []rpc.Object
	for _, role := range frameworkRoles(f.Info) {
		object.Role = role
		out = append(out, object)
	}
	return out
}

// taskObjects are a task, or what it could be: one that is not known has the user
// of its framework, in each of its roles. Without a framework they are all tasks
// of that id.
func (m *Master) taskObjects(ctx context.Context, framework, id string) []rpc.Object {
	if m.indifferent() {
		return []rpc.Object{{ID: id, FrameworkID: framework}}
	}
	find := func() *[]*state.TaskView {
		q := &operatorv1.ListTasksRequest{TaskId: id, FrameworkId: framework, Completed: true}
		if framework != "" {
			if v := m.mirror.task(state.TaskKey{FrameworkID: framework, TaskID: id}); v != nil {
				return &[]*state.TaskView{v}
			}
		} else if list := m.mirror.listTasks(q); len(list) > 0 {
			return &list
		}
		return nil
	}
	tasks := known(ctx, m, find)
	if tasks == nil {
		return frameworkObjects(m.mirror.framework(framework), framework, id)
	}
	var out []rpc.Object
	for _, v := range *tasks {
		f := m.mirror.framework(v.FrameworkID)
		object := rpc.Object{ID: id, FrameworkID: v.FrameworkID, Role: v.Role, User: taskDetail(v).GetTask().GetUser()}
		if f != nil {
			object.User, object.Owner = cmp.Or(object.User, f.Info.GetUser()), f.Info.GetPrincipal()
		}
		out = append(out, object)
	}
	return out
}

// executorObjects are an executor, or what it could be.
func (m *Master) executorObjects(ctx context.Context, key state.ExecutorKey) []rpc.Object {
	v := known(ctx, m, func() *state.ExecutorView { return m.mirror.executor(key) })
	objects := frameworkObjects(m.mirror.framework(key.FrameworkID), key.FrameworkID, key.ExecutorID)
	if v == nil {
		return objects
	}
	object := objects[0]
	object.Role, object.User = v.Role, cmp.Or(v.Info.GetCommand().GetUser(), object.User)
	return []rpc.Object{object}
}

// authorizeSandbox asks whether the caller may read at a path of an agent's. The
// agent knows the master alone as the one who asks, so that the path is read here
// as it is there.
func (m *Master) authorizeSandbox(ctx context.Context, name string) error {
	framework, executor := sandboxOf(name)
	if framework == "" || m.indifferent() {
		return m.authorize(ctx, rpc.ReadSandbox, rpc.Object{ID: name})
	}
	// A task that brings no executor has one of its own name.
	if v := m.mirror.task(state.TaskKey{FrameworkID: framework, TaskID: executor}); v != nil && (v.ExecutorID == "" || v.ExecutorID == executor) {
		return m.authorizeAll(ctx, rpc.ReadSandbox, m.taskObjects(ctx, framework, executor))
	}
	for _, v := range m.mirror.listTasks(&operatorv1.ListTasksRequest{FrameworkId: framework, Completed: true}) {
		if v.ExecutorID == executor {
			objects := m.taskObjects(ctx, framework, v.TaskID)
			for i := range objects {
				objects[i].ID = executor
			}
			return m.authorizeAll(ctx, rpc.ReadSandbox, objects)
		}
	}
	return m.authorizeAll(ctx, rpc.ReadSandbox, frameworkObjects(m.knownFramework(ctx, framework), framework, executor))
}

// sandboxOf are the framework and the executor of a path, as agents read them:
// /frameworks/F/executors/E/runs/…, below agents/ID where it is a file's own
// path. Empty: it is in no framework's sandbox.
func sandboxOf(name string) (framework, executor string) {
	parts := strings.Split(strings.TrimPrefix(path.Clean("/"+name), "/"), "/")
	if parts[0] != "frameworks" {
		i := slices.Index(parts, "agents")
		if i < 0 || len(parts) < i+3 || parts[i+2] != "frameworks" {
			return "", ""
		}
		parts = parts[i+2:]
	}
	if len(parts) < 5 || parts[2] != "executors" || parts[4] != "runs" {
		return "", ""
	}
	return parts[1], parts[3]
}

// launch is what is known of the tasks of an ACCEPT before they are looked at.
type launch struct {
	framework *state.FrameworkView // nil: it is not known
	offered   []string             // the roles that the offers are made to, or could be
}

func (m *Master) launchOf(ctx context.Context, id string, offers []*mezzov1.OfferID) launch {
	l := launch{framework: m.knownFramework(ctx, id)}
	if l.framework == nil {
		l.offered = []string{""}
		return l
	}
	l.offered = frameworkRoles(l.framework.Info)
	if len(l.offered) == 1 {
		return l
	}
	for _, offer := range offers {
		if v := m.mirror.offer(offer.GetValue()); v != nil {
			l.offered = []string{v.Role} // those of an ACCEPT are made to one role
			break
		}
	}
	return l
}

// owner is the framework's principal.
func (l launch) owner() string {
	if l.framework == nil {
		return ""
	}
	return l.framework.Info.GetPrincipal()
}

// users are those as whom a task would run: the most particular that is named
// for it, and if it brings an executor, for that.
func (l launch) users(task *mezzov1.TaskInfo, executor *mezzov1.ExecutorInfo) []string {
	if executor == nil {
		executor = task.GetExecutor()
	}
	user := executor.GetCommand().GetUser()
	if user == "" && l.framework != nil {
		user = l.framework.Info.GetUser()
	}
	own := cmp.Or(task.GetCommand().GetUser(), user)
	if executor == nil || own == user {
		return []string{own}
	}
	return []string{own, user}
}

// roles are those in which a task could be: that which its resources name, which
// is the offers' or else the task is refused, or those of the offers.
func (l launch) roles(task *mezzov1.TaskInfo) []string {
	for _, r := range task.GetResources() {
		if role := r.GetAllocationInfo().GetRole(); role != "" {
			return []string{role}
		}
	}
	return l.offered
}
