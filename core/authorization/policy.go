// Package authorization decides who may do what, by rules that an operator has
// written. It is pure: a Policy is compiled once, does no I/O, asks nobody, and
// answers in less than a microsecond, for it is asked for each task launched.
//
// Terms. A *principal* is who asks: the name in a certificate or of a credential;
// who has neither is *nobody*. An *action* is what is asked for, an *object* what
// it is done to: of it a rule may look at the *role*, at the operating system's
// *user*, and at the *owner*, the principal whose framework, reservation or
// volume it is.
//
// The first rule that matches decides, in the order written; when none does, the
// default. A rule matches when each of its lists has a pattern that does:
//
//   - In a pattern * stands for any characters, slashes included.
//   - A rule with roles (users, owners) never matches an action that has no role
//     (user, owner): see Action.
//   - What is not known of an object is matched by every pattern of a rule that
//     denies, and by none but * of a rule that allows.
//   - nobody is matched by the pattern nobody, and by the * of a rule that
//     denies: to let strangers in is written, never implied.
//   - The owner "self" is the principal itself, if it is known.
//
// Example:
//
//	policy, err := authorization.Compile(false, []authorization.Rule{
//		{Name: "platform", Principals: []string{"ops-*"}, Actions: []string{"*"}},
//		{Name: "web", Principals: []string{"web"}, Actions: []string{"register_framework", "run_task"},
//			Roles: []string{"web", "web/*"}, Users: []string{"www-data"}},
//	})
//	err = policy.Authorize(ctx, rpc.PrincipalFrom(ctx), rpc.RunTask, rpc.Object{ID: "t1", Role: "web", User: "root"})
package authorization

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/mezzo-os/mezzo/core/rpc"
)

const (
	// Nobody is how rules call a caller of whom nothing is known.
	Nobody = "nobody"
	// Self, among the owners of a rule, is the caller.
	Self = "self"
	// Everything, among the actions of a rule, is all of them.
	Everything = "*"
)

// Rule allows, or denies, actions to principals. Lists are of patterns, but for
// Actions. Roles, Users and Owners that are empty are not looked at.
type Rule struct {
	Name       string
	Deny       bool
	Principals []string
	Actions    []string // names, or Everything
	Roles      []string
	Users      []string
	Owners     []string
	// Place is where it was written, for people: "mezzo.hcl:12".
	Place string
}

// Policy is compiled rules. It does not change; safe for concurrent use.
type Policy struct {
	allow bool // when no rule matches
	rules map[rpc.Action][]*rule
}

// rule is a compiled Rule.
type rule struct {
	Rule
	principals, roles, users, owners list
}

