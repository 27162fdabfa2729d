package master

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/core/loglevel"
	"github.com/mezzo-os/mezzo/core/master/state"
	"github.com/mezzo-os/mezzo/core/metric"
	"github.com/mezzo-os/mezzo/core/rpc"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// operatorService serves mezzo.operator.v1.Operator. It answers questions from
// the mirror, and takes orders to the machine.
type operatorService struct {
	operatorv1.UnimplementedOperatorServer
	master *Master
}

// view asks whether the caller may see the cluster.
func (s *operatorService) view(ctx context.Context) error {
	return s.master.authorize(ctx, rpc.ViewCluster, rpc.Object{})
}

// GetStatus answers on standbys too: it is how the leader is found. So who may
// not see the cluster is told that, and no more.
func (s *operatorService) GetStatus(ctx context.Context, _ *operatorv1.GetStatusRequest) (*operatorv1.Status, error) {
	m := s.master
	out := &operatorv1.Status{Version: m.options.Version, Leadership: "standby", Started: timestamp(m.started)}
	if m.recovering() {
		out.Leadership = "recovering"
	}
	if term := m.term.Load(); term != nil {
		out.Leadership, out.MasterId, out.Epoch, out.Elected = "leading", term.id, term.epoch, timestamp(term.elected)
	}
	if failed := m.failed.Load(); failed != nil {
		out.Trouble = failed.err.Error()
	}
	out.Endpoints = endpointMessages(m.Addresses())
	if leader := m.leader.Load(); leader != nil {
		out.Leader = endpointMessages(leader.Endpoints)
	}
	// It is not held against whom looks for the leader that he sees no more.
	if m.authorizer.Authorizer.Authorize(ctx, rpc.PrincipalFrom(ctx), rpc.ViewCluster, rpc.Object{}) != nil {
		return out, nil
	}
	s.catchUp(ctx)
	out.Plugins = m.mirror.listPlugins()
	m.mirror.counts(out)
	return out, nil
}

// ListAgents answers from the mirror.
func (s *operatorService) ListAgents(ctx context.Context, _ *operatorv1.ListAgentsRequest) (*operatorv1.ListAgentsResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	return &operatorv1.ListAgentsResponse{Agents: messages(s.master.mirror.listAgents(), agentMessage)}, nil
}

// ListFrameworks answers from the mirror.
func (s *operatorService) ListFrameworks(ctx context.Context, q *operatorv1.ListFrameworksRequest) (*operatorv1.ListFrameworksResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	return &operatorv1.ListFrameworksResponse{Frameworks: messages(s.master.mirror.listFrameworks(q.Completed), frameworkMessage)}, nil
}

// ListTasks answers from the mirror.
func (s *operatorService) ListTasks(ctx context.Context, q *operatorv1.ListTasksRequest) (*operatorv1.ListTasksResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	return &operatorv1.ListTasksResponse{Tasks: messages(s.master.mirror.listTasks(q), taskMessage)}, nil
}

// task is one task with all that is known of it.
func (s *operatorService) task(ctx context.Context, framework, id string) (*operatorv1.TaskDetail, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	v := s.master.mirror.task(state.TaskKey{FrameworkID: framework, TaskID: id})
	if v == nil {
		return nil, fmt.Errorf("%w: framework %s has no task %s that the master remembers", rpc.ErrNotFound, framework, id)
	}
	return taskDetail(v), nil
}

// ListOffers answers from the mirror.
func (s *operatorService) ListOffers(ctx context.Context, _ *operatorv1.ListOffersRequest) (*operatorv1.ListOffersResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	return &operatorv1.ListOffersResponse{Offers: messages(s.master.mirror.listOffers(), offerMessage)}, nil
}

// ListRoles answers from the mirror.
func (s *operatorService) ListRoles(ctx context.Context, _ *operatorv1.ListRolesRequest) (*operatorv1.ListRolesResponse, error) {
	if err := s.query(ctx); err != nil {
		return nil, err
	}
	sums := s.master.mirror.totals()
	return &operatorv1.ListRolesResponse{Roles: messages(s.master.mirror.rolesWith(sums.reserved), func(v *state.RoleView) *operatorv1.Role {
		out := roleMessage(v)
		share(out, v, sums.total)
		if reserved := sums.reserved[v.Name]; len(reserved) > 0 {
			out.Reserved = quantityMessage(reserved)
		}
		return out
	})}, nil
}

// ListPlugins answers on standbys too.
func (s *operatorService) ListPlugins(ctx context.Context, _ *operatorv1.ListPluginsRequest) (*operatorv1.ListPluginsResponse, error) {
	if err := s.view(ctx); err != nil {
		return nil, err
	}
	return &operatorv1.ListPluginsResponse{Plugins: s.master.mirror.listPlugins()}, nil
}

