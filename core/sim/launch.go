package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// life is the truth about a task, which nobody in the world knows whole.
type life struct {
	key   taskKey
	sched *scheduler
	// runs is how long it runs; 0: until it is ended.
	runs     time.Duration
	code     int32
	oom      bool
	stubborn bool // takes no notice of SIGTERM
	started  string
	// refused: its scheduler was told that it is not launched.
	refused bool
	// abandoned: its framework is gone.
	abandoned bool
}

func (s *scheduler) drop(id string) {
	delete(s.offers, id)
	s.held = slices.DeleteFunc(s.held, func(x string) bool { return x == id })
}

// offered is what a scheduler does with offers: think, then answer.
func (s *scheduler) offered(list []*mezzov1.Offer) {
	w := s.w
	for _, o := range list {
		id := o.GetId().GetValue()
		s.offers[id] = o
		s.held = append(s.held, id)
		if w.chance(s.traits.ignores) && !w.closing {
			continue
		}
		stream := s.cur
		w.after(w.between(0, s.traits.thinks), func() {
			if s.cur == stream {
				s.answer(id)
			}
		})
	}
}

// answer answers an offer that it thinks it has.
func (s *scheduler) answer(id string) {
	w := s.w
	o := s.offers[id]
	if o == nil {
		if !w.chance(0.1) || w.healed {
			return
		}
		// One that was rescinded, used all the same.
		s.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
			OfferIds: []*mezzov1.OfferID{{Value: proto.String(id)}},
		}})
		return
	}
	offers := []*mezzov1.Offer{o}
	if w.chance(0.5) { // together with others of the same agent and role
		for _, other := range s.held {
			x := s.offers[other]
			if other != id && x.GetAgentId().GetValue() == o.GetAgentId().GetValue() &&
				x.GetAllocationInfo().GetRole() == o.GetAllocationInfo().GetRole() {
				offers = append(offers, x)
			}
		}
	}
	var ids []*mezzov1.OfferID
	var pool resource.Resources
	for _, x := range offers {
		s.drop(x.GetId().GetValue())
		ids = append(ids, x.GetId())
		res, err := resource.FromProto(x.GetResources())
		if err != nil {
			w.fail([]string{s.name, x.GetId().GetValue()}, "offer %s cannot be read: %v", x.GetId().GetValue(), err)
			return
		}
		pool = pool.Add(res.Unallocate())
	}
	refuse := &mezzov1.Filters{RefuseSeconds: proto.Float64(float64(w.pick(int(w.tempo.refuse / time.Second))))}
	var operations, late []*mezzov1.Offer_Operation
	if !w.closing && !w.cfg.Large && w.chance(s.traits.converts) {
		if w.chance(0.2) { // of what a task may have taken by then
			late, _ = s.convert(o, pool)
		} else {
			operations, pool = s.convert(o, pool)
		}
	}
	if !w.closing && s.wanted > 0 && w.chance(s.traits.accepts) {
		operations = append(operations, s.launchFrom(o, pool)...)
	}
	operations = append(operations, late...)
	if w.cfg.Large && s.wanted <= 0 && !s.suppressed {
		s.suppress()
	}
	if len(operations) == 0 {
		s.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{OfferIds: ids, Filters: refuse}})
		return
	}
	s.call(&schedulerv1.Call{Type: schedulerv1.Call_ACCEPT.Enum(), Accept: &schedulerv1.Call_Accept{OfferIds: ids, Operations: operations, Filters: refuse}})
}

var groupExecutor = resource.MustParse("cpus:0.1;mem:32;disk:10")

// launchFrom makes the operations that use a pool of one agent.
func (s *scheduler) launchFrom(o *mezzov1.Offer, pool resource.Resources) []*mezzov1.Offer_Operation {
	w := s.w
	agent := o.GetAgentId().GetValue()
	group := w.chance(s.traits.groups)
	custom := w.chance(0.3)
	executor := ""
	if custom {
		executor = fmt.Sprintf("%s-%d-x%d", s.name, s.serial, w.pick(3))
	}
	runs := slices.ContainsFunc(o.GetExecutorIds(), func(x *mezzov1.ExecutorID) bool { return x.GetValue() == executor })
	if group || custom {
		if !pool.Contains(groupExecutor) {
			return nil
		}
		if !runs {
			pool = pool.Minus(groupExecutor)
		}
	}
	var tasks []*mezzov1.TaskInfo
	for n := 1 + w.pick(4); n > 0 && s.wanted > 0; n-- {
		info, use := s.newTask(agent, pool)
		if info == nil {
			break
		}
		if left, fits := pool.Subtract(use); fits {
			pool = left
		} else if group {
			n = 0 // too greedy: the whole group will be refused
		}
		tasks = append(tasks, info)
		s.wanted--
	}
	if len(tasks) == 0 {
		return nil
	}
	if custom {
		return s.launchCustom(executor, group, tasks)
	}
	if !group {
		return []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks}}}
	}
	name := fmt.Sprintf("%s-%d", s.name, s.serial)
	if w.chance(0.5) {
		name += fmt.Sprintf("-%d", s.launches)
	}
	return []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mezzov1.Offer_Operation_LaunchGroup{
		Executor: &mezzov1.ExecutorInfo{
			ExecutorId: &mezzov1.ExecutorID{Value: proto.String(name)}, Type: mezzov1.ExecutorInfo_DEFAULT.Enum(),
			FrameworkId: &mezzov1.FrameworkID{Value: proto.String(s.id)}, Resources: groupExecutor.ToProto(),
		},
		TaskGroup: &mezzov1.TaskGroupInfo{Tasks: tasks},
	}}}
}

