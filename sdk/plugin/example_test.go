package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/isolator"
	"github.com/mezzo-os/mezzo/sdk/plugin"
	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// favouritesConfig is what may stand in the config block.
type favouritesConfig struct {
	First []string `hcl:"first" required:"true" help:"Names of frameworks that are served before all others, in this order."`
}

func (c *favouritesConfig) Validate() []plugin.Diagnostic {
	if i := slices.Index(c.First, ""); i >= 0 {
		return []plugin.Diagnostic{plugin.Errorf("empty name", fmt.Sprintf("first.%d", i), "Write the name of a framework.")}
	}
	return nil
}

// favourites serves some frameworks first; apart from that it is fair.
type favourites struct {
	first []string
	fair  engine.DominantShare
}

func (p *favourites) Rank(c *allocator.Candidate, cluster *allocator.Cluster) allocator.Rank {
	rank := p.fair.Rank(c, cluster)
	if c.Framework == "" {
		return rank // a role, or the group of its frameworks
	}
	rank.Class = int64(len(p.first))
	if i := slices.Index(p.first, c.Name); i >= 0 {
		rank.Class = int64(i)
	}
	return rank
}

func favouritesDefinition() allocator.Definition {
	return allocator.Definition{
		Name: "favourites", Version: "1.0.0", Summary: "Serves some frameworks before all others.",
		NewConfig: func() any { return new(favouritesConfig) },
		NewPolicy: func(config any) (allocator.Policy, []plugin.Diagnostic) {
			return &favourites{first: config.(*favouritesConfig).First}, nil
		},
	}
}

// An allocator plugin is a Policy; its main is allocator.Serve(favouritesDefinition()).
// Here it is served inside this process, and the core's part is played by hand.
func Example_allocator() {
	local, err := plugin.StartLocal(favouritesDefinition().Plugin(), nil)
	check(err)
	defer local.Close()
	configure(local, `{"first": ["billing"]}`)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	session, err := allocatorv1.NewAllocatorClient(local.Conn).Allocate(ctx)
	check(err)
	check(session.Send(&allocatorv1.FromCore{Session: 1, Begin: allocator.Begin{FirstDecision: 1}.Proto()}))
	encoder := allocator.NewEncoder()
	snapshot := encoder.Encode(allocator.Batch{Snapshot: true, SnapshotEnd: true, Events: []allocator.Event{
		&allocator.FrameworkUpdated{ID: "f1", Name: "billing", Roles: []string{"*"}, Active: true},
		&allocator.FrameworkUpdated{ID: "f2", Name: "batch", Roles: []string{"*"}, Active: true},
		&allocator.AgentUpdated{ID: "a1", Total: resource.MustParse("cpus:4;mem:4096"), Active: true},
	}})
	for _, batch := range snapshot {
		check(session.Send(&allocatorv1.FromCore{Session: 1, Batch: batch}))
	}
	for {
		message, err := session.Recv()
		check(err)
		for _, d := range message.GetDecisions() {
			decision, err := encoder.Decision(d)
			check(err)
			offer := decision.(*allocator.Offer)
			fmt.Println("offer", offer.Resources, "of", offer.Agent, "to", offer.Framework)
			return
		}
	}
	// Output:
	// offer cpus:4;mem:4096 of a1 to f1
}

// rackConfig is what may stand in the config block.
type rackConfig struct {
	File string `hcl:"file" default:"/etc/rack" help:"The file that holds the name of this machine's rack."`
}

// rack tells every container where it runs, in the environment variable RACK.
type rack struct{ name string }

func (r *rack) configure(_ context.Context, config any, env plugin.Environment) []plugin.Diagnostic {
	path := config.(*rackConfig).File
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		env.Health.Degraded(path + " does not exist: containers are told of no rack")
	case err != nil:
		return []plugin.Diagnostic{plugin.Errorf("file cannot be read", "file", "%v.", err)}
	}
	r.name = strings.TrimSpace(string(text))
	return nil
}

