package rpctest

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Open calls each method of a service once, and returns those that are not denied,
// with what they answer. A method that is not in requests gets an empty request.
func Open(t testing.TB, conn *grpc.ClientConn, service protoreflect.ServiceDescriptor, requests map[string]proto.Message) map[string]codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	open := map[string]codes.Code{}
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		name := string(method.Name())
		request, special := requests[name]
		if !special {
			request = dynamicpb.NewMessage(method.Input())
		}
		desc := &grpc.StreamDesc{ServerStreams: method.IsStreamingServer(), ClientStreams: method.IsStreamingClient()}
		stream, err := conn.NewStream(ctx, desc, "/"+string(service.FullName())+"/"+name)
		if err == nil {
			_ = stream.SendMsg(request) // what is wrong with it the answer tells
			_ = stream.CloseSend()
			err = stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
		}
		if code := status.Code(err); code != codes.PermissionDenied {
			open[name] = code
		}
	}
	return open
}
