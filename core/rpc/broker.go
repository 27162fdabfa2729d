package rpc

import (
	"context"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"github.com/mezzo-os/mezzo/sdk/framework"
)

// BrokerOptions are those of a server that serves one plugin of this process,
// and nobody else: errors and panics are handled as by a Server, and the caller
// is whom the plugin says that it calls for (see framework.WithPrincipal), an
// unknown one if it says nothing.
func BrokerOptions(logger hclog.Logger) []grpc.ServerOption {
	s := &Server{logger: logger}
	return []grpc.ServerOption{
		grpc.InTapHandle(cancellable),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.ChainUnaryInterceptor(s.unary, func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return next(believed(ctx), request)
		}),
		grpc.ChainStreamInterceptor(s.stream, func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(server, &believedStream{stream, believed(stream.Context())})
		}),
		grpc.WaitForHandlers(true),
	}
}

// believed is a context whose principal is the one that the metadata names.
func believed(ctx context.Context) context.Context {
	var p Principal
	if in, ok := metadata.FromIncomingContext(ctx); ok {
		names := in.Get(framework.PrincipalKey)
		if len(names) > 0 {
			p.Name = names[len(names)-1]
		}
		p.Adapter = len(names) == 0 && len(in.Get(framework.OwnKey)) > 0
	}
	return WithPrincipal(ctx, p)
}

type believedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *believedStream) Context() context.Context { return s.ctx }

// cancellable makes CancelStream work for a stream.
func cancellable(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	return context.WithValue(ctx, streamCancel{}, cancel), nil
}
