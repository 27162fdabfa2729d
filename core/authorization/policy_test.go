package authorization

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/core/rpc"
)

func compile(t testing.TB, allow bool, rules ...Rule) *Policy {
	t.Helper()
	p, err := Compile(allow, rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// company is a policy as one would write it.
var company = []Rule{
	{Name: "platform", Principals: []string{"ops-*"}, Actions: []string{"*"}},
	{Name: "machines", Principals: []string{"agent", "*.agents.example.org"}, Actions: []string{"register_agent"}},
	{Name: "web", Principals: []string{"web"}, Actions: []string{"register_framework", "run_task"}, Roles: []string{"web", "web/*"}, Users: []string{"www-data"}},
	{Name: "no-secrets", Deny: true, Principals: []string{"*"}, Actions: []string{"read_sandbox"}, Roles: []string{"vault"}},
	{Name: "own", Principals: []string{"*"}, Actions: []string{"kill_task", "read_sandbox", "run_command"}, Owners: []string{"self"}},
	{Name: "viewers", Principals: []string{"*"}, Actions: []string{"view_cluster"}},
	{Name: "default-role", Principals: []string{"ci"}, Actions: []string{"register_framework"}, Roles: []string{`\*`}},
	{Name: "probes", Principals: []string{"nobody"}, Actions: []string{"view_cluster"}},
	{Name: "strangers", Deny: true, Principals: []string{"*"}, Actions: []string{"*"}},
}

func TestDecide(t *testing.T) {
	p := compile(t, true, company...)
	for _, test := range []struct {
		principal string
		action    rpc.Action
		object    rpc.Object
		rule      string
		allowed   bool
	}{
		{"ops-ann", rpc.Administer, rpc.Object{ID: "reload"}, "platform", true},
		{"ops", rpc.Administer, rpc.Object{ID: "reload"}, "strangers", false},
		{"agent", rpc.RegisterAgent, rpc.Object{ID: "h1"}, "machines", true},
		{"h1.agents.example.org", rpc.RegisterAgent, rpc.Object{}, "machines", true},
		{"h1.agents.example.org.evil", rpc.RegisterAgent, rpc.Object{}, "strangers", false},
		{"web", rpc.RunTask, rpc.Object{Role: "web", User: "www-data"}, "web", true},
		{"web", rpc.RunTask, rpc.Object{Role: "web/a/b", User: "www-data"}, "web", true},
		{"web", rpc.RunTask, rpc.Object{Role: "webs", User: "www-data"}, "strangers", false},
		{"web", rpc.RunTask, rpc.Object{Role: "web", User: "root"}, "strangers", false},
		{"web", rpc.RunTask, rpc.Object{Role: "web"}, "strangers", false},      // it is not known who it runs as
		{"web", rpc.RunTask, rpc.Object{User: "www-data"}, "strangers", false}, // nor in which role
		{"web", rpc.KillTask, rpc.Object{Role: "web", Owner: "web"}, "own", true},
		{"web", rpc.KillTask, rpc.Object{Role: "web", Owner: "batch"}, "strangers", false},
		{"web", rpc.KillTask, rpc.Object{Role: "web"}, "strangers", false},
		{"", rpc.KillTask, rpc.Object{Role: "web"}, "strangers", false}, // nobody owns nothing
		{"web", rpc.ReadSandbox, rpc.Object{Role: "vault", Owner: "web"}, "no-secrets", false},
		{"web", rpc.ReadSandbox, rpc.Object{Owner: "web"}, "no-secrets", false}, // it may be one of vault's
		{"web", rpc.ViewCluster, rpc.Object{}, "viewers", true},
		{"", rpc.ViewCluster, rpc.Object{}, "probes", true}, // * lets no strangers in
		{"nobody", rpc.ViewCluster, rpc.Object{}, "viewers", true},
		{"ci", rpc.RegisterFramework, rpc.Object{Role: "*", User: "ci"}, "default-role", true},
		{"ci", rpc.RegisterFramework, rpc.Object{Role: "web", User: "ci"}, "strangers", false},
		{"", rpc.RegisterAgent, rpc.Object{}, "strangers", false}, // and keeps them out
	} {
		d := p.Decide(test.principal, test.action, test.object)
		if d.Rule == nil || d.Rule.Name != test.rule || d.Allowed != test.allowed {
			t.Errorf("%q %s %+v: %+v, want rule %q and %v", test.principal, test.action, test.object, d, test.rule, test.allowed)
		}
	}
	for _, allow := range []bool{false, true} {
		if d := compile(t, allow).Decide("ann", rpc.RunTask, rpc.Object{}); d.Rule != nil || d.Allowed != allow {
			t.Errorf("without rules and with default %v: %+v", allow, d)
		}
	}
}

func TestErrorsSayWhoWhatAndWhy(t *testing.T) {
	p := compile(t, false, company[3])
	for _, test := range []struct {
		principal string
		action    rpc.Action
		object    rpc.Object
		want      string
	}{
		{"web", rpc.RunTask, rpc.Object{ID: "t1", FrameworkID: "f", Role: "*", User: "root", Owner: "web"},
			`denied: "web" may not run_task "t1" (role "*", user "root", owner "web"): no rule of the authorization block allows it; ` +
				`who operates the cluster can write one, and try it with: mezzo auth can web run_task --role '*' --user root --owner web --config FILE`},
		{"", rpc.ViewCluster, rpc.Object{}, `denied: nobody (who shows no certificate and no credential) may not view_cluster: no rule of the authorization ` +
			`block allows it; who operates the cluster can write one, and try it with: mezzo auth can nobody view_cluster --config FILE`},
		{"it's me", rpc.ReadSandbox, rpc.Object{ID: "t1", Role: "vault", User: "root"},
			`denied: "it's me" may not read_sandbox "t1" (role "vault", user "root", unknown owner): rule "no-secrets" of the authorization block denies it`},
		{"it's me", rpc.Administer, rpc.Object{ID: "reload"}, `denied: "it's me" may not administer "reload": no rule of the authorization block allows it; ` +
			`who operates the cluster can write one, and try it with: mezzo auth can 'it'\''s me' administer --config FILE`},
	} {
		err := p.Authorize(t.Context(), rpc.Principal{Name: test.principal}, test.action, test.object)
		if !errors.Is(err, rpc.ErrDenied) || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestAdaptersLookForThemselves(t *testing.T) {
	p := compile(t, false)
	adapter := rpc.Principal{Adapter: true}
	if err := p.Authorize(t.Context(), adapter, rpc.ViewCluster, rpc.Object{}); err != nil {
		t.Error(err)
	}
	for _, a := range Actions {
		if err := p.Authorize(t.Context(), adapter, a.Name, rpc.Object{}); a.Name != rpc.ViewCluster && err == nil {
			t.Errorf("an adapter may %s for itself", a.Name)
		}
	}
}

func TestSwitch(t *testing.T) {
	s := NewSwitch(nil)
	ask := func() error { return s.Authorize(t.Context(), rpc.Principal{}, rpc.RunTask, rpc.Object{}) }
	if err := ask(); err != nil {
		t.Error(err)
	}
	s.Set(compile(t, false))
	if err := ask(); err == nil {
		t.Error("the new policy is not asked")
	}
	s.Set(nil)
	if err := ask(); err != nil {
		t.Error(err)
	}
}

func TestCompileNamesEveryMistake(t *testing.T) {
	_, err := Compile(false, []Rule{
		{Name: "a", Actions: []string{"run_tasks"}},
		{Name: "b", Principals: []string{"x[1]"}, Roles: []string{""}},
	})
	want := `rule "a": it has no principals
rule "a": there is no action "run_tasks"
rule "b": the pattern "x[1]" of its principals: it has '[' in it; only * is special. For the character itself write "\\["
rule "b": the pattern "" of its roles: it is empty, and would match nothing
rule "b": it has no actions`
	if err == nil || cmp.Diff(want, err.Error()) != "" {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, err.Error()))
	}
}

func TestPatterns(t *testing.T) {
	for text, want := range map[string]string{
		"":        "it is empty",
		"a**":     "** in it",
		"**":      "** in it",
		`a\`:      "backslash",
		`a\b`:     "backslash",
		"web/%":   `write "web/*"`,
		"a?":      "'?' in it",
		"{a,b}":   "'{' in it",
		"a\nb":    "control character",
		`a\*\*b*`: "",
		"a*b*c":   "",
		"*":       "",
		"50%":     "",
	} {
		err := CheckPattern(text)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// Every action of package rpc has a row here.
func TestActionsAreAll(t *testing.T) {
	source, err := os.ReadFile("../rpc/authorizer.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`Action = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(declared) != len(Actions) {
		t.Errorf("package rpc has %d actions, and %d have a row", len(declared), len(Actions))
	}
	for _, d := range declared {
		if _, ok := Find(d[1]); !ok {
			t.Errorf("the action %s has no row", d[1])
		}
	}
	seen := map[rpc.Action]bool{}
	for _, a := range Actions {
		if seen[a.Name] || a.Meaning == "" || strings.HasSuffix(a.Meaning, ".") {
			t.Errorf("%s stands twice, or its meaning is %q", a.Name, a.Meaning)
		}
		seen[a.Name] = true
		if found, ok := Find(string(a.Name)); !ok || found != a {
			t.Errorf("%s is not found", a.Name)
		}
	}
}

// names are few, so that they meet.
var names = []string{"", "web", "web/a", "*", "ops-ann", "nobody", "self", "a*b", "webweb"}

func patternText(t *rapid.T) string {
	return rapid.SampledFrom([]string{"*", "web", "web/*", "*web", "ops-*", "nobody", "self", `\*`, `a\*b`, "w*b*", "*a*"}).Draw(t, "pattern")
}

func TestPatternsAreGlobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab/]{0,3}(\*[ab/]{1,3}){0,3}\*?`).Filter(func(s string) bool { return s != "" && !strings.Contains(s, "**") }).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab/]{0,12}`).Draw(t, "name")
		p, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, `.*`) + `$`).MatchString(name)
		if got := p.matches(name); got != want {
			t.Fatalf("%q matches %q: %v", text, name, got)
		}
	})
}

