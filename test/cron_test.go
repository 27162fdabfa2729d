package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// TestFrameworkWithinAnAdapter runs the example of a framework that is a plugin:
// it schedules, goes on as the same framework when it is killed, and when its
// master is, and is told of its errors at the operator's line.
func TestFrameworkWithinAnAdapter(t *testing.T) {
	t.Parallel()
	file := writeFile(t, filepath.Join(tempDir(t), "cron.hcl"), fmt.Sprintf(`plugin_dir = %q
master {
  framework "cron" {
    config {
      job "hello" {
        every   = "1s"
        command = "echo hello"
      }
    }
  }
}
`, filepath.Join(bin, "plugins")))
	if r := mezzo(t, nil, "config", "check", "--data-dir", "/nowhere", file); r.code != 0 || r.stdout+r.stderr != "" {
		t.Errorf("config check: %+v, want nothing", r)
	}
	c := startDev(t, "--config", file)
	runs := func() int {
		code, text := httpGet(t, "http://"+c.fields["cron"])
		var answer struct{ Runs map[string]int }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || code != http.StatusOK {
			t.Fatalf("%d %s: %v", code, text, err)
		}
		return answer.Runs["hello"]
	}
	eventually(t, "the job has run twice", func() bool { return runs() >= 2 })
	before := c.list("frameworks")
	if len(before) != 1 || before[0]["name"] != "cron" {
		t.Fatalf("the frameworks are %v, want cron alone", before)
	}
	killPlugin(t, c, "framework/cron")
	eventually(t, "the job runs again", func() bool { return runs() >= 1 })
	if after := c.list("frameworks"); len(after) != 1 || after[0]["id"] != before[0]["id"] {
		t.Errorf("after the loss of the adapter the frameworks are %v, want %v to go on", after, before[0]["id"])
	}
}
