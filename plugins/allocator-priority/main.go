// Command mezzo-allocator-priority is the allocator "priority": whoever has the
// higher priority is served first, and lower ones get what is left.
//
//	allocator "priority" {
//	  config {
//	    role "prod" {
//	      priority = 100
//	    }
//	    role "batch" {
//	      floor = 0.1 # served first while it holds less than a tenth
//	    }
//	    framework "billing" {
//	      priority = 10
//	    }
//	  }
//	}
package main

import "github.com/mezzo-os/mezzo/sdk/allocator"

func main() { allocator.Serve(definition()) }