func drawRule(t *rapid.T) Rule {
	texts := func(label string, least int) []string {
		return rapid.SliceOfN(rapid.Custom(patternText), least, 3).Draw(t, label)
	}
	actions := append(Names(), Everything)
	return Rule{
		Name: rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "name"), Deny: rapid.Bool().Draw(t, "deny"),
		Principals: texts("principals", 1), Actions: rapid.SliceOfN(rapid.SampledFrom(actions), 1, 3).Draw(t, "actions"),
		Roles: texts("roles", 0), Users: texts("users", 0), Owners: texts("owners", 0),
	}
}

// slow is what the package comment says, word by word.
func slow(allow bool, rules []Rule, principal string, action Action, object rpc.Object) Decision {
	glob := func(text, value string) bool {
		text = regexp.QuoteMeta(strings.ReplaceAll(text, `\*`, "\x00"))
		text = strings.ReplaceAll(strings.ReplaceAll(text, `\*`, `.*`), "\x00", `\*`)
		return regexp.MustCompile(`^` + text + `$`).MatchString(value)
	}
	part := func(r Rule, list []string, has bool, value string) bool {
		if len(list) == 0 || slices.Contains(list, "*") && has {
			return true
		}
		return has && (value == "" && r.Deny || value != "" && slices.ContainsFunc(list, func(text string) bool { return glob(text, value) }))
	}
	for i, r := range rules {
		who := slices.ContainsFunc(r.Principals, func(text string) bool {
			if principal == "" {
				return text == Nobody || text == "*" && r.Deny
			}
			return glob(text, principal)
		})
		what := slices.Contains(r.Actions, "*") || slices.Contains(r.Actions, string(action.Name))
		own := action.Owner && slices.Contains(r.Owners, Self) && principal != "" && principal == object.Owner
		if who && what && part(r, r.Roles, action.Role, object.Role) && part(r, r.Users, action.User, object.User) &&
			(own || part(r, r.Owners, action.Owner, object.Owner)) {
			return Decision{!r.Deny, &rules[i]}
		}
	}
	return Decision{Allowed: allow}
}

