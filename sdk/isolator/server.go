package isolator

import (
	"context"
	"errors"
	"fmt"
	"io"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ContractVersion is the version of the isolator contract that this package
// serves.
const ContractVersion = 1

// Capabilities names the optional parts of the contract that i serves, sorted:
// some of attach, exec, images, isolate, launch, limitations, provision, update,
// usage. The agent leaves out calls to an isolator without the capability.
func Capabilities(i Isolator) []string {
	var names []string
	add := func(name string, has bool) {
		if has {
			names = append(names, name)
		}
	}
	_, attach := i.(Attacher)
	_, exec := i.(Execer)
	_, images := i.(ImageStore)
	_, isolate := i.(PidIsolator)
	_, launch := i.(Launcher)
	_, limitations := i.(Limiter)
	_, provision := i.(Provisioner)
	_, update := i.(Updater)
	_, usage := i.(UsageReporter)
	add("attach", attach)
	add("exec", exec)
	add("images", images)
	add("isolate", isolate)
	add("launch", launch)
	add("limitations", limitations)
	add("provision", provision)
	add("update", update)
	add("usage", usage)
	return names
}

// NewServer adapts an Isolator to the generated gRPC service. name is the
// plugin's, for error messages.
func NewServer(name string, i Isolator) isolatorv1.IsolatorServer {
	return &server{name: name, isolator: i}
}

type server struct {
	isolatorv1.UnimplementedIsolatorServer
	name     string
	isolator Isolator
}

// edge turns an author's error into a gRPC status: a status stays what it is,
// the context's own errors keep their meaning, anything else is Internal.
func edge(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

func (s *server) unsupported(what string) error {
	return status.Error(codes.Unimplemented, fmt.Sprintf("isolator %q cannot %s", s.name, what))
}

// call runs one optional method: f is nil when the isolator has none.
func call[I, Request, Response any](s *server, ctx context.Context, r *Request, what string,
	f func(I, context.Context, *Request) (*Response, error)) (*Response, error) {
	i, ok := s.isolator.(I)
	if !ok {
		return nil, s.unsupported(what)
	}
	response, err := f(i, ctx, r)
	return response, edge(err)
}

func (s *server) Claim(ctx context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	response, err := s.isolator.Claim(ctx, r)
	return response, edge(err)
}

func (s *server) Prepare(ctx context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	response, err := s.isolator.Prepare(ctx, r)
	return response, edge(err)
}

func (s *server) Cleanup(ctx context.Context, r *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	response, err := s.isolator.Cleanup(ctx, r)
	return response, edge(err)
}

func (s *server) Recover(ctx context.Context, r *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	response, err := s.isolator.Recover(ctx, r)
	return response, edge(err)
}

// Isolate is no error for an isolator that has nothing to do with the pid, so
// that a chain needs no special case.
func (s *server) Isolate(ctx context.Context, r *isolatorv1.IsolateRequest) (*isolatorv1.IsolateResponse, error) {
	if _, ok := s.isolator.(PidIsolator); !ok {
		return &isolatorv1.IsolateResponse{}, nil
	}
	return call(s, ctx, r, "isolate a pid", PidIsolator.Isolate)
}

func (s *server) Create(ctx context.Context, r *isolatorv1.CreateRequest) (*isolatorv1.CreateResponse, error) {
	return call(s, ctx, r, "launch containers", Launcher.Create)
}

func (s *server) Start(ctx context.Context, r *isolatorv1.StartRequest) (*isolatorv1.StartResponse, error) {
	return call(s, ctx, r, "launch containers", Launcher.Start)
}

func (s *server) Wait(ctx context.Context, r *isolatorv1.WaitRequest) (*isolatorv1.WaitResponse, error) {
	return call(s, ctx, r, "launch containers, so there is none to wait for", Launcher.Wait)
}

func (s *server) Signal(ctx context.Context, r *isolatorv1.SignalRequest) (*isolatorv1.SignalResponse, error) {
	return call(s, ctx, r, "launch containers, so there is none to signal", Launcher.Signal)
}

func (s *server) Kill(ctx context.Context, r *isolatorv1.KillRequest) (*isolatorv1.KillResponse, error) {
	return call(s, ctx, r, "launch containers, so there is none to kill", Launcher.Kill)
}

func (s *server) Update(ctx context.Context, r *isolatorv1.UpdateRequest) (*isolatorv1.UpdateResponse, error) {
	return call(s, ctx, r, "change a running container", Updater.Update)
}

func (s *server) Usage(ctx context.Context, r *isolatorv1.UsageRequest) (*isolatorv1.UsageResponse, error) {
	return call(s, ctx, r, "measure usage", UsageReporter.Usage)
}

func (s *server) Provision(r *isolatorv1.ProvisionRequest, stream isolatorv1.Isolator_ProvisionServer) error {
	provisioner, ok := s.isolator.(Provisioner)
	if !ok {
		return s.unsupported("fetch images")
	}
	return edge(provisioner.Provision(stream.Context(), r, stream.Send))
}

func (s *server) ImportImage(stream isolatorv1.Isolator_ImportImageServer) error {
	store, ok := s.isolator.(ImageStore)
	if !ok {
		return s.unsupported("keep images")
	}
	first, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF), err == nil && first.GetStart() == nil:
		return status.Error(codes.InvalidArgument, "the first message of the stream has no start")
	case err != nil:
		return err
	}
	answer, err := store.ImportImage(stream.Context(), first.GetStart(), &archive{stream: stream, left: first.GetData()})
	if err != nil {
		return edge(err)
	}
	return stream.SendAndClose(answer)
}

