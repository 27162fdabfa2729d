package pluginhost

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// TestForeignPlugin is that docs/plugin-authors.md tells all that an author
// needs who has neither go-plugin nor Mezzo's SDK.
func TestForeignPlugin(t *testing.T) {
	r := newRig(t)
	i := r.start(r.spec("foreign", `{"greeting": "saluton"}`))
	g := r.up()
	if got := g.Description.GetVersion(); got != "foreign" {
		t.Errorf("version %q", got)
	}
	if s := i.Status(); s.State != Healthy || s.ContractVersion != 1 {
		t.Errorf("status: %+v", s)
	}
	if _, err := pluginv1.NewPluginClient(g.Conn).Ping(r.context(), &pluginv1.PingRequest{}); err != nil {
		t.Errorf("ping: %v", err)
	}
	wantText(t, r.log.String(), `[INFO]  allocator.test: configured: config="{\"greeting\": \"saluton\"}"`)
	i.Stop(r.context())
	if err := r.down(); err != nil {
		t.Errorf("it did not end in good order: %v", err)
	}
}

// runForeign is a plugin's main by the text of the guide alone.
func runForeign(metrics string) {
	if os.Getenv("MEZZO_PLUGIN_COOKIE") != "f1c4b0d6e7a24f0c9f0b7a1c53d2e8a9" {
		foreignFails("not started by mezzo")
	}
	if !slices.Contains(strings.Split(os.Getenv("PLUGIN_PROTOCOL_VERSIONS"), ","), "1") {
		foreignFails("no common version")
	}
	fd, err := strconv.Atoi(os.Getenv("MEZZO_PLUGIN_HOST_FD"))
	if err != nil {
		foreignFails(err)
	}
	go func() {
		io.Copy(io.Discard, os.NewFile(uintptr(fd), "host"))
		os.Exit(0)
	}()
	config, der, err := foreignTLS(os.Getenv("PLUGIN_CLIENT_CERT"))
	if err != nil {
		foreignFails(err)
	}
	socket := filepath.Join(os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), "plugin")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		foreignFails(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.MaxRecvMsgSize(plugin.MaxMessageSize))
	pluginv1.RegisterPluginServer(server, &foreign{metrics: metrics, ended: func() { go os.Exit(0) }})
	fmt.Printf("1|1|unix|%s|grpc|%s\n", socket, base64.RawStdEncoding.EncodeToString(der))
	server.Serve(listener)
}

func foreignFails(why any) {
	fmt.Fprintln(os.Stderr, "foreign:", why)
	os.Exit(1)
}

// foreignTLS makes a certificate and trusts that of the host alone.
func foreignTLS(host string) (*tls.Config, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(host)) {
		return nil, nil, fmt.Errorf("PLUGIN_CLIENT_CERT is no certificate: %q", host)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, der, nil
}

// foreign serves no more than the base contract asks.
type foreign struct {
	pluginv1.UnimplementedPluginServer
	metrics string // what it tells; empty: it serves none
	ended   func()
}

func (f *foreign) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.Description, error) {
	kind, name := plugin.Allocator, "test"
	if part := strings.Split(f.metrics, "/"); len(part) > 1 {
		kind, _ = plugin.KindOf(part[0])
		name = part[1]
	}
	return &pluginv1.Description{
		Name: name, Version: "foreign", Kind: kind, ContractVersions: []uint32{1},
		Schema: &pluginv1.Schema{Attributes: []*pluginv1.Attribute{{Name: "greeting", Type: pluginv1.Type_TYPE_STRING}}},
	}, nil
}

func (*foreign) Configure(_ context.Context, r *pluginv1.ConfigureRequest) (*pluginv1.ConfigureResponse, error) {
	fmt.Fprintf(os.Stderr, `{"@level":"info","@message":"configured","config":%q}`+"\n", r.GetConfig())
	return &pluginv1.ConfigureResponse{}, nil
}

func (*foreign) Health(_ *pluginv1.HealthRequest, stream pluginv1.Plugin_HealthServer) error {
	if err := stream.Send(&pluginv1.HealthStatus{State: pluginv1.HealthStatus_STATE_HEALTHY}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (*foreign) Ping(context.Context, *pluginv1.PingRequest) (*pluginv1.PingResponse, error) {
	return &pluginv1.PingResponse{}, nil
}

func (f *foreign) Shutdown(context.Context, *pluginv1.ShutdownRequest) (*pluginv1.ShutdownResponse, error) {
	f.ended()
	return &pluginv1.ShutdownResponse{}, nil
}