// launchCustom launches tasks under an executor of the framework's own.
func (s *scheduler) launchCustom(id string, group bool, tasks []*mezzov1.TaskInfo) []*mezzov1.Offer_Operation {
	info := &mezzov1.ExecutorInfo{
		ExecutorId: &mezzov1.ExecutorID{Value: proto.String(id)}, Type: mezzov1.ExecutorInfo_CUSTOM.Enum(),
		FrameworkId: &mezzov1.FrameworkID{Value: proto.String(s.id)}, Resources: groupExecutor.ToProto(),
		Command: &mezzov1.CommandInfo{Value: proto.String("execute")},
	}
	for _, t := range tasks {
		t.Command = nil
		if !group {
			t.Executor = info
		}
	}
	if !group {
		return []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH.Enum(), Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks}}}
	}
	return []*mezzov1.Offer_Operation{{Type: mezzov1.Offer_Operation_LAUNCH_GROUP.Enum(), LaunchGroup: &mezzov1.Offer_Operation_LaunchGroup{
		Executor: info, TaskGroup: &mezzov1.TaskGroupInfo{Tasks: tasks},
	}}}
}

// newTask makes a task that fits the pool, mostly, and decides its life.
func (s *scheduler) newTask(agent string, pool resource.Resources) (*mezzov1.TaskInfo, resource.Resources) {
	w := s.w
	cpus, mem := 100*(1+w.pick(15)), 32*(1+w.pick(20))
	greedy := !w.healed && w.chance(0.03)
	if greedy {
		cpus = 1_000_000
	}
	use := resource.MustParse(fmt.Sprintf("cpus:%d.%03d;mem:%d", cpus/1000, cpus%1000, mem))
	if ports := pool.RangesOf("ports"); len(ports) > 0 && w.chance(0.3) {
		use = use.Add(resource.MustParse(fmt.Sprintf("ports:[%d-%d]", ports[0].Begin, ports[0].Begin)))
	}
	if found, ok := plain(pool.Reserved()).Find(use); ok && !greedy && w.chance(0.5) {
		use = found
	}
	if volumes := pool.Filter(isVolume); len(volumes) > 0 && w.chance(0.7) {
		use = use.Add(w.part(volumes, true))
	}
	if !greedy && !pool.Contains(use) {
		return nil, nil
	}
	s.launches++
	id := fmt.Sprintf("%s-%d-t%d", s.name, s.serial, s.launches)
	info := &mezzov1.TaskInfo{
		Name: proto.String(id), TaskId: &mezzov1.TaskID{Value: proto.String(id)}, AgentId: &mezzov1.AgentID{Value: proto.String(agent)},
		Resources: use.ToProto(), Command: &mezzov1.CommandInfo{Value: proto.String("work")},
	}
	if w.chance(0.3) {
		info.KillPolicy = &mezzov1.KillPolicy{GracePeriod: &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(w.between(0, 4*time.Second)))}}
	}
	if w.chance(0.05) {
		info.MaxCompletionTime = &mezzov1.DurationInfo{Nanoseconds: proto.Int64(int64(w.between(time.Second, 10*time.Second)))}
	}
	l := &life{key: taskKey{s.id, id}, sched: s, runs: w.between(10*time.Millisecond, 15*time.Second), oom: w.chance(0.05), stubborn: w.chance(0.2)}
	if w.chance(0.3) {
		l.code = 1
	}
	if w.chance(s.traits.services) {
		l.runs = 0
	}
	w.lives[l.key] = l
	w.order = append(w.order, l.key)
	r := &record{id: id, key: l.key, agent: agent}
	s.tasks[id] = r
	s.order = append(s.order, r)
	w.report.Launched++
	w.note([]string{s.name, id, agent, s.id}, "%s launches %s on %s: %s", s.name, id, agent, use)
	return info, use
}