func (r *rack) Claim(_ context.Context, request *isolatorv1.ClaimRequest) (*isolatorv1.ClaimResponse, error) {
	if request.GetTask().GetSandboxOnly() || r.name == "" {
		return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_NONE, Reason: "nothing to tell"}, nil
	}
	return &isolatorv1.ClaimResponse{Claim: isolatorv1.ClaimResponse_CLAIM_AMEND}, nil
}

// Prepare keeps all of the spec that it does not know, to the letter: a number
// such as "no limit" does not outlive a float64.
func (r *rack) Prepare(_ context.Context, request *isolatorv1.PrepareRequest) (*isolatorv1.PrepareResponse, error) {
	var spec, process map[string]json.RawMessage
	var env []string
	err := json.Unmarshal(request.GetSpec(), &spec)
	if err == nil {
		err = json.Unmarshal(spec["process"], &process)
	}
	if err != nil || process == nil {
		return nil, fmt.Errorf("the spec of %s has no process (%v)", request.GetContainer(), err)
	}
	if text, set := process["env"]; set {
		err = json.Unmarshal(text, &env)
	}
	if err == nil {
		process["env"], err = json.Marshal(append(env, "RACK="+r.name))
	}
	if err == nil {
		spec["process"], err = json.Marshal(process)
	}
	if err != nil {
		return nil, fmt.Errorf("the environment of %s: %w", request.GetContainer(), err)
	}
	out, err := json.Marshal(spec)
	return &isolatorv1.PrepareResponse{Spec: out}, err
}

// Cleanup and Recover have nothing to do: all that rack makes is in the spec.
func (r *rack) Cleanup(context.Context, *isolatorv1.CleanupRequest) (*isolatorv1.CleanupResponse, error) {
	return &isolatorv1.CleanupResponse{}, nil
}

func (r *rack) Recover(context.Context, *isolatorv1.RecoverRequest) (*isolatorv1.RecoverResponse, error) {
	return &isolatorv1.RecoverResponse{}, nil
}

func rackPlugin() plugin.Definition {
	r := &rack{}
	return isolator.Plugin(isolator.Definition{
		Name: "rack", Version: "1.0.0", Summary: "Tells containers which rack they run in.",
		NewConfig: func() any { return new(rackConfig) },
		Configure: r.configure,
	}, r)
}

// An isolator plugin implements isolator.Isolator, and more where it can do more;
// its main is plugin.Serve(rackPlugin()).
func Example_isolator() {
	file, err := os.CreateTemp("", "rack")
	check(err)
	defer os.Remove(file.Name())
	_, err = file.WriteString("r7\n")
	check(errors.Join(err, file.Close()))

	local, err := plugin.StartLocal(rackPlugin(), nil)
	check(err)
	defer local.Close()
	configure(local, fmt.Sprintf(`{"file": %q}`, file.Name()))

	rack := isolatorv1.NewIsolatorClient(local.Conn)
	claim, err := rack.Claim(context.Background(), &isolatorv1.ClaimRequest{Container: "c1", Task: &isolatorv1.Task{TaskId: "t1"}})
	check(err)
	prepared, err := rack.Prepare(context.Background(), &isolatorv1.PrepareRequest{
		Container: "c1", Spec: []byte(`{"process": {"args": ["env"], "env": ["HOME=/"]}}`),
	})
	check(err)
	fmt.Println(claim.GetClaim(), string(prepared.GetSpec()))
	// Output:
	// CLAIM_AMEND {"process":{"args":["env"],"env":["HOME=/","RACK=r7"]}}
}

// configure does what the host does once it has decoded the operator's HCL.
func configure(local *plugin.Local, config string) {
	answer, err := pluginv1.NewPluginClient(local.Conn).Configure(context.Background(),
		&pluginv1.ConfigureRequest{Config: []byte(config), ContractVersion: 1})
	check(err)
	if len(answer.GetDiagnostics()) > 0 {
		check(errors.New(answer.GetDiagnostics()[0].GetSummary()))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