// archive is what comes on a stream, as a reader.
type archive struct {
	stream isolatorv1.Isolator_ImportImageServer
	left   []byte
}

func (a *archive) Read(p []byte) (int, error) {
	for len(a.left) == 0 {
		next, err := a.stream.Recv()
		if err != nil {
			return 0, err // io.EOF at the end
		}
		a.left = next.GetData()
	}
	n := copy(p, a.left)
	a.left = a.left[n:]
	return n, nil
}

func (s *server) ListImages(ctx context.Context, r *isolatorv1.ListImagesRequest) (*isolatorv1.ListImagesResponse, error) {
	return call(s, ctx, r, "keep images, so there are none to list", ImageStore.ListImages)
}

func (s *server) RemoveImage(ctx context.Context, r *isolatorv1.RemoveImageRequest) (*isolatorv1.RemoveImageResponse, error) {
	return call(s, ctx, r, "keep images, so there is none to remove", ImageStore.RemoveImage)
}

func (s *server) Limitations(_ *isolatorv1.LimitationsRequest, stream isolatorv1.Isolator_LimitationsServer) error {
	limiter, ok := s.isolator.(Limiter)
	if !ok {
		return s.unsupported("notice exceeded limits")
	}
	return edge(limiter.Limitations(stream.Context(), stream.Send))
}

func (s *server) Exec(stream isolatorv1.Isolator_ExecServer) error {
	execer, ok := s.isolator.(Execer)
	if !ok {
		return s.unsupported("run another process in a container")
	}
	return session(stream, execer.Exec)
}

func (s *server) Attach(stream isolatorv1.Isolator_AttachServer) error {
	attacher, ok := s.isolator.(Attacher)
	if !ok {
		return s.unsupported("attach to a running container; use exec, or read its logs")
	}
	return session(stream, attacher.Attach)
}

type execStream interface {
	Session
	Context() context.Context
}

// session takes the start message off the stream and runs what follows.
func session(stream execStream, run func(context.Context, *isolatorv1.ExecStart, Session) error) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the stream ended before its first message")
	}
	if err != nil {
		return err
	}
	if first.GetStart() == nil {
		return status.Error(codes.InvalidArgument, "the first message of the stream has no start")
	}
	return edge(run(stream.Context(), first.GetStart(), stream))
}
