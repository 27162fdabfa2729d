package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// scheduler is one framework of the demo.
type scheduler struct {
	*framework.Scheduler
	c      *cluster
	number int
	ended  chan struct{}

	// tasks are what it still wants to launch; each offer gets `take` of them.
	each []resource.Resources
	// repeat launches the first of each again and again, one an offer.
	repeat bool
	// onLaunch is told of every launch, with the master's answer behind it.
	onLaunch func(framework int, task resource.Resources)

	offers   chan string // what was offered, once each
	newOffer chan struct{}

	mu       sync.Mutex
	marked   bool
	launched int
	states   map[string]mezzov1.TaskState
	err      error
	changed  chan struct{}
	ready    chan struct{}
}

// subscribe starts a framework that takes one task an offer for as long as it
// fits, and declines the rest without a filter.
func (c *cluster) subscribe(ctx context.Context, number int, task string, onLaunch func(int, resource.Resources)) (*scheduler, error) {
	return c.connect(ctx, &scheduler{number: number, repeat: true, onLaunch: onLaunch}, task)
}

// subscribeTaker starts a framework that launches all its tasks on its first
// offer and wants nothing after that.
func (c *cluster) subscribeTaker(ctx context.Context, number int, tasks []string) (*scheduler, error) {
	return c.connect(ctx, &scheduler{number: number}, tasks...)
}

// observe starts a framework that only looks at its offers.
func (c *cluster) observe(ctx context.Context, number int) (*scheduler, error) {
	return c.connect(ctx, &scheduler{number: number})
}

func (c *cluster) connect(ctx context.Context, s *scheduler, tasks ...string) (*scheduler, error) {
	s.c, s.ended, s.ready = c, make(chan struct{}), make(chan struct{})
	s.offers, s.newOffer, s.changed = make(chan string, 100), make(chan struct{}, 1), make(chan struct{}, 1)
	s.states = map[string]mezzov1.TaskState{}
	for _, text := range tasks {
		each, err := resource.Parse(text)
		if err != nil {
			return nil, err
		}
		s.each = append(s.each, each)
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	s.Scheduler, err = framework.New(framework.Options{
		Masters: []string{c.master.fields["rpc"]},
		Info: &mezzov1.FrameworkInfo{
			Name: proto.String(fmt.Sprintf("framework %d", s.number)), User: proto.String(me.Username), Roles: []string{"*"},
			Capabilities: []*mezzov1.FrameworkInfo_Capability{{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()}},
		},
		Callbacks: framework.Callbacks{
			Subscribed: func(_ *framework.Scheduler, _ string, again bool) {
				if !again {
					close(s.ready)
				}
			},
			Offers: func(_ *framework.Scheduler, offers []*mezzov1.Offer) {
				for _, o := range offers {
					if err := s.answer(o); err != nil && !errors.Is(err, framework.ErrNotSubscribed) {
						s.fail(err)
					}
				}
			},
			Update: func(_ *framework.Scheduler, status *mezzov1.TaskStatus) { s.update(status) },
		},
	})
	if err != nil {
		return nil, err
	}
	c.schedulers = append(c.schedulers, s)
	go func() {
		defer close(s.ended)
		if err := s.Run(c.ctx); err != nil {
			s.fail(err)
		}
	}()
	_, err = receive(ctx, fmt.Sprintf("framework %d to be subscribed", s.number), s.ready)
	return s, err
}

// answer launches what fits by the framework's rule, or declines without a
// filter.
func (s *scheduler) answer(offer *mezzov1.Offer) error {
	offered, err := resource.FromProto(offer.GetResources())
	if err != nil {
		return err
	}
	offered = offered.Unallocate()
	s.mu.Lock()
	if s.marked {
		select {
		case s.newOffer <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	s.offers <- offered.String()
	ctx, cancel := context.WithTimeout(s.c.ctx, 5*time.Second)
	defer cancel()
	noFilter := &mezzov1.Filters{RefuseSeconds: proto.Float64(0)}
	var tasks []*mezzov1.TaskInfo
	var taken []resource.Resources
	for _, each := range s.each {
		if !offered.Contains(each) {
			break
		}
		offered = offered.Minus(each)
		tasks = append(tasks, s.task(offer, each))
		taken = append(taken, each)
	}
	if !s.repeat {
		s.each = nil
	}
	if len(tasks) == 0 {
		return s.Decline(ctx, noFilter, offer.GetId())
	}
	for _, t := range taken {
		if s.onLaunch != nil {
			s.onLaunch(s.number, t)
		}
	}
	return s.Accept(ctx, []*mezzov1.OfferID{offer.GetId()}, []*mezzov1.Offer_Operation{{
		Type:   mezzov1.Offer_Operation_LAUNCH.Enum(),
		Launch: &mezzov1.Offer_Operation_Launch{TaskInfos: tasks},
	}}, noFilter)
}

func (s *scheduler) task(offer *mezzov1.Offer, resources resource.Resources) *mezzov1.TaskInfo {
	s.launched++
	id := fmt.Sprintf("f%d-task%d", s.number, s.launched)
	return &mezzov1.TaskInfo{
		Name: &id, TaskId: &mezzov1.TaskID{Value: &id}, AgentId: offer.GetAgentId(), Resources: resources.ToProto(),
		Command: &mezzov1.CommandInfo{
			Value: proto.String("exec sleep 600"),
			Environment: &mezzov1.Environment{Variables: []*mezzov1.Environment_Variable{
				{Name: proto.String("MEZZO_DEMO"), Value: proto.String(s.c.dir)},
			}},
		},
	}
}

func (s *scheduler) update(status *mezzov1.TaskStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[status.GetTaskId().GetValue()] = status.GetState()
	if state := status.GetState(); state != mezzov1.TaskState_TASK_RUNNING && state != mezzov1.TaskState_TASK_STARTING && s.c.agent != nil && s.err == nil {
		s.err = fmt.Errorf("%s is %s: %s", status.GetTaskId().GetValue(), state, status.GetMessage())
	}
	s.tell()
}

func (s *scheduler) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("framework %d: %w", s.number, err)
	}
	s.tell()
}

func (s *scheduler) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// mark asks for the next offer to be told.
func (s *scheduler) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = true
}

// running waits until as many tasks run.
func (s *scheduler) running(ctx context.Context, want int) error {
	for {
		s.mu.Lock()
		count, err := 0, s.err
		for _, state := range s.states {
			if state == mezzov1.TaskState_TASK_RUNNING {
				count++
			}
		}
		s.mu.Unlock()
		if err != nil || count == want {
			return err
		}
		if _, err := receive(ctx, fmt.Sprintf("%d running tasks of framework %d", want, s.number), s.changed); err != nil {
			return err
		}
	}
}
