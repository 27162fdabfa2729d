package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// ask asks the process what it is.
func (s Spec) ask(ctx context.Context, p *process, path string, timeout time.Duration) (*pluginv1.Description, *Error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d, err := p.base.Describe(ctx, &pluginv1.DescribeRequest{})
	if err != nil {
		return nil, &Error{
			Plugin: s.title(), Path: path, Step: StepDescribe, Output: p.out.get(), Err: err,
			Problem: p.callProblem("say what it is", timeout, err),
			Remedy:  "check that this file is a Mezzo plugin, built with a current SDK",
		}
	}
	return d, nil
}

// describe asks the process what it is, and checks that it is what the operator
// asked for.
func (s Spec) describe(ctx context.Context, p *process, path string, timeout time.Duration) (*pluginv1.Description, *Error) {
	fail := func(problem, remedy string) *Error {
		return &Error{Plugin: s.title(), Path: path, Step: StepDescribe, Problem: problem, Remedy: remedy}
	}
	d, e := s.ask(ctx, p, path, timeout)
	if e != nil {
		return nil, e
	}
	if d.GetKind() != s.Kind {
		return nil, fail(
			fmt.Sprintf("it is of kind %s, not %s", plugin.KindName(d.GetKind()), plugin.KindName(s.Kind)),
			fmt.Sprintf("declare it as %s %q, or install the right binary", plugin.KindName(d.GetKind()), d.GetName()))
	}
	if d.GetName() != s.Name {
		return nil, fail(
			fmt.Sprintf("it calls itself %q", d.GetName()),
			fmt.Sprintf("declare it as %s %q, or install the right binary", plugin.KindName(s.Kind), d.GetName()))
	}
	return d, nil
}

// negotiate settles the contract version: the highest that both sides have. The
// handshake chose one already; what the plugin says of itself must agree.
func (s Spec) negotiate(p *process, d *pluginv1.Description, path string) (uint32, *Error) {
	if slices.Contains(d.GetContractVersions(), p.version) {
		return p.version, nil
	}
	return 0, s.versionError(&VersionError{
		Plugin: s.title(), Path: path, PluginServes: d.GetContractVersions(), HostSpeaks: s.versions(),
	})
}

func (s Spec) versionError(v *VersionError) *Error {
	e := &Error{
		Plugin: s.title(), Path: v.Path, Step: StepNegotiate, Err: v,
		Problem: fmt.Sprintf("it serves version %s of the %s contract, and this mezzo speaks %s: the plugin is newer",
			versionList(v.PluginServes), plugin.KindName(s.Kind), versionList(v.HostSpeaks)),
		Remedy: "upgrade mezzo, or install an older release of the plugin",
	}
	if v.PluginIsOlder() {
		e.Problem = fmt.Sprintf("it serves version %s of the %s contract, and this mezzo speaks %s: the plugin is older",
			versionList(v.PluginServes), plugin.KindName(s.Kind), versionList(v.HostSpeaks))
		e.Remedy = "install a newer release of the plugin, or build it with a current Mezzo SDK"
	}
	return e
}

// callProblem says what went wrong with a call, and how the process ended if it
// did; it waits a moment to find out.
func (p *process) callProblem(what string, timeout time.Duration, err error) string {
	if status.Code(err) == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("it did not %s within %v%s", what, timeout, p.child.stoppedNote())
	}
	if status.Code(err) == codes.Unavailable {
		select {
		case <-p.child.exited:
			return fmt.Sprintf("it %s when it was asked to %s", p.child.ending(), what)
		case <-time.After(time.Second):
		}
	}
	if status.Code(err) == codes.Canceled {
		return "its start was cancelled"
	}
	return fmt.Sprintf("it could not %s: %s", what, status.Convert(err).Message())
}
