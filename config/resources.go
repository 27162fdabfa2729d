package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// checkAgentResources complains about what is not a resource text. An empty one
// leaves the agent to detect what it has.
func checkAgentResources(text string) error {
	_, err := resource.Parse(text)
	return err
}

func checkQuota(text string) error {
	_, err := quota(text)
	return err
}

// ParseQuota reads the amounts of a guarantee or a limit as they are written in
// a role block ("cpus:8;gpus:0"), sorted by name, zeros included.
func ParseQuota(text string) ([]resource.Quantity, error) { return quota(text) }

// quantities reads a list of texts of scalars, of which none is empty.
func (s scope) quantities(name string, to *[]string) {
	var list []string
	places, ok := s.texts(name, &list)
	if !ok {
		return
	}
	if len(list) == 0 {
		s.d.add(invalid(s.attrs[name].Expr.Range(), "Bad resources", "%s must name at least one set of resources, such as \"cpus:0.01\".", name))
	}
	for i, text := range list {
		amounts, err := quota(text)
		switch {
		case err != nil:
			s.d.add(invalid(places[i], "Bad resources", "In %s: %s.", name, err))
			ok = false
		case !slices.ContainsFunc(amounts, func(q resource.Quantity) bool { return q.Amount > 0 }):
			s.d.add(invalid(places[i], "Bad resources", "In %s: %q is nothing.", name, text))
			ok = false
		}
	}
	if ok && len(list) > 0 {
		*to = list
	}
}

// quota reads the amounts of a guarantee or limit, in order of their names.
// Unlike resource.Quantities it keeps zeros: a limit of 0 forbids a resource,
// which is not the same as no limit.
func quota(text string) (list []resource.Quantity, err error) {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		return nil, fmt.Errorf(`write the text form, such as "cpus:8;mem:16384", not JSON`)
	}
	if _, err := resource.Parse(text); err != nil {
		return nil, err // with the place in the whole text
	}
	for part := range strings.SplitSeq(text, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		parsed, err := resource.Parse(part)
		if err != nil {
			return nil, err
		}
		name, _, _ := strings.Cut(part, ":")
		name = strings.TrimSpace(name)
		amount := parsed.Get(name)
		if strings.ContainsAny(name, "({") || !parsed.Equal(resource.ScalarOf(name, amount)) {
			return nil, fmt.Errorf(`%q is not a plain amount; it must be of unreserved scalars, such as "cpus:8;mem:16384"`, part)
		}
		if slices.ContainsFunc(list, func(q resource.Quantity) bool { return q.Name == name }) {
			return nil, fmt.Errorf("%s is named twice", name)
		}
		list = append(list, resource.Quantity{Name: name, Amount: amount})
	}
	slices.SortFunc(list, func(a, b resource.Quantity) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// GuaranteeQuantities is the guarantee by resource name, sorted. A resource that
// is absent has none.
func (r Role) GuaranteeQuantities() []resource.Quantity { return mustQuota(r.Guarantee) }

// LimitQuantities is the limit by resource name, sorted. A resource that is
// absent is not limited; one whose amount is zero is forbidden.
func (r Role) LimitQuantities() []resource.Quantity { return mustQuota(r.Limit) }

// mustQuota reads a text that was checked when it was loaded.
func mustQuota(text string) []resource.Quantity {
	list, err := quota(text)
	if err != nil {
		panic("config: a role's quota was not checked: " + err.Error())
	}
	return list
}

// exceeds names the resource whose guarantee is above its limit.
func (r Role) exceeds() (name string, over bool) {
	limits := r.LimitQuantities()
	for _, g := range r.GuaranteeQuantities() {
		for _, l := range limits {
			if g.Name == l.Name && g.Amount > l.Amount {
				return g.Name, true
			}
		}
	}
	return "", false
}
