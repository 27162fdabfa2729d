package ledger_test

import (
	"fmt"

	"github.com/mezzo-os/mezzo/core/ledger"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

func Example() {
	l := ledger.New()
	l.SetAgent("A", resource.MustParse("cpus:4;mem:1024"))
	l.SetAgentActive("A", true)
	l.SetFramework(ledger.Framework{ID: "F", Roles: []string{"*"}, Active: true})

	offer := ledger.Offer{ID: "O", Agent: "A", Framework: "F", Role: "*", Resources: resource.MustParse("cpus:4;mem:1024")}
	if refusal := l.Offer(offer); refusal != nil {
		fmt.Println(refusal)
	}
	task := ledger.Key{Agent: "A", Framework: "F", Kind: ledger.Task, ID: "T"}
	if err := l.Use([]string{"O"}, task, resource.MustParse("cpus:1;mem:512")); err != nil {
		fmt.Println(err)
	}
	rest, _ := l.Withdraw("O")
	fmt.Println("not used:", rest.Resources)

	offer.ID = "P"
	fmt.Println(l.Offer(offer))
	l.Release(task)
	fmt.Println("free:", l.Free("A"))
	// Output:
	// not used: cpus:3;mem:512
	// cpus:1;mem:512 is not free on agent A; free of cpus and mem is cpus:3;mem:512
	// free: cpus:4;mem:1024
}
