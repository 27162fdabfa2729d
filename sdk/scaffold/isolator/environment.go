package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/metric"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// environment adds variables to the environment of containers. It has the four
// methods that every isolator has; whoever makes processes, measures them, or
// needs their pid implements more of the interfaces of sdk/isolator.
//
// Calls for different containers run at the same time. Nothing here changes after
// configure, so no lock is needed.
type environment struct {
	settings *settings
	amended  *metric.Counter
}

func (e *environment) configure(_ context.Context, config any, _ plugin.Environment) []plugin.Diagnostic {
	e.settings = config.(*settings)
	return nil
}

// Claim says whether the isolator takes part in a container, and has no effect.
func (e *environment) Claim(_ context.Context, r *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	switch {
	case r.GetTask().GetSandboxOnly():
		return none("the container has no process"), nil
	case len(e.settings.Variables) == 0:
		return none("no variables are configured"), nil
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}, nil
}

func none(reason string) *isolatorv1.ClaimResponse {
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: reason}
}

// Prepare is given the container's OCI runtime specification and returns it with
// the isolator's own changes. What it does not know it keeps as it is, to the
// letter: hence json.RawMessage.
func (e *environment) Prepare(_ context.Context, r *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	var spec, process map[string]json.RawMessage
	var env []string
	if err := json.Unmarshal(r.GetSpec(), &spec); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the specification of %s: %v", r.GetContainer(), err)
	}
	if err := json.Unmarshal(spec["process"], &process); err != nil || process == nil {
		return nil, status.Errorf(codes.InvalidArgument, "the specification of %s has no process (%v)", r.GetContainer(), err)
	}
	if text, set := process["env"]; set {
		if err := json.Unmarshal(text, &env); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the environment of %s: %v", r.GetContainer(), err)
		}
	}
	var err error
	if process["env"], err = json.Marshal(e.amend(env)); err != nil {
		return nil, err
	}
	if spec["process"], err = json.Marshal(process); err != nil {
		return nil, err
	}
	out, err := json.Marshal(spec)
	if err == nil {
		e.amended.Inc()
	}
	return &isolatorv1.PrepareResponse{Spec: out}, err
}

// amend adds the variables, in the order of their names.
func (e *environment) amend(env []string) []string {
	out := slices.Clone(env)
	for _, name := range slices.Sorted(maps.Keys(e.settings.Variables)) {
		its := func(v string) bool { return strings.HasPrefix(v, name+"=") }
		if slices.ContainsFunc(out, its) {
			if !e.settings.Override {
				continue
			}
			out = slices.DeleteFunc(out, its)
		}
		out = append(out, name+"="+e.settings.Variables[name])
	}
	return out
}

// Cleanup removes what was made for a container: nothing, since all of it is in
// the specification. It must succeed twice, for a container that never was, and
// in a process that has just started.
func (e *environment) Cleanup(context.Context, *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	return &isolatorv1.CleanupResponse{}, nil
}

// Recover is the first call after a restart of plugin or agent. One that keeps
// something outside the specification says here how its containers are.
func (e *environment) Recover(context.Context, *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	return &isolatorv1.RecoverResponse{}, nil
}
