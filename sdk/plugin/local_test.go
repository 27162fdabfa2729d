package plugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/metric"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

func TestMain(m *testing.M) {
	if os.Getenv("MEZZO_TEST_SERVE") != "" {
		Serve(testDefinition())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func testDefinition() Definition {
	return Definition{
		Name: "test", Version: "0.1.0", Kind: Isolator, Summary: "Walls for tests.", Capabilities: []string{"companion:mezzo-shim"},
		NewConfig: func() any { return new(testConfig) },
		Register:  func(grpc.ServiceRegistrar) {},
	}
}

type testConfig struct {
	Address string        `hcl:"address" required:"true" help:"Where."`
	Wait    time.Duration `hcl:"wait" default:"5s"`
}

func startLocal(t *testing.T, def Definition) (*Local, pluginv1.PluginClient) {
	t.Helper()
	l, err := StartLocal(def, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, pluginv1.NewPluginClient(l.Conn)
}

func callContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestDescribe(t *testing.T) {
	_, client := startLocal(t, testDefinition())
	d, err := client.Describe(callContext(t), &pluginv1.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if d.GetName() != "test" || d.GetKind() != Isolator || d.GetContractVersions()[0] != 1 || len(d.GetSchema().GetAttributes()) != 2 {
		t.Errorf("description: %v", d)
	}
}

// A plugin's own metrics are there from the beginning; without any the call is
// not served, and wrong ones are found before anything is.
func TestMetrics(t *testing.T) {
	def := testDefinition()
	_, client := startLocal(t, def)
	if _, err := client.Metrics(callContext(t), &pluginv1.MetricsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("without metrics: %v", err)
	}
	def.Metrics = metric.NewSet()
	def.Metrics.Counter("walls_total", "Walls.").Inc()
	_, client = startLocal(t, def)
	answer, err := client.Metrics(callContext(t), &pluginv1.MetricsRequest{})
	if err != nil || len(answer.GetFamilies()) != 1 || answer.GetFamilies()[0].GetSamples()[0].GetValue() != 1 {
		t.Errorf("metrics: %v %v", answer, err)
	}
	def.Metrics.Counter("walls", "Walls.")
	if _, err := StartLocal(def, nil); err == nil || !strings.Contains(err.Error(), `plugin definition "test": metric "walls" is a counter`) {
		t.Errorf("with a wrong one: %v", err)
	}
}

func TestConfigureOnce(t *testing.T) {
	def := testDefinition()
	var got []string
	def.Configure = func(_ context.Context, c any, env Environment) []Diagnostic {
		got = append(got, fmt.Sprintf("%s %s %d", c.(*testConfig).Address, env.DataDir, env.ContractVersion))
		return []Diagnostic{Warningf("odd", "address", "Odd.")}
	}
	_, client := startLocal(t, def)
	ctx := callContext(t)
	answer, err := client.Configure(ctx, &pluginv1.ConfigureRequest{Config: []byte(`{}`), ContractVersion: 1})
	if err != nil {
		t.Fatal(err)
	}
	if d := answer.GetDiagnostics(); len(d) != 1 || d[0].GetPath()[0] != "address" || d[0].GetSeverity() != pluginv1.Severity_SEVERITY_ERROR {
		t.Errorf("diagnostics of a missing value: %v", d)
	}
	good := &pluginv1.ConfigureRequest{Config: []byte(`{"address": "x"}`), ContractVersion: 1, DataDir: "/d", ValidateOnly: true}
	if answer, err = client.Configure(ctx, good); err != nil || len(answer.GetDiagnostics()) != 0 {
		t.Fatalf("validate only: %v, %v", answer, err)
	}
	if len(got) != 0 {
		t.Errorf("Configure ran where it must not: %q", got)
	}
	good.ValidateOnly = false
	answer, err = client.Configure(ctx, good)
	if err != nil {
		t.Fatal(err)
	}
	if d := answer.GetDiagnostics(); len(d) != 1 || d[0].GetSeverity() != pluginv1.Severity_SEVERITY_WARNING {
		t.Errorf("diagnostics: %v", d)
	}
	if diff := cmp.Diff([]string{"x /d 1"}, got); diff != "" {
		t.Errorf("Configure (-want +got):\n%s", diff)
	}
	if _, err = client.Configure(ctx, good); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("second Configure: %v", err)
	}
	good.ContractVersion = 9
	if _, err = client.Configure(ctx, good); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "serves contract versions [1], not 9") {
		t.Errorf("Configure for another contract: %v", err)
	}
}

func TestHealthStream(t *testing.T) {
	l, client := startLocal(t, testDefinition())
	ctx := callContext(t)
	stream, err := client.Health(ctx, &pluginv1.HealthRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := func(state pluginv1.HealthStatus_State, message string) time.Time {
		t.Helper()
		h, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if h.GetState() != state || h.GetMessage() != message {
			t.Errorf("health %v, want %v %q", h, state, message)
		}
		return h.GetSince().AsTime()
	}
	want(pluginv1.HealthStatus_STATE_HEALTHY, "")
	l.Health.Healthy() // says nothing new
	l.Health.Degraded("slow disk")
	first := want(pluginv1.HealthStatus_STATE_DEGRADED, "slow disk")
	l.Health.Degraded("slower disk")
	if again := want(pluginv1.HealthStatus_STATE_DEGRADED, "slower disk"); !again.Equal(first) {
		t.Errorf("degraded since %v, then since %v", first, again)
	}
	l.Health.Unhealthy("no disk")
	want(pluginv1.HealthStatus_STATE_UNHEALTHY, "no disk")
	l.Health.Healthy()
	want(pluginv1.HealthStatus_STATE_HEALTHY, "")
}

func TestLocalOffers(t *testing.T) {
	def := testDefinition()
	var environment Environment
	def.Configure = func(_ context.Context, _ any, env Environment) []Diagnostic {
		environment = env
		return nil
	}
	l, client := startLocal(t, def)
	ctx := callContext(t)
	if _, err := client.Configure(ctx, &pluginv1.ConfigureRequest{Config: []byte(`{"address": "x"}`), ContractVersion: 1}); err != nil {
		t.Fatal(err)
	}
	id, err := l.Offer(func(s grpc.ServiceRegistrar) { healthv1.RegisterHealthServer(s, health.NewServer()) })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := environment.Dial(id)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
		t.Errorf("what the host offers: %v", err)
	}
}

func TestShutdownRunsOnce(t *testing.T) {
	def := testDefinition()
	n := 0
	def.Shutdown = func(context.Context) { n++ }
	l, client := startLocal(t, def)
	if _, err := client.Shutdown(callContext(t), &pluginv1.ShutdownRequest{}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Close()
	if n != 1 {
		t.Errorf("Shutdown ran %d times", n)
	}
}

func TestBadDefinitions(t *testing.T) {
	for want, change := range map[string]func(*Definition){
		`name "No!"`:       func(d *Definition) { d.Name = "No!" },
		"no version":       func(d *Definition) { d.Version = "" },
		"want Allocator":   func(d *Definition) { d.Kind = 0 },
		"Register is nil":  func(d *Definition) { d.Register = nil },
		`companion "../x"`: func(d *Definition) { d.Capabilities = []string{"companion:../x"} },
		"want a struct":    func(d *Definition) { d.NewConfig = func() any { return 1 } },
		"cannot be written": func(d *Definition) {
			d.NewConfig = func() any {
				return new(struct {
					C chan int `hcl:"c"`
				})
			}
		},
	} {
		def := testDefinition()
		change(&def)
		if _, err := StartLocal(def, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// TestRunByHand starts the plugin as a person would.
func TestRunByHand(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MEZZO_TEST_SERVE=1")
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d, %v, want 1", code, err)
	}
	want := `This is a Mezzo plugin. ` + "`mezzo agent`" + ` starts it; it does nothing by itself.

  kind      isolator
  name      test
  version   0.1.0
  contract  1
  summary   Walls for tests.

To use it, install this file as mezzo-isolator-test in the plugin_dir and write in agent.hcl:

  isolator "test" {
    # path = "/…/plugin.test", if it keeps another name
    config {
      address = … # Where.
      # wait = "5s"
    }
  }
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
