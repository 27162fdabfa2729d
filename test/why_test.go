package test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestOperatorsSetQuotaAndAskWhy starves a framework in three ways, and asks
// why each time.
func TestOperatorsSetQuotaAndAskWhy(t *testing.T) {
	t.Parallel()
	c := startDev(t)
	ok := func(args ...string) result {
		t.Helper()
		r := c.mezzo(args...)
		if r.code != 0 {
			t.Fatalf("mezzo %s: %+v", strings.Join(args, " "), r)
		}
		return r
	}
	framework := func(name string) string {
		t.Helper()
		id := ""
		eventually(t, "the framework of "+name, func() bool {
			for _, f := range c.list("frameworks") {
				if f["name"] == "run "+name && f["state"] == "active" {
					id = f["id"].(string)
				}
			}
			return id != ""
		})
		return id
	}
	why := func(what string, want []string, args ...string) {
		t.Helper()
		last := ""
		eventually(t, what, func() bool {
			r := c.mezzo(append([]string{"why"}, args...)...)
			last = r.stdout + r.stderr
			for _, text := range want {
				if !strings.Contains(last, text) {
					t.Logf("not yet %q in:\n%s", text, last)
					return false
				}
			}
			return true
		})
	}

	// It declines what is too small for it.
	large := c.start("run", "--name", "large", "--role", "eng/large", "--cpus", "64", "--", "true")
	framework("large")
	why("the filter", []string{"the framework itself declined what is free", "Advice: revive the role"}, "large", "--role", "eng/large")
	_ = large.cmd.Process.Kill()
	large.wait()

	// Its role has all that it may have.
	first := c.start("run", "--name", "first", "--role", "eng/web", "--cpus", "1", "--", "sh", "-c", "echo up; sleep 1000")
	eventually(t, "the first task", func() bool { return first.stdout.String() == "up\n" })
	if r := c.mezzo("quota", "set", "eng", "--limit", "cpus:0.5"); r.code != 1 || !strings.Contains(r.stderr, "uses more than that limit: cpus:1 of 0.5") {
		t.Errorf("a limit below what the role uses: %+v", r)
	}
	ok("quota", "set", "eng", "--limit", "cpus:1;gpus:0")
	ok("weights", "set", "eng/web=2", "idle=3")
	if r := ok("quota", "set", "gold", "--guarantee", "cpus:100"); !strings.Contains(r.stderr, "warning: the guarantees of all roles are more than the cluster has (cpus:100 of 4)") {
		t.Errorf("a guarantee of more than there is: %+v", r)
	}
	ok("quota", "remove", "gold")
	second := c.start("run", "--name", "second", "--role", "eng/web", "--cpus", "1", "--", "true")
	framework("second")
	why("the limit", []string{`the limit of role "eng" is reached: it has 1 of 1 cpus`, "first (", `has cpus:1 in role "eng/web"`, "Advice: raise the limit"}, "second")
	roles := map[string]map[string]any{}
	for _, r := range c.list("roles") {
		roles[r["name"].(string)] = r
	}
	if r := roles["eng"]; r == nil || r["limit"].(map[string]any)["cpus"] != 1.0 || r["consumed"].(map[string]any)["cpus"] != 1.0 || r["quota_source"] != "operator" {
		t.Errorf("role eng, with a limit and nobody in it: %v", r)
	}
	if r := roles["eng/web"]; r == nil || r["weight"] != 2.0 || r["dominant_share"] != 0.25 || r["dominant_resource"] != "cpus" {
		t.Errorf("role eng/web: %v", r)
	}
	if r := roles["idle"]; r == nil || r["weight"] != 3.0 {
		t.Errorf("role idle, of which only a weight is set: %v", r)
	}

	// The limit goes, and it runs.
	ok("quota", "remove", "eng")
	if r := second.wait(); r.code != 0 {
		t.Errorf("the second, once it may: %+v", r)
	}

	// Everything is used.
	rest := c.start("run", "--name", "rest", "--cpus", "3", "--mem", "1984", "--", "sh", "-c", "echo up; sleep 1000")
	eventually(t, "the rest's task", func() bool { return rest.stdout.String() == "up\n" })
	c.start("run", "--name", "third", "--cpus", "1", "--", "true")
	id := framework("third")
	why("that nothing is free", []string{"nothing is free on any agent", "Advice: add agents", "AGENT", "it is full"}, "third", "--agents")
	var answer struct {
		Framework map[string]any   `json:"framework"`
		Roles     []map[string]any `json:"roles"`
	}
	if err := json.Unmarshal([]byte(ok("why", id, "--json").stdout), &answer); err != nil || answer.Framework["id"] != id || len(answer.Roles) != 1 {
		t.Errorf("why --json: %v, %+v", err, answer)
	}
	// A job says what it needs; no agent has as much.
	c.start("run", "--name", "huge", "--cpus", "40", "--", "true")
	framework("huge")
	why("what was requested", []string{"no agent has as much free as the framework has requested"}, "huge")
	// A role that nobody is in, and that only something is reserved to.
	ok("reserve", "S0", "disk:32", "--role", "lonely")
	eventually(t, "the role's reservation", func() bool {
		for _, r := range c.list("roles") {
			if reserved, _ := r["reserved"].(map[string]any); r["name"] == "lonely" && reserved["disk"] == 32.0 {
				return true
			}
		}
		return false
	})
	if r := c.mezzo("unreserve", "S0", "disk:64", "--role", "lonely"); r.code == 0 || !strings.Contains(r.stderr, "disk:32 is missing of what role lonely has reserved") {
		t.Errorf("to unreserve more than there is: %+v", r)
	}
	if r := c.mezzo("why", "nobody"); r.code != 1 || !strings.Contains(r.stderr, `no framework "nobody" is known`) {
		t.Errorf("why of one that is not there: %+v", r)
	}
}
