package main

import (
	"context"
	"sync"

	"github.com/hashicorp/go-hclog"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// plug is the plugin.
type plug struct {
	logger     hclog.Logger
	config     Config
	dir        string // a state directory a container
	connection *connection

	closing context.Context // ended by shutdown
	close   context.CancelFunc
	running sync.WaitGroup
}

func newPlugin() *plug {
	p := &plug{logger: hclog.NewNullLogger()}
	p.closing, p.close = context.WithCancel(context.Background())
	return p
}

func (p *plug) shutdown(context.Context) {
	p.close()
	p.running.Wait()
	p.connection.close()
}

// Claim launches the tasks that have an image.
func (p *plug) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: "isolator containerd runs tasks that have an image"}, nil
}

// Prepare is not called for what was not claimed.
func (p *plug) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	return &isolatorv1.PrepareResponse{Spec: r.GetSpec()}, nil
}

// Cleanup removes what there is of a container.
func (p *plug) Cleanup(context.Context, *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	return &isolatorv1.CleanupResponse{}, nil
}

// Recover takes up the containers of before.
func (p *plug) Recover(context.Context, *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	return &isolatorv1.RecoverResponse{}, nil
}
