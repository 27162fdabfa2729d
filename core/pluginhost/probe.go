package pluginhost

import (
	"context"
	"fmt"
	"os"
	"sync"

	"google.golang.org/grpc"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// Probe is one process of a plugin that was launched and asked what it is, and
// nothing more: it is not configured, supervised or started again. Conformance
// suites drive it. Its methods may be called from any goroutine.
type Probe struct {
	// Conn reaches all services of the plugin.
	Conn            *grpc.ClientConn
	Description     *pluginv1.Description
	ContractVersion uint32
	PID             int
	// Config is what Configure is to be given: Spec.Configure's answer.
	Config []byte

	process *process
	host    *Host
	dir     string
	lose    sync.Once
	closing sync.Once
}

// OpenProbe launches the plugin through every step before Configure. It needs no
// Host. An error is a *Error, as for Host.Start. Of the options, Logger and the
// durations count. The caller calls Close.
func OpenProbe(ctx context.Context, spec Spec, options Options) (*Probe, error) {
	dir, err := os.MkdirTemp(shortTempDir(), "mezzo-probe-")
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", spec.title(), err)
	}
	options.DataDir = dir
	h, err := New(options)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	p := &Probe{host: h, dir: dir}
	process, g, e := h.introduce(ctx, spec, h.options.Logger.Named(spec.logName()))
	if e == nil {
		p.process = process
		p.Conn, p.Description, p.ContractVersion, p.PID = g.Conn, g.Description, g.ContractVersion, g.PID
		p.Config = []byte("{}")
		if spec.Configure != nil {
			if p.Config, err = spec.Configure(g.Description.GetSchema()); err != nil {
				e = &Error{
					Plugin: spec.title(), Path: process.child.Name(), Step: StepConfigure,
					Problem: "its configuration is wrong\n" + err.Error(), Err: err,
				}
			}
		}
	}
	if e != nil {
		p.Close()
		e.Place = spec.Place
		return nil, e
	}
	return p, nil
}

// Exited is closed when the process has ended.
func (p *Probe) Exited() <-chan struct{} { return p.process.child.exited }

// Output returns what the process printed last.
func (p *Probe) Output() Output { return p.process.out.get() }

// Offer serves something of the host's to the process, as Generation.Offer does.
func (p *Probe) Offer(register func(s grpc.ServiceRegistrar)) (uint32, error) {
	return p.process.offer(register, nil)
}

// Kill ends the process by SIGKILL and returns when it has ended.
func (p *Probe) Kill() {
	_ = p.process.child.kill() // it fails only when the process has ended
	<-p.process.child.exited
}

// LoseHost does to the process what the death of its host does: its pipe ends.
func (p *Probe) LoseHost() {
	p.lose.Do(func() { p.process.child.hostPipe.Close() })
}

// Close ends the process, however it is, and leaves nothing of it. It may be
// called more than once.
func (p *Probe) Close() {
	p.closing.Do(func() {
		if p.process != nil {
			p.process.kill()
		}
		_ = p.host.Close(context.Background())
		os.RemoveAll(p.dir)
	})
}
