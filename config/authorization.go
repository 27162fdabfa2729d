package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/mezzo-os/mezzo/core/authorization"
)

// Authorization says who may do what; see package authorization.
type Authorization struct {
	Default  string // "deny" or "allow"
	Rules    []authorization.Rule
	DefRange hcl.Range
}

// Policy compiles the rules, which Load has checked. Nil, for a configuration
// without the block, allows everything.
func (a *Authorization) Policy() (*authorization.Policy, error) {
	if a == nil {
		return nil, nil
	}
	return authorization.Compile(a.Default == "allow", a.Rules)
}

// Authorization is the block of who may do what; nil: there is none.
func (f *File) Authorization() *Authorization { return f.authorization }

// Same is whether the other says the same, wherever it was written.
func (a *Authorization) Same(other *Authorization) bool {
	if a == nil || other == nil {
		return a == other
	}
	return a.Default == other.Default && slices.EqualFunc(a.Rules, other.Rules, func(x, y authorization.Rule) bool {
		x.Place, y.Place = "", ""
		return reflect.DeepEqual(x, y)
	})
}

// Text is the block in a few words, to be shown.
func (a *Authorization) Text() string {
	if a == nil {
		return "none: everything is allowed"
	}
	var names []string
	for _, r := range a.Rules {
		names = append(names, r.Name)
	}
	if len(names) == 0 {
		return "default " + a.Default + ", no rules"
	}
	return fmt.Sprintf("default %s, rules %s", a.Default, strings.Join(names, ", "))
}

var authorizationSchema = schema(authorizationAttributes, "rule *")

var ruleSchema = schema(ruleAttributes)

func (d *decoder) authorization(block *hcl.Block) *Authorization {
	s, blocks := d.content(block.Body, authorizationSchema)
	a := &Authorization{Default: "deny", DefRange: block.DefRange}
	s.oneOf("default", &a.Default, "deny", "allow")
	seen := map[string]hcl.Range{}
	for _, block := range blocks {
		name := block.Labels[0]
		if first, again := seen[name]; again {
			d.add(duplicate(block.DefRange, first, "rule \""+name+"\"", "Each rule has a name of its own, which errors tell."))
		}
		seen[name] = block.DefRange
		if strings.TrimSpace(name) == "" {
			d.add(invalid(block.LabelRanges[0], "Nameless rule", "A rule needs a name, which errors tell."))
		}
		a.Rules = append(a.Rules, d.rule(block))
	}
	return a
}

func (d *decoder) rule(block *hcl.Block) authorization.Rule {
	r := authorization.Rule{Name: block.Labels[0], Place: fmt.Sprintf("%s:%d", block.DefRange.Filename, block.DefRange.Start.Line)}
	s, _ := d.content(block.Body, ruleSchema)
	effect := "allow"
	s.oneOf("effect", &effect, "allow", "deny")
	r.Deny = effect == "deny"
	for _, list := range []struct {
		name string
		to   *[]string
	}{{"principals", &r.Principals}, {"roles", &r.Roles}, {"users", &r.Users}, {"owners", &r.Owners}} {
		s.patterns(list.name, list.to)
	}
	s.actions(&r)
	return r
}

// notEmpty reads a list of texts that has one at least.
func (s scope) notEmpty(name string, to *[]string) ([]hcl.Range, bool) {
	places, ok := s.texts(name, to)
	if ok && len(*to) == 0 {
		s.d.add(invalid(s.attrs[name].Expr.Range(), "Empty list", "%s is empty, so that the rule would never match. Write what it is for, or leave the rule out.", name))
		return nil, false
	}
	return places, ok
}

func (s scope) patterns(name string, to *[]string) {
	places, ok := s.notEmpty(name, to)
	if !ok {
		return
	}
	for i, text := range *to {
		if err := authorization.CheckPattern(text); err != nil {
			s.d.add(invalid(places[i], "Bad pattern", "In %s, %q is no pattern: %s.", name, text, err))
		}
	}
}

// actions reads the actions of a rule whose other lists are read. An action that
// is named and that the rule can never match is an error: it would seem to be
// allowed, or denied.
func (s scope) actions(r *authorization.Rule) {
	places, ok := s.notEmpty("actions", &r.Actions)
	if !ok {
		return
	}
	known := authorization.Names()
	for i, name := range r.Actions {
		if name == authorization.Everything {
			continue
		}
		action, is := authorization.Find(name)
		if !is {
			s.d.add(invalid(places[i], "Unknown action", "There is no action %q.%s The actions are %s, and \"*\" for all.",
				name, suggest(name, known), strings.Join(known, ", ")))
			continue
		}
		var without []string
		for _, list := range []struct {
			name    string
			written []string
			has     bool
		}{{"role", r.Roles, action.Role}, {"user", r.Users, action.User}, {"owner", r.Owners, action.Owner}} {
			if len(list.written) > 0 && !list.has {
				without = append(without, list.name)
			}
		}
		if len(without) > 0 {
			s.d.add(invalid(places[i], "Rule that never matches", "%s has no %s, so that this rule, which asks for one, would never be about it. Move it to a rule without %ss.",
				name, strings.Join(without, " and no "), strings.Join(without, "s and ")))
		}
	}
	if slices.Contains(r.Actions, authorization.Everything) && len(r.Actions) > 1 {
		s.d.add(invalid(places[slices.Index(r.Actions, authorization.Everything)], "Everything, and more", "\"*\" is all actions; the others say nothing beside it. Write one or the other."))
	}
}

// strangers warns of rules for principals that nobody can show.
func (d *decoder) strangers(a *Authorization, tls *TLS) {
	if a == nil || tls != nil {
		return
	}
	diag := invalid(a.DefRange, "Nobody can be told apart",
		"There is no tls block, so that no caller shows a certificate: all are \"nobody\", agents too, but for those whom a framework adapter has recognised. Write a tls block.")
	diag.Severity = hcl.DiagWarning
	d.add(diag)
}