// GetMetrics answers on standbys too.
func (s *operatorService) GetMetrics(ctx context.Context, _ *operatorv1.GetMetricsRequest) (*operatorv1.GetMetricsResponse, error) {
	if err := s.view(ctx); err != nil {
		return nil, err
	}
	list, err := metric.Messages(s.master.metrics.all())
	return &operatorv1.GetMetricsResponse{Metrics: list}, err
}

// SetLogLevel answers on standbys too.
func (s *operatorService) SetLogLevel(ctx context.Context, q *operatorv1.SetLogLevelRequest) (*operatorv1.LogLevel, error) {
	if err := s.master.authorize(ctx, rpc.Administer, rpc.Object{ID: "log_level"}); err != nil {
		return nil, err
	}
	answer, err := s.master.logLevel.Answer(q)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.master.logger.Info("log level set", "level", answer.GetLevel(), "until", loglevel.Until(answer))
	return answer, nil
}

// GetLogLevel answers on standbys too.
func (s *operatorService) GetLogLevel(ctx context.Context, _ *operatorv1.GetLogLevelRequest) (*operatorv1.LogLevel, error) {
	if err := s.view(ctx); err != nil {
		return nil, err
	}
	return s.master.logLevel.Message(), nil
}

// query asks whether the caller may see the cluster, and whether this master
// knows it.
func (s *operatorService) query(ctx context.Context) error {
	if err := s.view(ctx); err != nil {
		return err
	}
	if _, err := s.master.leading(); err != nil {
		return err
	}
	s.catchUp(ctx)
	return nil
}

// catchUp brings the mirror up to date, so that a reader sees what was answered
// before it asked: the task that a command just saw end has ended. A master
// that is too busy to do it soon answers with what the mirror has.
func (s *operatorService) catchUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freshness)
	defer cancel()
	if _, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.PublishNow{Request: r} }); err == nil {
		s.master.mirror.await(ctx)
	}
}

func messages[V, M any](views []V, message func(V) M) []M {
	out := make([]M, len(views))
	for i, v := range views {
		out[i] = message(v)
	}
	return out
}

// order is what an operator wants done.
type order struct {
	input func(state.Request) state.Input
	reply chan<- state.Reply
}

// carryOut takes an order to the machine and waits for its reply.
func (s *operatorService) carryOut(ctx context.Context, input func(state.Request) state.Input) (state.Reply, error) {
	term, err := s.master.leading()
	if err != nil {
		return state.Reply{}, err
	}
	replies := make(chan state.Reply, 1)
	if err := term.inbox.put(order{input, replies}, 256); err != nil {
		return state.Reply{}, unavailable(err.Error())
	}
	lost := unavailable("the master stopped leading; it is unknown whether the order was carried out")
	select {
	case reply, answered := <-replies:
		if !answered {
			return state.Reply{}, lost
		}
		return reply, orderError(reply.Err)
	case <-term.over:
		return state.Reply{}, lost
	case <-ctx.Done():
		return state.Reply{}, ctx.Err()
	}
}

// orderError is an order's error for the caller.
func orderError(e *state.OrderError) error {
	if e == nil {
		return nil
	}
	kind := rpc.ErrInvalid
	switch e.Code {
	case state.OrderLost:
		return unavailable(e.Message)
	case state.OrderNotFound:
		kind = rpc.ErrNotFound
	case state.OrderAmbiguous, state.OrderRefused:
		kind = rpc.ErrConflict
	}
	return fmt.Errorf("%w: %s", kind, e.Message)
}

// KillTask asks a task to end, as its framework could.
func (s *operatorService) KillTask(ctx context.Context, q *operatorv1.KillTaskRequest) (*operatorv1.KillTaskResponse, error) {
	if err := s.master.authorizeAll(ctx, rpc.KillTask, s.master.taskObjects(ctx, q.FrameworkId, q.TaskId)); err != nil {
		return nil, err
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input {
		return state.KillTask{Request: r, TaskID: q.TaskId, FrameworkID: q.FrameworkId}
	})
	if err != nil {
		return nil, err
	}
	return &operatorv1.KillTaskResponse{}, nil
}

// Teardown ends a framework and all its tasks.
func (s *operatorService) Teardown(ctx context.Context, q *operatorv1.TeardownRequest) (*operatorv1.TeardownResponse, error) {
	framework := s.master.knownFramework(ctx, q.FrameworkId)
	if err := s.master.authorizeAll(ctx, rpc.TeardownFramework, frameworkObjects(framework, q.FrameworkId, q.FrameworkId)); err != nil {
		return nil, err
	}
	_, err := s.carryOut(ctx, func(r state.Request) state.Input { return state.Teardown{Request: r, FrameworkID: q.FrameworkId} })
	if err != nil {
		return nil, err
	}
	return &operatorv1.TeardownResponse{}, nil
}
