package metric

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// A plugin that runs is shown with what its process needs, one that does not
// without.
func TestPlugins(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewPlugins(func() []*operatorv1.Plugin {
		return []*operatorv1.Plugin{
			{Id: "allocator/this", State: "degraded", Restarts: 2, Pid: int64(os.Getpid())},
			{Id: "isolator/none", State: "restarting"},
			{Id: "isolator/ended", State: "healthy", Pid: int64(ended.Process.Pid)},
		}
	}))
	all, err := Messages(registry)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]float64{}
	for _, m := range all {
		has[strings.TrimPrefix(m.Name, "mezzo_plugin_")+" "+m.Labels["plugin"]] = m.Value
	}
	for name, want := range map[string]float64{
		"up allocator/this": 1, "restarts_total allocator/this": 2, "up isolator/none": 0, "restarts_total isolator/none": 0, "up isolator/ended": 1,
	} {
		if got, there := has[name]; !there || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, there, want)
		}
	}
	if m := has["resident_memory_bytes allocator/this"]; m < 1<<20 {
		t.Errorf("this process has %v bytes", m)
	}
	if n := has["open_fds allocator/this"]; n < 3 {
		t.Errorf("this process has %v open files", n)
	}
	if _, there := has["cpu_seconds_total allocator/this"]; !there {
		t.Error("nothing is told of this process's time")
	}
	for name := range has {
		if strings.HasSuffix(name, "isolator/none") && !strings.HasPrefix(name, "up") && !strings.HasPrefix(name, "restarts") ||
			strings.HasPrefix(name, "resident_memory_bytes isolator") {
			t.Errorf("%s is told, of a plugin without a process", name)
		}
	}
}
