package test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/core/trace/tracetest"
)

// TestRunTraced is one task's whole life, in one trace made by two processes that
// were only told where the collector is.
func TestRunTraced(t *testing.T) {
	collector := tracetest.Start(t)
	config := writeFile(t, filepath.Join(tempDir(t), "tracing.hcl"), fmt.Sprintf(`
telemetry {
  tracing {
    endpoint = "http://%s"
    protocol = "http/protobuf"
  }
}`, collector.HTTP))
	c := startDev(t, "--config", config)
	for address, says := range map[string]string{"http": "allocator: drf is healthy", "agent_http": "isolator cgroups: healthy"} {
		var body string
		for late := time.Now().Add(patience); !strings.HasPrefix(body, "ready\n") && time.Now().Before(late); time.Sleep(50 * time.Millisecond) {
			body = page(t, "http://"+c.fields[address]+"/readyz")
		}
		if !strings.HasPrefix(body, "ready\n") || !strings.Contains(body, says) {
			t.Errorf("/readyz of %s is %q", address, body)
		}
	}
	if r := c.mezzo("run", "--name", "traced", "--", "echo", "hello"); r.code != 0 || r.stdout != "hello\n" {
		t.Fatalf("run: %+v", r)
	}
	updates := func(s tracetest.Spans) int {
		return len(s.Named("status update").With("mezzo.task.state", "TASK_FINISHED")) + len(s.Named("deliver update").With("mezzo.task.state", "TASK_FINISHED"))
	}
	spans := collector.Await(t, "the task's end", func(s tracetest.Spans) bool {
		return updates(s) == 2 && s.One("cleanup") != nil && s.One("launch") != nil && len(s.Named("offer").With("mezzo.outcome", "accepted")) == 1
	})
	want := `mezzo-master: offer accepted
  mezzo-master: accept
    mezzo-master: launch
      mezzo-agent: launch task
        mezzo-agent: claim isolator/cgroups
        mezzo-agent: create isolator/cgroups
        mezzo-agent: isolate isolator/cgroups
        mezzo-agent: prepare isolator/cgroups
        mezzo-agent: start isolator/cgroups
      mezzo-agent: run task TASK_FINISHED
        mezzo-agent: cleanup isolator/cgroups
      mezzo-agent: status update TASK_FINISHED
        mezzo-master: deliver update TASK_FINISHED
      mezzo-agent: status update TASK_RUNNING
        mezzo-master: deliver update TASK_RUNNING
`
	if diff := cmp.Diff(want, spans.Of(spans.One("launch").Trace).Tree()); diff != "" {
		t.Errorf("the trace (-want +got):\n%s", diff)
	}
}

// page gets a page, whatever its status.
func page(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
