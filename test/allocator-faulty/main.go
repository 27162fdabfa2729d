// Command mezzo-allocator-faulty is an allocator that starts and is configured
// well, and then does not take its snapshot in, for tests of the live swap.
package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

type config struct {
	Fault string `hcl:"fault" help:"mute: never answers; reject: ends the stream at the snapshot."`
}

type server struct {
	allocatorv1.UnimplementedAllocatorServer
	fault string
}

func (s *server) Allocate(stream grpc.BidiStreamingServer[allocatorv1.FromCore, allocatorv1.FromAllocator]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if s.fault == "reject" && m.GetBatch() != nil {
			return status.Error(codes.InvalidArgument, "cannot digest this snapshot")
		}
	}
}

func main() {
	s := &server{}
	plugin.Serve(plugin.Definition{
		Name: "faulty", Version: "0.1.0", Summary: "Takes nothing in.", Kind: plugin.Allocator,
		NewConfig: func() any { return new(config) },
		Configure: func(_ context.Context, c any, _ plugin.Environment) []plugin.Diagnostic {
			s.fault = c.(*config).Fault
			return nil
		},
		Register: func(r grpc.ServiceRegistrar) { allocatorv1.RegisterAllocatorServer(r, s) },
	})
}
