package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/allocator"
	"github.com/mezzo-os/mezzo/sdk/allocator/engine"
	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// version is the plugin's own.
const version = "0.1.0"

// config is the allocator's `config` block. Weights and quota are no part of
// it: they are the cluster's, whatever allocates.
type config struct {
	FairSharingExcluded []string           `hcl:"fair_sharing_excluded" help:"Names of scalar resources that do not count as a share, such as scarce gpus that few frameworks use."`
	Preempt             *allocator.Preempt `hcl:"preempt,block" help:"When tasks may be ended for roles that are starved. Without this block, never."`
}

// Validate implements plugin.Validator.
func (c *config) Validate() []plugin.Diagnostic {
	var out []plugin.Diagnostic
	for i, name := range c.FairSharingExcluded {
		path := "fair_sharing_excluded." + strconv.Itoa(i)
		switch {
		case strings.TrimSpace(name) == "":
			out = append(out, plugin.Errorf("empty resource name", path, "Write the name of a scalar resource, such as \"gpus\"."))
		case slices.Contains(c.FairSharingExcluded[:i], name):
			out = append(out, plugin.Warningf("resource named twice", path, "%q is in the list already.", name))
		}
	}
	return out
}

func definition() allocator.Definition {
	return allocator.Definition{
		Name:      "drf",
		Version:   version,
		Summary:   "Weighted dominant resource fairness: whoever has the smallest share of what it uses most is served first.",
		NewConfig: func() any { return new(config) },
		NewPolicy: func(c any) (allocator.Policy, []plugin.Diagnostic) {
			return &engine.DominantShare{Excluded: c.(*config).FairSharingExcluded}, nil
		},
		Preempt: func(c any) *allocator.Preempt { return c.(*config).Preempt },
	}
}
