package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/files"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/legacy"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/metric"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/scheduler"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/znode"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// settleTime is how long a master's adapter waits, before it says that it
// serves, for what its first clients may ask for.
const settleTime = 2 * time.Second

// serveMaster puts the master's APIs on a listener.
func (a *adapter) serveMaster(ctx context.Context, listener net.Listener) error {
	leadership := transport.NewLeadership(endpoint)
	if err := a.open(listener, transport.Master, leadership); err != nil {
		return err
	}
	about := a.about()
	a.server.HandleBasics(about)
	schedulers := scheduler.New(scheduler.Options{
		Client: a.core.Scheduler(), Master: a.at.complete, MaxStreams: a.settings.Limits.Streams, Calls: a.numbers.calls, Logger: a.log,
	})
	a.ended = append(a.ended, schedulers.Close)
	schedulers.Register(a.server)
	copied := mirror.New(a.core.Own().Operator(), a.log)
	copied.Ready, copied.Feeds, copied.Waiting = a.numbers.ready, a.numbers.feeds, a.numbers.queued
	copied.Ready.Set(0)
	numbers := &metric.Master{Operator: a.core.Own().Operator(), Mirror: copied}
	level := operator.NewVerbosity(a.core.Operator(), a.core.Logger)
	a.ended = append(a.ended, level.Close)
	operators := operator.New(operator.Options{
		Mirror: copied, Operator: a.core.Operator(), MasterInfo: a.masterInfo, About: about,
		Metrics:   func(ctx context.Context) []*mezzov1.Metric { return metric.List(ctx, numbers) },
		Verbosity: level, Streams: a.settings.Limits.Subscribers, Queue: int(a.settings.Limits.Queue), Logger: a.log,
	})
	numbers.Subscribers = operators.Subscribers
	operators.Register(a.server)
	(&legacy.Master{Mirror: copied, Orders: operators, MasterInfo: a.masterInfo, About: about, Cluster: a.settings.Cluster}).Register(a.server)
	legacy.RegisterProcess(a.server, level)
	metric.Register(a.server, numbers)
	(&files.Files{}).Register(a.server) // a master has none to show

	a.run.Go(func() { leadership.Follow(ctx, a.core.Leadership(), a.log) })
	a.run.Go(func() { copied.Run(ctx) })
	if a.settings.ZK != "" {
		where, err := znode.Parse(a.settings.ZK)
		if err != nil {
			return err
		}
		a.run.Go(func() { znode.Publish(ctx, where, published{a, leadership}, a.log) })
	}
	a.settle(ctx, leadership, copied)
	return nil
}

// settle waits a moment until what the core knows is known here: a client that
// comes at once is not turned away.
func (a *adapter) settle(ctx context.Context, leadership *transport.Leadership, copied *mirror.Mirror) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	stream, err := a.core.Leadership().Watch(ctx, &frameworkv1.WatchLeadershipRequest{})
	if err != nil {
		return
	}
	first, err := stream.Recv()
	if err != nil || first.GetState() != frameworkv1.LeadershipState_STATE_LEADING {
		return
	}
	for !leadership.Leading() && ctx.Err() == nil {
		pause(ctx)
	}
	for ctx.Err() == nil {
		if _, err := copied.Read(ctx); err == nil {
			return
		}
		pause(ctx)
	}
}

func pause(ctx context.Context) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
}

// published is what ZooKeeper is told.
type published struct {
	*adapter
	leadership *transport.Leadership
}

// Leads implements znode.Leadership.
func (p published) Leads() (*mezzov1.MasterInfo, <-chan struct{}) {
	changed := p.leadership.Changed()
	if !p.leadership.Leading() {
		return nil, changed
	}
	return p.masterInfo(&operatorv1.Status{MasterId: p.leadership.State().GetLeaderId()}), changed
}

// Alive implements znode.Leadership.
func (p published) Alive(ctx context.Context) error {
	_, err := p.core.Operator().GetStatus(ctx, &operatorv1.GetStatusRequest{})
	return err
}

// masterInfo is how this master is known to clients.
func (a *adapter) masterInfo(s *operatorv1.Status) *mezzov1.MasterInfo {
	info := &mezzov1.MasterInfo{Id: proto.String(s.GetMasterId())}
	a.at.complete(info)
	return info
}
