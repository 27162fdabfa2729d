package master_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/core/master"
	"github.com/mezzo-os/mezzo/core/registry"
	"github.com/mezzo-os/mezzo/core/zookeeper"
	"github.com/mezzo-os/mezzo/internal/zktest"
	"github.com/mezzo-os/mezzo/sdk/client"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// A registry that has lost writes keeps masters from leading, and whoever looks
// is told so: /readyz, the metrics, the status, and whoever asks who leads.
func TestADamagedRegistryIsTold(t *testing.T) {
	ensemble := zktest.Start(t, zktest.Options{})
	o := oneOfSeveral(t, ensemble.Servers())
	r, err := master.OpenRegistry(&o.Config, hclog.NewNullLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	epoch, err := r.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(t.Context(), epoch, registry.Batch{{Key: "adapters/probe/key", Value: make([]byte, 16)}}); err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	if err := registry.Dump(t.Context(), r, &dump); err != nil {
		t.Fatal(err)
	}
	remove(t, ensemble.Servers(), "adapters/probe/key")

	m := start(t, o)
	var s *operatorv1.Status
	for s = m.standing(t, "standby"); s.Trouble == ""; s, _ = m.operator(t).GetStatus(t.Context(), &operatorv1.GetStatusRequest{}) {
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(s.Trouble, "the store has lost writes") {
		t.Errorf("its status tells %q", s.Trouble)
	}
	for path, want := range map[string]string{
		"/readyz":    "registry: no: this master was elected and could not lead: read the registry: registry: the store has lost writes",
		"/metrics":   "mezzo_master_registry_damaged 1\n",
		"/v1/status": "the store has lost writes",
	} {
		if text := page(t, m, path); !strings.Contains(text, want) {
			t.Errorf("%s does not tell %q:\n%s", path, want, text)
		}
	}
	if text := page(t, m, "/metrics"); strings.Contains(text, "mezzo_master_registry_losses_total 0\n") {
		t.Error("nobody counts the servers that lack writes")
	}
	conn, err := client.Leader(t.Context(), []string{m.Addresses()["rpc"]}, client.Options{})
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, client.ErrNoLeader) || !strings.Contains(err.Error(), "the store has lost writes") {
		t.Errorf("whoever asks who leads is told %v", err)
	}

	// The master stands again and again meanwhile, and may take the registry back.
	for err = registry.ErrSuperseded; errors.Is(err, registry.ErrSuperseded); {
		_, err = registry.Restore(t.Context(), r, strings.NewReader(dump.String()))
	}
	if err != nil {
		t.Fatal(err)
	}
	if s := m.standing(t, "leading"); s.Trouble != "" {
		t.Errorf("a leader tells the trouble %q", s.Trouble)
	}
	if text := page(t, m, "/metrics"); !strings.Contains(text, "mezzo_master_registry_damaged 0\n") {
		t.Error("a leader's metrics tell that the registry is damaged")
	}
}

// page is what a master says at a path.
func page(t *testing.T, m *running, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Addresses()["http"]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// remove takes an entry's node away, as nobody but a fault does.
func remove(t *testing.T, servers []string, key string) {
	t.Helper()
	s, err := zookeeper.Connect(zookeeper.Options{Servers: servers, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := "k-" + strings.ReplaceAll(key, "/", "%2F")
	_, err = zookeeper.Do(t.Context(), s, func(c *zk.Conn) (struct{}, error) {
		for i := range 256 {
			node := fmt.Sprintf("/mezzo/registry/entries/%02x/%s", i, name)
			if there, _, err := c.Exists(node); err != nil || there {
				return struct{}{}, errors.Join(err, c.Delete(node, -1))
			}
		}
		return struct{}{}, errors.New("there is no entry " + key)
	})
	if err != nil {
		t.Fatal(err)
	}
}
