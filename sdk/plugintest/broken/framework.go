package broken

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/mezzo-os/mezzo/sdk/framework"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/plugintest"
	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// AdapterFaults are the names of all faults of adapters; "none" is among them.
func AdapterFaults() []string { return slices.Sorted(maps.Keys(adapterFaults)) }

// Adapter opens a framework adapter with this fault. It listens, closes every
// connection, and counts in its store how often its master began to lead.
func Adapter(fault string) plugintest.Open {
	return func(ctx context.Context) (*plugintest.Plugin, error) {
		a := &adapter{fault: adapterFaults[fault]}
		p, err := plugintest.Local(framework.Definition{
			Name: "broken", Version: "1.0.0", Summary: "An adapter that is wrong on purpose, for tests.",
			New: func(any, plugin.Environment) (framework.Adapter, []plugin.Diagnostic) { return a, nil },
		}.Plugin(), "")(ctx)
		if err != nil {
			return nil, err
		}
		end := p.Close
		p.Close = func() {
			end()
			a.close() // whatever it has left: a process would have ended
		}
		return p, nil
	}
}

// adapterFault is one way to be wrong.
type adapterFault struct {
	waitsForLeader, waitsForRegistration, closesWhenStandby, moves, lingers, deafEndpoint, sickWhenLeading bool
	// endpoint and variable are further names that it tells.
	endpoint, variable string
	unspecified        bool
	key                string // of what it stores
	value              int    // its bytes
}

var adapterFaults = map[string]adapterFault{
	"none":                 {},
	"waits-for-the-leader": {waitsForLeader: true},
	"waits-for-the-agent":  {waitsForRegistration: true},
	"bad-endpoint-name":    {endpoint: "No Name"},
	"bad-variable":         {variable: "NO=NAME"},
	"unspecified-address":  {unspecified: true},
	"listens-nowhere":      {deafEndpoint: true},
	"closes-when-standby":  {closesWhenStandby: true},
	"sick-when-leading":    {sickWhenLeading: true},
	"bad-key":              {key: "a key"},
	"long-key":             {key: strings.Repeat("k", 300)},
	"large-value":          {value: 70_000},
	"moves":                {moves: true},
	"lingers":              {lingers: true},
}

type adapter struct {
	fault    adapterFault
	listener net.Listener
	running  sync.WaitGroup
	stop     context.CancelFunc
}

func (a *adapter) Serve(ctx context.Context, core *framework.Core) (*framework.Serving, error) {
	ctx, a.stop = context.WithCancel(ctx)
	var err error
	if a.fault.moves {
		a.listener, err = net.Listen("tcp", "127.0.0.1:0")
	} else {
		a.listener, err = core.Listen(ctx, "broken", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	a.running.Go(a.accept)
	address := a.listener.Addr().String()
	out := &framework.Serving{Endpoints: map[string]string{"broken": address}, ExecutorEnvironment: map[string]string{"BROKEN": address}}
	if a.fault.endpoint != "" {
		out.Endpoints[a.fault.endpoint] = address
	}
	if a.fault.variable != "" {
		out.ExecutorEnvironment[a.fault.variable] = "x"
	}
	if a.fault.unspecified {
		_, port, _ := net.SplitHostPort(address)
		out.Endpoints["broken"] = "0.0.0.0:" + port
	}
	if a.fault.deafEndpoint {
		out.Endpoints["deaf"] = "127.0.0.1:1"
	}
	if core.Side == framework.Master {
		leading := make(chan struct{})
		a.running.Go(func() { a.follow(ctx, core, sync.OnceFunc(func() { close(leading) })) })
		if a.fault.waitsForLeader {
			<-leading
		}
	} else if a.fault.waitsForRegistration && core.AgentID == "" {
		<-ctx.Done()
	}
	return out, nil
}

func (a *adapter) accept() {
	for {
		conn, err := a.listener.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// follow does what there is to do when the master begins to lead.
func (a *adapter) follow(ctx context.Context, core *framework.Core, leads func()) {
	stream, err := core.Leadership().Watch(ctx, &frameworkv1.WatchLeadershipRequest{})
	if err != nil {
		return
	}
	for led := false; ; {
		state, err := stream.Recv()
		if err != nil {
			leads()
			return
		}
		if state.GetState() != frameworkv1.LeadershipState_STATE_LEADING {
			if led && a.fault.closesWhenStandby {
				a.listener.Close()
			}
			continue
		}
		led = true
		leads()
		if a.fault.sickWhenLeading {
			core.Health.Unhealthy("it is too much")
		}
		a.count(ctx, core)
	}
}

// count writes down that the master leads.
func (a *adapter) count(ctx context.Context, core *framework.Core) {
	key := "broken/led"
	if a.fault.key != "" {
		key = a.fault.key
	}
	before, err := core.Store().Get(ctx, &frameworkv1.GetRequest{Key: key})
	if err != nil {
		return
	}
	value := append(slices.Clone(before.GetValue()), '.')
	if a.fault.value > 0 {
		value = make([]byte, a.fault.value)
	}
	_, _ = core.Store().Put(ctx, &frameworkv1.PutRequest{Key: key, Value: value, Version: before.GetVersion()}) // it may not lead any more
}

func (a *adapter) Shutdown(context.Context) {
	a.stop()
	if !a.fault.lingers {
		a.close()
	}
}

func (a *adapter) close() {
	if a.listener != nil {
		a.listener.Close()
	}
	a.running.Wait()
}
