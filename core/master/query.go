package master

import (
	"context"
	"net/url"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/http"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// queries are the pages of the JSON API: the same answers as the Operator
// service gives.
func queries(s *operatorService) map[string]http.Query {
	return map[string]http.Query{
		"status": {Local: true, One: func(ctx context.Context, _ url.Values) (proto.Message, error) {
			return s.GetStatus(ctx, &operatorv1.GetStatusRequest{})
		}},
		"agents": {List: func(ctx context.Context, _ url.Values) ([]proto.Message, error) {
			answer, err := s.ListAgents(ctx, &operatorv1.ListAgentsRequest{})
			return list(answer.GetAgents()), err
		}},
		"frameworks": {List: func(ctx context.Context, q url.Values) ([]proto.Message, error) {
			answer, err := s.ListFrameworks(ctx, &operatorv1.ListFrameworksRequest{Completed: q.Get("completed") == "true"})
			return list(answer.GetFrameworks()), err
		}},
		"tasks": {List: func(ctx context.Context, q url.Values) ([]proto.Message, error) {
			answer, err := s.ListTasks(ctx, &operatorv1.ListTasksRequest{
				FrameworkId: q.Get("framework_id"), AgentId: q.Get("agent_id"), TaskId: q.Get("task_id"), Completed: q.Get("completed") == "true",
			})
			return list(answer.GetTasks()), err
		}},
		"roles": {List: func(ctx context.Context, _ url.Values) ([]proto.Message, error) {
			answer, err := s.ListRoles(ctx, &operatorv1.ListRolesRequest{})
			return list(answer.GetRoles()), err
		}},
		"offers": {List: func(ctx context.Context, _ url.Values) ([]proto.Message, error) {
			answer, err := s.ListOffers(ctx, &operatorv1.ListOffersRequest{})
			return list(answer.GetOffers()), err
		}},
		"plugins": {Local: true, List: func(ctx context.Context, _ url.Values) ([]proto.Message, error) {
			answer, err := s.ListPlugins(ctx, &operatorv1.ListPluginsRequest{})
			return list(answer.GetPlugins()), err
		}},
		"task": {One: func(ctx context.Context, q url.Values) (proto.Message, error) {
			return s.task(ctx, q.Get("framework_id"), q.Get("task_id"))
		}},
		"explain": {One: func(ctx context.Context, q url.Values) (proto.Message, error) {
			return s.Explain(ctx, &operatorv1.ExplainRequest{
				FrameworkId: q.Get("framework_id"), Role: q.Get("role"), Agents: q.Get("agents") == "true",
			})
		}},
		"maintenance": {One: func(ctx context.Context, _ url.Values) (proto.Message, error) {
			return s.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
		}},
	}
}

func list[M proto.Message](in []M) []proto.Message {
	out := make([]proto.Message, len(in))
	for i, m := range in {
		out[i] = m
	}
	return out
}
