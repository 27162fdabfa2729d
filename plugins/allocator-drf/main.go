// Command mezzo-allocator-drf is the allocator "drf": weighted dominant
// resource fairness over roles and the frameworks in them.
//
//	allocator "drf" {
//	  config {
//	    fair_sharing_excluded = ["gpus"]
//	  }
//	}
package main

import "github.com/mezzo-os/mezzo/sdk/allocator"

func main() { allocator.Serve(definition()) }
