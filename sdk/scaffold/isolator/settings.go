package main

import (
	"maps"
	"regexp"
	"slices"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// settings is what may stand in the config block. The tags are its schema: Mezzo
// checks what the operator wrote, converts it, and fills in the defaults.
type settings struct {
	Variables map[string]string `hcl:"variables" help:"What every container finds in its environment, by name."`
	Override  bool              `hcl:"override" default:"false" help:"Whether these win over variables that a task has set itself."`
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate checks what types cannot say. It must have no effect: `mezzo config
// check` calls it too. A diagnostic's path leads to the line that it is about.
func (s *settings) Validate() []plugin.Diagnostic {
	var wrong []plugin.Diagnostic
	for _, name := range slices.Sorted(maps.Keys(s.Variables)) {
		if !variableName.MatchString(name) {
			wrong = append(wrong, plugin.Errorf("bad name of a variable", "variables", "%q: write letters, digits and underscores, and no digit first.", name))
		}
	}
	return wrong
}
