package mirror

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// contents is the copy while it changes. Messages in it are never changed, only
// replaced; snapshots share them.
type contents struct {
	number     uint64
	agents     map[string]*operatorv1.AgentDetail
	frameworks map[string]*owner
	roles      map[string]*operatorv1.Role
	plugins    map[string]*operatorv1.Plugin
	offers     map[string]*owner             // whose it is
	operations map[string]*mezzov1.Operation // by uuid

	// What snapshots share until it changes; nil: it has changed.
	agentList []*operatorv1.AgentDetail
	agentByID map[string]*operatorv1.AgentDetail
	last      *Snapshot
}

// owner is a framework and what it has.
type owner struct {
	detail    *operatorv1.FrameworkDetail // nil: nothing was said of it yet
	tasks     map[string]*operatorv1.TaskDetail
	offers    map[string]*mezzov1.Offer
	executors map[executorKey]*operatorv1.ExecutorDetail
	view      *Framework // what snapshots share until it changes
	stale     bool
}

type executorKey struct{ agent, executor string }

func newContents() *contents {
	return &contents{
		agents: map[string]*operatorv1.AgentDetail{}, frameworks: map[string]*owner{},
		roles: map[string]*operatorv1.Role{}, plugins: map[string]*operatorv1.Plugin{},
		offers: map[string]*owner{}, operations: map[string]*mezzov1.Operation{},
	}
}

func (c *contents) owner(id string) *owner {
	o := c.frameworks[id]
	if o == nil {
		o = &owner{
			tasks: map[string]*operatorv1.TaskDetail{}, offers: map[string]*mezzov1.Offer{}, executors: map[executorKey]*operatorv1.ExecutorDetail{},
		}
		c.frameworks[id] = o
	}
	return o
}

// apply brings the contents up to date and returns what changed; nil: nothing
// that anybody listens for.
func (c *contents) apply(event *operatorv1.WatchEvent) *Change {
	if event.GetNumber() > 0 {
		c.number = event.GetNumber()
	}
	c.last = nil
	switch e := event.GetEvent().(type) {
	case *operatorv1.WatchEvent_AgentDetail:
		change := &Change{Agent: e.AgentDetail, OldAgent: c.agents[e.AgentDetail.GetId()]}
		c.agents[e.AgentDetail.GetId()] = e.AgentDetail
		c.agentList, c.agentByID = nil, nil
		return change
	case *operatorv1.WatchEvent_AgentRemoved:
		change := &Change{OldAgent: c.agents[e.AgentRemoved]}
		delete(c.agents, e.AgentRemoved)
		c.agentList, c.agentByID = nil, nil
		return change
	case *operatorv1.WatchEvent_FrameworkDetail:
		o := c.owner(e.FrameworkDetail.GetInfo().GetId().GetValue())
		change := &Change{Framework: e.FrameworkDetail, OldFramework: o.detail}
		o.detail, o.stale = e.FrameworkDetail, true
		return change
	case *operatorv1.WatchEvent_FrameworkRemoved:
		delete(c.frameworks, e.FrameworkRemoved)
	case *operatorv1.WatchEvent_TaskDetail:
		task := e.TaskDetail.GetTask()
		o := c.owner(task.GetFrameworkId().GetValue())
		change := &Change{Task: e.TaskDetail, OldTask: o.tasks[task.GetTaskId().GetValue()]}
		o.tasks[task.GetTaskId().GetValue()] = e.TaskDetail
		o.stale = true
		return change
	case *operatorv1.WatchEvent_TaskRemoved:
		if o := c.frameworks[e.TaskRemoved.GetFrameworkId()]; o != nil {
			delete(o.tasks, e.TaskRemoved.GetTaskId())
			o.stale = true
		}
	case *operatorv1.WatchEvent_Role:
		c.roles[e.Role.GetName()] = e.Role
	case *operatorv1.WatchEvent_RoleRemoved:
		delete(c.roles, e.RoleRemoved)
	case *operatorv1.WatchEvent_Plugin:
		c.plugins[e.Plugin.GetId()] = e.Plugin
	case *operatorv1.WatchEvent_PluginRemoved:
		delete(c.plugins, e.PluginRemoved)
	default:
		c.applyHoldings(event)
	}
	return nil
}

// applyHoldings takes over what is said of offers, executors and operations.
func (c *contents) applyHoldings(event *operatorv1.WatchEvent) {
	switch e := event.GetEvent().(type) {
	case *operatorv1.WatchEvent_OfferDetail:
		o := c.owner(e.OfferDetail.GetFrameworkId().GetValue())
		o.offers[e.OfferDetail.GetId().GetValue()] = e.OfferDetail
		c.offers[e.OfferDetail.GetId().GetValue()] = o
		o.stale = true
	case *operatorv1.WatchEvent_OfferRemoved:
		if o := c.offers[e.OfferRemoved]; o != nil {
			delete(c.offers, e.OfferRemoved)
			delete(o.offers, e.OfferRemoved)
			o.stale = true
		}
	case *operatorv1.WatchEvent_Executor:
		o := c.owner(e.Executor.GetFrameworkId())
		o.executors[executorKey{e.Executor.GetAgentId(), e.Executor.GetInfo().GetExecutorId().GetValue()}] = e.Executor
		o.stale = true
	case *operatorv1.WatchEvent_ExecutorRemoved:
		if o := c.frameworks[e.ExecutorRemoved.GetFrameworkId()]; o != nil {
			delete(o.executors, executorKey{e.ExecutorRemoved.GetAgentId(), e.ExecutorRemoved.GetExecutorId()})
			o.stale = true
		}
	case *operatorv1.WatchEvent_Operation:
		c.operations[string(e.Operation.GetUuid().GetValue())] = e.Operation
	case *operatorv1.WatchEvent_OperationRemoved:
		delete(c.operations, string(e.OperationRemoved))
	}
}

