package resource_test

import (
	"fmt"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

func Example() {
	total, err := resource.Parse("cpus:4;mem:4096;ports:[31000-32000]")
	if err != nil {
		fmt.Println(err)
		return
	}
	task := resource.MustParse("cpus:1;ports:[31000-31001]")
	left, ok := total.Subtract(task)
	fmt.Println(left, ok)
	fmt.Println(left.Add(task).Equal(total))
	_, ok = left.Subtract(resource.MustParse("cpus:3.001"))
	fmt.Println(ok)
	// Output:
	// cpus:3;mem:4096;ports:[31002-32000] true
	// true
	// false
}

func ExampleParse_error() {
	_, err := resource.Parse("cpus:4;mem:lots")
	fmt.Println(err)
	// Output:
	// resources "cpus:4;mem:lots", character 12: the value of "mem": "lots" is not a number, [ranges] or {a set}
}

func ExampleResources_Find() {
	agent := resource.MustParse("cpus:2;cpus(ads):1;mem:1024")
	found, ok := agent.Find(resource.MustParse("cpus(ads):2"))
	fmt.Println(found, ok)
	// Output:
	// cpus:1;cpus(ads):1 true
}
