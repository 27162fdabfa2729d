package pluginhost

import (
	"context"
	"errors"
	"os"
	"sync"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// process is one running plugin process and the connection to it. Whoever has
// one ends it by end or kill, once.
type process struct {
	child   *child
	client  *goplugin.Client
	conn    *grpc.ClientConn
	broker  *goplugin.GRPCBroker
	base    pluginv1.PluginClient
	out     *output
	dir     string // its sockets'
	version uint32 // of the contract, as the handshake settled it

	mu      sync.Mutex
	offers  []*grpc.Server
	gone    bool
	serving sync.WaitGroup
	closing sync.Once
}

// connect starts the process, shakes hands and opens the connection.
func (p *process) connect() error {
	if _, err := p.client.Start(); err != nil {
		return err
	}
	p.version = uint32(p.client.NegotiatedVersion())
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense(dispensed)
	if err != nil {
		return err
	}
	link := raw.(*link)
	p.conn, p.broker = link.conn, link.broker
	p.base = pluginv1.NewPluginClient(p.conn)
	return nil
}

// dispensed is the one name that both sides use with go-plugin.
const dispensed = "plugin"

// link is what go-plugin hands over of a connection.
type link struct {
	conn   *grpc.ClientConn
	broker *goplugin.GRPCBroker
}

type linkPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
}

func (linkPlugin) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the plugin host serves no plugin")
}

func (linkPlugin) GRPCClient(_ context.Context, broker *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &link{conn: conn, broker: broker}, nil
}

func pluginSets(versions []uint32) map[int]goplugin.PluginSet {
	sets := map[int]goplugin.PluginSet{}
	for _, v := range versions {
		sets[int(v)] = goplugin.PluginSet{dispensed: linkPlugin{}}
	}
	return sets
}

// offer serves something of the host's to this process.
func (p *process) offer(register func(grpc.ServiceRegistrar), options []grpc.ServerOption) (uint32, error) {
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return 0, errors.New("the plugin's process is gone")
	}
	id := p.broker.NextId()
	made, ended := make(chan *grpc.Server, 1), make(chan struct{})
	p.serving.Go(func() {
		defer close(ended)
		p.broker.AcceptAndServe(id, func(opts []grpc.ServerOption) *grpc.Server {
			opts = append(opts, grpc.MaxRecvMsgSize(plugin.MaxMessageSize), grpc.MaxSendMsgSize(plugin.MaxMessageSize))
			server := grpc.NewServer(append(opts, options...)...)
			register(server)
			made <- server
			return server
		})
	})
	p.mu.Unlock()
	select {
	case server := <-made:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.gone {
			server.Stop()
			return 0, errors.New("the plugin's process is gone")
		}
		p.offers = append(p.offers, server)
		return id, nil
	case <-ended:
		return 0, errors.New("the broker's socket cannot be opened; see the standard log")
	}
}

// end asks the process to finish, kills it when ctx ends, and returns when
// nothing is left of it.
func (p *process) end(ctx context.Context) {
	go func() {
		if _, err := p.base.Shutdown(ctx, &pluginv1.ShutdownRequest{}); err == nil {
			p.disconnect() // go-plugin's own request to exit
		}
	}()
	select {
	case <-p.child.exited:
	case <-ctx.Done():
	}
	p.kill()
}

// kill ends the process at once and returns when nothing is left of it.
func (p *process) kill() {
	p.child.kill()
	if p.child.pid() != 0 {
		<-p.child.exited
	}
	p.disconnect()
	os.RemoveAll(p.dir)
}

// disconnect closes the connection and all that hangs on it.
func (p *process) disconnect() {
	p.closing.Do(func() {
		p.mu.Lock()
		p.gone = true
		for _, s := range p.offers {
			s.Stop()
		}
		p.mu.Unlock()
		p.client.Kill()
		p.serving.Wait()
	})
}
