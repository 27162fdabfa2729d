package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/config"
	elect "github.com/mezzo-os/mezzo/core/election/zookeeper"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/sdk/client"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const defaultAddress = "127.0.0.1:5061"

// queryTimeout bounds one question to a master or an agent.
const queryTimeout = 15 * time.Second

// zookeeperTimeout bounds the question who leads.
const zookeeperTimeout = 8 * time.Second

// clientFlags say where the cluster is and who is calling.
type clientFlags struct {
	addresses     []string
	ca, cert, key string
}

func (c *cli) addClientFlags(cmd *cobra.Command) {
	addresses := splitAddresses(os.Getenv("MEZZO_ADDRESS"))
	if len(addresses) == 0 {
		addresses = []string{defaultAddress}
	}
	f := cmd.Flags()
	f.StringSliceVar(&c.client.addresses, "address", addresses, "the rpc address of a master, or several, or zk://HOST:PORT,…/PATH; also MEZZO_ADDRESS")
	f.StringVar(&c.client.ca, "tls-ca", os.Getenv("MEZZO_TLS_CA"), "file of the authority that signed the cluster's certificates; also MEZZO_TLS_CA")
	f.StringVar(&c.client.cert, "tls-cert", os.Getenv("MEZZO_TLS_CERT"), "file of your certificate; also MEZZO_TLS_CERT")
	f.StringVar(&c.client.key, "tls-key", os.Getenv("MEZZO_TLS_KEY"), "file of its key; also MEZZO_TLS_KEY")
}

// tls is what the flags say, or nil for plain text.
func (f clientFlags) tls() (*client.Files, error) {
	switch {
	case f.ca == "" && f.cert == "" && f.key == "":
		return nil, nil
	case f.ca == "" || f.cert == "" || f.key == "":
		return nil, usage("--tls-ca, --tls-cert and --tls-key go together: give all three, or none")
	}
	return &client.Files{CA: f.ca, Cert: f.cert, Key: f.key}, nil
}

func (f clientFlags) options() (client.Options, error) {
	files, err := f.tls()
	if err != nil || files == nil {
		return client.Options{}, err
	}
	tls, err := files.Client()
	if err != nil {
		err = fmt.Errorf("%w (--tls-ca, --tls-cert and --tls-key, or MEZZO_TLS_CA and the like, name the files)", err)
	}
	return client.Options{TLS: tls}, err
}

// splitAddresses takes a list apart.
func splitAddresses(text string) []string {
	return rejoined(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }))
}

// rejoined is a flag's list, which was split at its commas, whatever they are.
func rejoined(list []string) []string {
	if text := strings.Join(list, ","); config.IsZooKeeper(text) {
		return []string{text}
	}
	return list
}

// masters are the addresses to ask who leads: those given, or the leader that
// ZooKeeper names.
func (f clientFlags) masters(ctx context.Context) ([]string, error) {
	addresses := rejoined(f.addresses)
	if len(addresses) != 1 || !config.IsZooKeeper(addresses[0]) {
		return addresses, nil
	}
	where, err := config.ParseZooKeeper(addresses[0])
	if err != nil {
		return nil, usage("--address: %v", err)
	}
	o := elect.Options{Path: where.Path, Session: zookeeper.Options{Servers: where.Servers, Timeout: queryTimeout, Auth: where.Auth}}
	if where.TLS {
		files, err := f.tls()
		if err != nil {
			return nil, err
		}
		if files == nil {
			return nil, usage("--address zks://… speaks TLS: give --tls-ca, --tls-cert and --tls-key")
		}
		if o.Session.TLS, err = files.Client(); err != nil {
			return nil, err
		}
	}
	asking, cancel := context.WithTimeout(ctx, zookeeperTimeout)
	defer cancel()
	found := elect.Addresses(asking, o, "rpc")
	address, known := <-found
	cancel()
	for range found { // until the session is closed
	}
	ensemble := strings.Join(where.Servers, ",")
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !known:
		return nil, fmt.Errorf("ZooKeeper at %s does not answer (is it running there? --address and MEZZO_ADDRESS also take a master's host:port)", ensemble)
	case address == "":
		return nil, fmt.Errorf("ZooKeeper at %s knows no leading master below %s (is one running? is it the path of election \"zookeeper\"?)", ensemble, where.Path)
	}
	return []string{address}, nil
}

// dial connects to the leading master.
func (c *cli) dial(ctx context.Context) (*grpc.ClientConn, error) {
	options, err := c.client.options()
	if err != nil {
		return nil, err
	}
	addresses, err := c.client.masters(ctx)
	if err != nil {
		return nil, err
	}
	options.Epochs = &c.leaders
	conn, err := client.Leader(ctx, addresses, options)
	if err != nil {
		hint := "is it running? mezzo dev starts a cluster; --address or MEZZO_ADDRESS says where one is"
		switch text := err.Error(); {
		case strings.Contains(text, "not a Mezzo master"), strings.Contains(text, "serves HTTP"), strings.Contains(text, "not host:port"), strings.Contains(text, "cannot be dialed"):
			hint = "--address and MEZZO_ADDRESS take the rpc address of a master, host:port, or zk://HOST:PORT/PATH; not that of an agent, or for http"
		case options.TLS != nil && strings.Contains(text, "TLS"):
			hint = "--tls-ca, --tls-cert and --tls-key, or MEZZO_TLS_CA, MEZZO_TLS_CERT and MEZZO_TLS_KEY, name them"
		case options.TLS == nil && strings.Contains(text, "TLS"):
			hint = "--tls-ca, --tls-cert and --tls-key, or MEZZO_TLS_CA, MEZZO_TLS_CERT and MEZZO_TLS_KEY, give yours"
		}
		return nil, fmt.Errorf("%w (%s)", err, hint)
	}
	return conn, nil
}

// dialAddress connects to an rpc address: an agent's, or one master's.
func (c *cli) dialAddress(address string) (*grpc.ClientConn, error) {
	options, err := c.client.options()
	if err != nil {
		return nil, err
	}
	return client.Dial(address, options)
}

func (c *cli) withOperator(ctx context.Context, do func(context.Context, operatorv1.OperatorClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return plain(do(ctx, operatorv1.NewOperatorClient(conn)))
}

// unanswered is the plain error of a call to a process at an address that was
// given, and what may be wrong with that.
func unanswered(err error) error {
	if status.Code(err) == codes.Unavailable {
		return fmt.Errorf("%w (is it running? --address and MEZZO_ADDRESS take the rpc address of a master or an agent)", plain(err))
	}
	return plain(err)
}

// plain turns a gRPC error into the sentence that it carries.
func plain(err error) error {
	var exit *exitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("no answer in time: %s", s.Message())
	case codes.Canceled:
		return context.Canceled
	case codes.Unavailable:
		return errors.New(client.Reason(err))
	}
	return errors.New(s.Message())
}
