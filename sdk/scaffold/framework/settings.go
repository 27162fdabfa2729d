package main

import (
	"net"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// settings is what may stand in the config block. The tags are its schema: Mezzo
// checks what the operator wrote, converts it, and fills in the defaults.
type settings struct {
	Listen    string `hcl:"listen" default:"127.0.0.1:0" help:"Where the HTTP API is served, host:port; port 0 takes a free one, and keeps it."`
	Role      string `hcl:"role" default:"*" help:"In which role resources are used."`
	User      string `hcl:"user" help:"Who the commands run as; by default who runs the master."`
	Resources string `hcl:"resources" default:"cpus:0.1;mem:32" help:"What each command gets."`
}

// Validate checks what types cannot say. It must have no effect: `mezzo config
// check` calls it too. A diagnostic's path leads to the line that it is about.
func (s *settings) Validate() []plugin.Diagnostic {
	var wrong []plugin.Diagnostic
	if _, _, err := net.SplitHostPort(s.Listen); err != nil {
		wrong = append(wrong, plugin.Errorf("bad address", "listen", "%v; write host:port.", err))
	}
	if r, err := resource.Parse(s.Resources); err != nil {
		wrong = append(wrong, plugin.Errorf("bad resources", "resources", "%v.", err))
	} else if r.IsEmpty() {
		wrong = append(wrong, plugin.Errorf("no resources", "resources", "A task needs some; write cpus:0.1;mem:32, or more."))
	}
	return wrong
}