func drawQuestion(t *rapid.T) (string, Action, rpc.Object) {
	name := rapid.SampledFrom(names)
	return name.Draw(t, "principal"), rapid.SampledFrom(Actions).Draw(t, "action"),
		rpc.Object{Role: name.Draw(t, "role"), User: name.Draw(t, "user"), Owner: name.Draw(t, "owner")}
}

func TestPolicyDoesWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(drawRule), 0, 8).Draw(t, "rules")
		allow := rapid.Bool().Draw(t, "default")
		p, err := Compile(allow, rules)
		if err != nil {
			t.Fatal(err)
		}
		principal, action, object := drawQuestion(t)
		got, want := p.Decide(principal, action.Name, object), slow(allow, rules, principal, action, object)
		if got.Allowed != want.Allowed || (got.Rule == nil) != (want.Rule == nil) || got.Rule != nil && !cmp.Equal(*got.Rule, *want.Rule) {
			t.Fatalf("got %+v %+v, want %+v %+v", got, got.Rule, want, want.Rule)
		}
	})
}

// What is not known never allows what everything that it could be would not.
func TestWhatIsUnknownOpensNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// One rule for all after it: what a rule denies must not be allowed by
		// another that knows less.
		p, err := Compile(false, rapid.SliceOfN(rapid.Custom(drawRule), 0, 6).Draw(t, "rules"))
		if err != nil {
			t.Fatal(err)
		}
		principal, action, object := drawQuestion(t)
		blind := object
		switch rapid.IntRange(0, 2).Draw(t, "part") {
		case 0:
			blind.Role = ""
		case 1:
			blind.User = ""
		case 2:
			blind.Owner = ""
		}
		if p.Decide(principal, action.Name, blind).Allowed && !p.Decide(principal, action.Name, object).Allowed {
			t.Fatalf("%q may %s %+v, and not %+v", principal, action.Name, blind, object)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	var rules []Rule
	for range 10 { // sixty rules
		rules = append(rules, company[:6]...)
	}
	p := compile(b, false, append(rules, Rule{Name: "last", Principals: []string{"*-team"}, Actions: []string{"run_task"}, Roles: []string{"*/prod"}, Users: []string{"nobody"}})...)
	object := rpc.Object{ID: "t", Role: "a/prod", User: "nobody", Owner: "a-team"}
	b.ReportAllocs()
	for b.Loop() {
		if !p.Decide("a-team", rpc.RunTask, object).Allowed {
			b.Fatal("denied")
		}
	}
}
