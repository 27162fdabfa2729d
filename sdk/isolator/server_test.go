package isolator_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// amender is the least that an isolator can be.
type amender struct{}

func (amender) Claim(context.Context, *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}, nil
}

func (amender) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	switch r.GetContainer() {
	case "broken":
		return nil, errors.New("out of order")
	case "full":
		return nil, status.Error(codes.ResourceExhausted, "no more")
	}
	return &isolatorv1.PrepareResponse{Spec: r.GetSpec()}, nil
}

func (amender) Cleanup(context.Context, *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	return &isolatorv1.CleanupResponse{}, nil
}

func (amender) Recover(context.Context, *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	return &isolatorv1.RecoverResponse{}, nil
}

// echoer also has sessions.
type echoer struct{ amender }

func (echoer) Exec(_ context.Context, start *isolatorv1.ExecStart, s isolator.Session) error {
	for {
		in, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.Send(&isolatorv1.ExecOutput{Status: &isolatorv1.ExitStatus{Known: true}})
		}
		if err != nil {
			return err
		}
		if err := s.Send(&isolatorv1.ExecOutput{Stdout: append([]byte(start.GetContainer()+":"), in.GetStdin()...)}); err != nil {
			return err
		}
	}
}

func serve(t *testing.T, i isolator.Isolator) isolatorv1.IsolatorClient {
	t.Helper()
	local, err := plugin.StartLocal(isolator.Plugin(isolator.Definition{Name: "x", Version: "1"}, i), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(local.Close)
	return isolatorv1.NewIsolatorClient(local.Conn)
}

func TestCapabilities(t *testing.T) {
	if got := isolator.Capabilities(amender{}); got != nil {
		t.Errorf("an amender has %v", got)
	}
	if diff := cmp.Diff([]string{"exec"}, isolator.Capabilities(echoer{})); diff != "" {
		t.Error(diff)
	}
	d := isolator.Plugin(isolator.Definition{Name: "x", Version: "1", Companions: []string{"y"}}, echoer{})
	if diff := cmp.Diff([]string{"exec", "companion:y"}, d.Capabilities); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNotImplemented(t *testing.T) {
	c, ctx := serve(t, amender{}), t.Context()
	if _, err := c.Isolate(ctx, &isolatorv1.IsolateRequest{}); err != nil {
		t.Errorf("Isolate needs no implementation: %v", err)
	}
	limitations, err := c.Limitations(ctx, &isolatorv1.LimitationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func() error{
		"Create":      func() error { _, err := c.Create(ctx, &isolatorv1.CreateRequest{}); return err },
		"Start":       func() error { _, err := c.Start(ctx, &isolatorv1.StartRequest{}); return err },
		"Wait":        func() error { _, err := c.Wait(ctx, &isolatorv1.WaitRequest{}); return err },
		"Signal":      func() error { _, err := c.Signal(ctx, &isolatorv1.SignalRequest{}); return err },
		"Kill":        func() error { _, err := c.Kill(ctx, &isolatorv1.KillRequest{}); return err },
		"Update":      func() error { _, err := c.Update(ctx, &isolatorv1.UpdateRequest{}); return err },
		"Usage":       func() error { _, err := c.Usage(ctx, &isolatorv1.UsageRequest{}); return err },
		"Limitations": func() error { _, err := limitations.Recv(); return err },
		"ListImages":  func() error { _, err := c.ListImages(ctx, &isolatorv1.ListImagesRequest{}); return err },
		"RemoveImage": func() error { _, err := c.RemoveImage(ctx, &isolatorv1.RemoveImageRequest{}); return err },
		"Provision": func() error {
			s, err := c.Provision(ctx, &isolatorv1.ProvisionRequest{})
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
		"ImportImage": func() error {
			s, err := c.ImportImage(ctx)
			if err == nil {
				_, err = s.CloseAndRecv()
			}
			return err
		},
	}
	for name, call := range calls {
		if err := call(); status.Code(err) != codes.Unimplemented || len(status.Convert(err).Message()) < 20 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsAtTheEdge(t *testing.T) {
	c := serve(t, amender{})
	for container, want := range map[string]codes.Code{"broken": codes.Internal, "full": codes.ResourceExhausted, "fine": codes.OK} {
		_, err := c.Prepare(t.Context(), &isolatorv1.PrepareRequest{Container: container})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", container, err, want)
		}
	}
}

func TestExecSession(t *testing.T) {
	c := serve(t, echoer{})
	stream, err := c.Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		stream.Send(&isolatorv1.ExecInput{Start: &isolatorv1.ExecStart{Container: "c1"}}),
		stream.Send(&isolatorv1.ExecInput{Stdin: []byte("hello")}),
		stream.CloseSend(),
	); err != nil {
		t.Fatal(err)
	}
	if o, err := stream.Recv(); err != nil || string(o.GetStdout()) != "c1:hello" {
		t.Errorf("%v, %v", o, err)
	}
	if o, err := stream.Recv(); err != nil || !o.GetStatus().GetKnown() {
		t.Errorf("%v, %v", o, err)
	}
	bad, err := c.Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = bad.Send(&isolatorv1.ExecInput{Stdin: []byte("x")})
	if _, err := bad.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a session without a start: %v", err)
	}
}