// Compile makes a policy of rules, in order; allow is what holds when none of
// them matches. Its error names each rule and what is wrong with it.
func Compile(allow bool, rules []Rule) (*Policy, error) {
	p := &Policy{allow: allow, rules: map[rpc.Action][]*rule{}}
	var errs []error
	for _, written := range rules {
		r := &rule{Rule: written}
		fail := func(err error) { errs = append(errs, fmt.Errorf("rule %q: %w", written.Name, err)) }
		for _, part := range []struct {
			name string
			from []string
			to   *list
		}{
			{"principals", written.Principals, &r.principals}, {"roles", written.Roles, &r.roles},
			{"users", written.Users, &r.users}, {"owners", written.Owners, &r.owners},
		} {
			for _, text := range part.from {
				if err := part.to.add(text); err != nil {
					fail(fmt.Errorf("the pattern %q of its %s: %w", text, part.name, err))
				}
			}
		}
		if len(written.Principals) == 0 {
			fail(errors.New("it has no principals"))
		}
		if len(written.Actions) == 0 {
			fail(errors.New("it has no actions"))
		}
		for _, action := range r.actions(fail) {
			p.rules[action] = append(p.rules[action], r)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// actions are those that the rule can match, each once.
func (r *rule) actions(fail func(error)) (out []rpc.Action) {
	meant := map[rpc.Action]bool{}
	for _, name := range r.Actions {
		if name == Everything {
			for _, a := range Actions {
				meant[a.Name] = true
			}
			continue
		}
		if _, known := Find(name); !known {
			fail(fmt.Errorf("there is no action %q", name))
		}
		meant[rpc.Action(name)] = true
	}
	for _, a := range Actions {
		if meant[a.Name] && (len(r.Roles) == 0 || a.Role) && (len(r.Users) == 0 || a.User) && (len(r.Owners) == 0 || a.Owner) {
			out = append(out, a.Name)
		}
	}
	return out
}

// list is the patterns of one of a rule's lists.
type list struct {
	texts map[string]struct{} // patterns without a star
	globs []pattern           // the others
	all   bool                // one of them is *
}

func (l *list) add(text string) error {
	p, err := parse(text)
	if err != nil {
		return err
	}
	if literal, ok := p.literal(); ok {
		if l.texts == nil {
			l.texts = map[string]struct{}{}
		}
		l.texts[literal] = struct{}{}
		return nil
	}
	l.all = l.all || p.everything()
	l.globs = append(l.globs, p)
	return nil
}

func (l *list) empty() bool { return len(l.texts) == 0 && len(l.globs) == 0 }

func (l *list) has(text string) bool {
	_, ok := l.texts[text]
	return ok
}

func (l *list) matches(s string) bool {
	if l.all || l.has(s) {
		return true
	}
	for i := range l.globs {
		if l.globs[i].matches(s) {
			return true
		}
	}
	return false
}

// Decision is what a policy says, and why.
type Decision struct {
	Allowed bool
	// Rule is the one that decided; nil: none matched, and the default did.
	Rule *Rule
}

// Decide says whether a principal (empty: nobody) may do something.
func (p *Policy) Decide(principal string, action rpc.Action, object rpc.Object) Decision {
	for _, r := range p.rules[action] {
		if r.matches(principal, &object) {
			return Decision{!r.Deny, &r.Rule}
		}
	}
	return Decision{Allowed: p.allow}
}

func (r *rule) matches(principal string, object *rpc.Object) bool {
	if principal == "" {
		if !r.principals.has(Nobody) && !(r.Deny && r.principals.all) {
			return false
		}
	} else if !r.principals.matches(principal) {
		return false
	}
	return r.part(&r.roles, object.Role) && r.part(&r.users, object.User) &&
		(r.part(&r.owners, object.Owner) || principal != "" && object.Owner == principal && r.owners.has(Self))
}

// part matches what an object has, or has not, with the rule's list for it.
func (r *rule) part(l *list, value string) bool {
	switch {
	case l.empty() || l.all:
		return true
	case value == "":
		return r.Deny
	}
	return l.matches(value)
}

// Authorize implements rpc.Authorizer. An adapter of this process may look at
// the cluster for itself, whatever the rules say: it keeps a copy, and asks here
// for each client whom it shows it.
func (p *Policy) Authorize(_ context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	if who.Adapter && action == rpc.ViewCluster {
		return nil
	}
	d := p.Decide(who.Name, action, object)
	if d.Allowed {
		return nil
	}
	return fmt.Errorf("%w: %s may not %s: %s", rpc.ErrDenied, name(who.Name), Describe(action, object), d.why(who.Name, action, object))
}

// why says what denied, and what can be done.
func (d Decision) why(principal string, action rpc.Action, object rpc.Object) string {
	if d.Rule != nil {
		return fmt.Sprintf("rule %q of the authorization block denies it", d.Rule.Name)
	}
	return fmt.Sprintf("no rule of the authorization block allows it; who operates the cluster can write one, and try it with: %s",
		Command(principal, action, object))
}

func name(principal string) string {
	if principal == "" {
		return Nobody + " (who shows no certificate and no credential)"
	}
	return fmt.Sprintf("%q", principal)
}

// Describe is an action on an object in words: `run_task "t1" (role "web", user
// "root")`.
func Describe(action rpc.Action, object rpc.Object) string {
	text := string(action)
	if object.ID != "" {
		text += fmt.Sprintf(" %q", object.ID)
	}
	known, _ := Find(string(action))
	var parts []string
	for _, part := range known.parts(object) {
		if part.value == "" {
			parts = append(parts, "unknown "+part.name)
		} else {
			parts = append(parts, fmt.Sprintf("%s %q", part.name, part.value))
		}
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// Command is the command line that asks a policy the same.
func Command(principal string, action rpc.Action, object rpc.Object) string {
	if principal == "" {
		principal = Nobody
	}
	words := []string{"mezzo auth can", quote(principal), string(action)}
	known, _ := Find(string(action))
	for _, part := range known.parts(object) {
		if part.value != "" {
			words = append(words, "--"+part.name, quote(part.value))
		}
	}
	return strings.Join(append(words, "--config", "FILE"), " ")
}

// quote makes a word safe for a shell.
func quote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Switch is an Authorizer whose policy can be replaced while it is asked. Safe
// for concurrent use.
type Switch struct{ policy atomic.Pointer[Policy] }

// NewSwitch returns a Switch with a policy; nil: everything is allowed.
func NewSwitch(p *Policy) *Switch {
	s := &Switch{}
	s.Set(p)
	return s
}

// Set replaces the policy; nil: everything is allowed.
func (s *Switch) Set(p *Policy) { s.policy.Store(p) }

// Open is whether everything is allowed.
func (s *Switch) Open() bool { return s.policy.Load() == nil }

// Authorize implements rpc.Authorizer.
func (s *Switch) Authorize(ctx context.Context, who rpc.Principal, action rpc.Action, object rpc.Object) error {
	if p := s.policy.Load(); p != nil {
		return p.Authorize(ctx, who, action, object)
	}
	return nil
}
