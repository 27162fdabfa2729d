// Mezzo is a datacenter kernel: a master, an agent, and the command line to use
// them, in one binary. This file only wires.
package main

import (
	"os"

	"github.com/mezzo-os/mezzo/core/command"
)

func main() {
	os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
