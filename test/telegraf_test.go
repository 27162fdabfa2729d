package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// telegraf's own input finds every number that it knows by name, at a master and
// at an agent (mesos-v1-api, G.4).
func TestTelegrafReadsTheMetrics(t *testing.T) {
	t.Parallel()
	reader := filepath.Join(tempDir(t), "telegraf-mesos")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", reader, ".")
	build.Dir = "telegraf" // a module of its own
	build.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		lacking(t, "go build test/telegraf: %v\n%s", err, out)
	}
	c := startDev(t, "--mesos", "127.0.0.1:0", "--mesos-agent", "127.0.0.1:0")
	if r := c.mezzo("run", "--", "true"); r.code != 0 {
		t.Fatalf("run: %+v", r)
	}
	var out, complaints bytes.Buffer
	read := exec.CommandContext(ctx, reader, "http://"+c.fields["mesos"], "http://"+c.fields["mesos_agent"])
	read.Stdout, read.Stderr = &out, &complaints
	if err := read.Run(); err != nil {
		t.Fatalf("telegraf: %v\n%s", err, complaints.String())
	}
	got := map[string]float64{}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		var line struct {
			Role   string
			Fields map[string]float64
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		for name, v := range line.Fields {
			got[name] = v
		}
	}
	names, err := os.ReadFile("telegraf/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(names)) {
		if _, has := got[name]; !has {
			t.Errorf("%s is missing", name)
		}
	}
	for name, want := range map[string]float64{
		"master/elected": 1, "master/slaves_active": 1, "master/tasks_finished": 1, "slave/registered": 1, "slave/tasks_finished": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}