// Snapshot is the cluster at one moment. It is never changed.
type Snapshot struct {
	// Master is what the master said of itself.
	Master *operatorv1.Status
	// Agents are sorted by the time of their registration; so are Frameworks.
	// Roles are sorted by name, plugins by id.
	// Operations, sorted by agent and uuid, are those that somebody waits for.
	Agents     []*operatorv1.AgentDetail
	Frameworks []*Framework
	Roles      []*operatorv1.Role
	Plugins    []*operatorv1.Plugin
	Operations []*mezzov1.Operation

	agents     map[string]*operatorv1.AgentDetail
	frameworks map[string]*Framework
	held       *holdings
}

// Framework is a framework and what it has.
type Framework struct {
	*operatorv1.FrameworkDetail
	// Tasks are sorted by the time of their launch; those that have ended are
	// among them, as far as the master remembers them.
	Tasks     []*operatorv1.TaskDetail
	Offers    []*mezzov1.Offer
	Executors []*operatorv1.ExecutorDetail

	sorted sync.Once
}

// sort puts everything in order. It is done once, beside the feed: a copy of a
// hundred thousand tasks is quickly made, and slowly sorted.
func (f *Framework) sort() {
	f.sorted.Do(func() {
		slices.SortFunc(f.Tasks, func(a, b *operatorv1.TaskDetail) int {
			return cmp.Or(compareTimes(a.GetLaunched(), b.GetLaunched()), cmp.Compare(a.GetTask().GetTaskId().GetValue(), b.GetTask().GetTaskId().GetValue()))
		})
		slices.SortFunc(f.Offers, func(a, b *mezzov1.Offer) int {
			return cmp.Compare(a.GetId().GetValue(), b.GetId().GetValue())
		})
		slices.SortFunc(f.Executors, func(a, b *operatorv1.ExecutorDetail) int {
			return cmp.Or(cmp.Compare(a.GetInfo().GetExecutorId().GetValue(), b.GetInfo().GetExecutorId().GetValue()), cmp.Compare(a.GetAgentId(), b.GetAgentId()))
		})
	})
}

// ID is the framework's id.
func (f *Framework) ID() string { return f.GetInfo().GetId().GetValue() }

// Completed is whether the framework is gone for good.
func (f *Framework) Completed() bool { return f.GetState() == "completed" }

// sort puts everything in order.
func (s *Snapshot) sort() *Snapshot {
	for _, f := range s.Frameworks {
		f.sort()
	}
	return s
}

// Agent returns an agent by its id; nil: it is not known.
func (s *Snapshot) Agent(id string) *operatorv1.AgentDetail { return s.agents[id] }

// Framework returns a framework by its id; nil: it is not known.
func (s *Snapshot) Framework(id string) *Framework { return s.frameworks[id] }

// snapshot returns the contents as they are, to be sorted. What has not changed
// since the last snapshot is shared with it.
func (c *contents) snapshot(master *operatorv1.Status) *Snapshot {
	if c.last != nil {
		out := *c.last
		out.Master = master
		return &out
	}
	if c.agentList == nil {
		c.agentList = slices.SortedFunc(maps.Values(c.agents), func(a, b *operatorv1.AgentDetail) int {
			return cmp.Or(compareTimes(a.GetRegistered(), b.GetRegistered()), cmp.Compare(a.GetId(), b.GetId()))
		})
		c.agentByID = maps.Clone(c.agents)
	}
	s := &Snapshot{Master: master, Agents: c.agentList, agents: c.agentByID, frameworks: make(map[string]*Framework, len(c.frameworks)), held: &holdings{}}
	for id, o := range c.frameworks {
		if o.detail == nil {
			continue
		}
		f := o.share()
		s.Frameworks = append(s.Frameworks, f)
		s.frameworks[id] = f
	}
	slices.SortFunc(s.Frameworks, func(a, b *Framework) int {
		return cmp.Or(compareTimes(a.GetRegistered(), b.GetRegistered()), cmp.Compare(a.ID(), b.ID()))
	})
	s.Roles = slices.SortedFunc(maps.Values(c.roles), func(a, b *operatorv1.Role) int { return cmp.Compare(a.GetName(), b.GetName()) })
	s.Plugins = slices.SortedFunc(maps.Values(c.plugins), func(a, b *operatorv1.Plugin) int { return cmp.Compare(a.GetId(), b.GetId()) })
	s.Operations = slices.SortedFunc(maps.Values(c.operations), func(a, b *mezzov1.Operation) int {
		return cmp.Or(cmp.Compare(a.GetAgentId().GetValue(), b.GetAgentId().GetValue()), bytes.Compare(a.GetUuid().GetValue(), b.GetUuid().GetValue()))
	})
	c.last = s
	return s
}

// share returns the framework as snapshots have it.
func (o *owner) share() *Framework {
	if o.view != nil && !o.stale {
		return o.view
	}
	f := &Framework{
		FrameworkDetail: o.detail, Tasks: slices.Collect(maps.Values(o.tasks)), Offers: slices.Collect(maps.Values(o.offers)),
		Executors: slices.Collect(maps.Values(o.executors)),
	}
	o.view, o.stale = f, false
	return f
}

func compareTimes(a, b *timestamppb.Timestamp) int {
	return cmp.Or(cmp.Compare(a.GetSeconds(), b.GetSeconds()), cmp.Compare(a.GetNanos(), b.GetNanos()))
}
