package adapter

import (
	"context"

	"github.com/mezzo-os/mezzo/core/rpc"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// authorizationService serves mezzo.framework.v1.Authorization.
type authorizationService struct {
	frameworkv1.UnimplementedAuthorizationServer
	authorizer rpc.Authorizer
}

// Check asks on behalf of the call's principal.
func (s *authorizationService) Check(ctx context.Context, q *frameworkv1.CheckRequest) (*frameworkv1.CheckResponse, error) {
	object := rpc.Object{ID: q.GetId(), FrameworkID: q.GetFrameworkId(), Role: q.GetRole(), User: q.GetUser(), Owner: q.GetOwner()}
	if err := s.authorizer.Authorize(ctx, rpc.PrincipalFrom(ctx), rpc.Action(q.GetAction()), object); err != nil {
		return nil, err
	}
	return &frameworkv1.CheckResponse{}, nil
}
