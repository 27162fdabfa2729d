package ledger

import (
	"strings"
	"testing"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// TestAuditFindsWhatIsWrong spoils the books one entry at a time: an audit that
// says nothing proves nothing.
func TestAuditFindsWhatIsWrong(t *testing.T) {
	parse := resource.MustParse
	key := Key{Agent: "A", Framework: "F", Kind: Task, ID: "T"}
	for _, c := range []struct {
		name  string
		spoil func(*Ledger)
		want  string
	}{
		{"free too large", func(l *Ledger) { l.agents["A"].free = parse("cpus:4;ports:[1-9]") },
			"agent A: free cpus:4;ports:[1-9] and held cpus:3;ports:[1-2] are not its total cpus:4;cpus(a):2;ports:[1-9]"},
		{"free too small", func(l *Ledger) { l.agents["A"].free = nil }, "agent A: free  and held cpus:3;ports:[1-2] are not its total"},
		{"a port twice", func(l *Ledger) { l.agents["A"].free = l.agents["A"].free.Add(parse("ports:[2]")) }, "agent A: ports:[2-2] is free and held"},
		{"offered", func(l *Ledger) { l.agents["A"].offered = parse("cpus:1") }, "agent A: offered is cpus:1 in the books and cpus:2;ports:[1-2] by its offers and uses"},
		{"used", func(l *Ledger) { l.agents["A"].used = nil }, "agent A: used is  in the books and cpus:1 by its offers and uses"},
		{"excess unmarked", func(l *Ledger) { l.agents["A"].total = parse("cpus:1") }, "agent A: cpus:2;ports:[1-2] is held beyond its total"},
		{"excess marked", func(l *Ledger) { l.agents["A"].exceeded = true }, "agent A: it is said to hold more than its total, and does not"},
		{"a holding's sum", func(l *Ledger) { l.agents["A"].holdings[0].Used = nil }, "agent A: the holding of framework F in role a/b is wrong"},
		{"a holding's count", func(l *Ledger) { l.agents["A"].holdings[0].refs++ }, "agent A: the holding of framework F in role a/b is wrong"},
		{"a holding too many", func(l *Ledger) { l.agents["A"].holdings = append(l.agents["A"].holdings, &holding{}) }, "agent A: 2 holdings in the books and 1 by its offers and uses"},
		{"a lost offer", func(l *Ledger) { l.agents["A"].offers = nil }, "offer O is not in the books of its agent A"},
		{"an offer to nobody", func(l *Ledger) { l.frameworks["F"].known = false }, "offer O is not in the books of its framework F"},
		{"a lost use", func(l *Ledger) { delete(l.agents["A"].uses, key) }, "agent A: used is cpus:1 in the books and  by its offers and uses"},
		{"a framework's offered", func(l *Ledger) { l.frameworks["F"].held.offered = nil }, "offered to framework F is  in the books and cpus:2 by offers and uses"},
		{"a framework's used", func(l *Ledger) { l.frameworks["F"].held.used.addAmount("mem", 1) }, "used by framework F is cpus:1;mem:0.001 in the books and cpus:1 by offers and uses"},
		{"a framework's role", func(l *Ledger) { l.frameworks["F"].accounts["a/b"].offered = nil }, "offered to framework F in role a/b is  in the books"},
		{"a framework's lost role", func(l *Ledger) { delete(l.frameworks["F"].accounts, "a/b") }, "framework F has no account in role a/b"},
		{"a framework's account", func(l *Ledger) { l.frameworks["F"].accounts["a/b"].holdings++ }, "framework F: its account in role a/b is wrong"},
		{"a framework's agents", func(l *Ledger) { l.frameworks["F"].holdings = nil }, "framework F: its agents or offers are wrong"},
		{"a framework's offers", func(l *Ledger) { l.frameworks["F"].offers = nil }, "offer O is not in the books of its framework F"},
		{"a framework for nothing", func(l *Ledger) { l.framework("G") }, "framework G is in the books for nothing"},
		{"a lost framework", func(l *Ledger) { delete(l.frameworks, "F") }, "framework F holds something and is not in the books"},
		{"a role's own", func(l *Ledger) { l.roles["a/b"].own.used = nil }, "used in role a/b is  in the books"},
		{"a role's sum", func(l *Ledger) { l.roles["a"].all.offered = nil }, "offered in and below role a is  in the books"},
		{"a role's reservations", func(l *Ledger) { l.roles["a"].reserved = nil }, "reserved to role a is  in the books and cpus:2 by offers and uses"},
		{"a role's charge", func(l *Ledger) { l.roles["a"].charged.addAmount("cpus", 1) }, "charged to role a is cpus:3.001 in the books and cpus:3 by offers and uses"},
		{"a role's place", func(l *Ledger) { l.roles["a"].children++ }, "role a: its place in the tree is wrong"},
		{"a role too many", func(l *Ledger) { l.role("z") }, "the roles are [a a/b z] in the books and [a a/b] by what is known of them"},
		{"the cluster", func(l *Ledger) { l.total = nil }, "the cluster's total is  in the books and cpus:6 by offers and uses"},
		{"the cluster's used", func(l *Ledger) { l.held.used = nil }, "the cluster's used is  in the books and cpus:1 by offers and uses"},
	} {
		l := New()
		l.SetAgent("A", parse("cpus:4;cpus(a):2;ports:[1-9]"))
		l.SetAgentActive("A", true)
		l.SetFramework(Framework{ID: "F", Roles: []string{"a/b"}, Active: true})
		if r := l.Offer(Offer{ID: "O", Agent: "A", Framework: "F", Role: "a/b", Resources: parse("cpus:3;ports:[1-2]")}); r != nil {
			t.Fatal(r)
		}
		if err := l.Use([]string{"O"}, key, parse("cpus:1")); err != nil {
			t.Fatal(err)
		}
		if err := l.Audit(); err != nil {
			t.Fatalf("the books are wrong before they are spoilt: %v", err)
		}
		c.spoil(l)
		if err := l.Audit(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the audit says %v\nwant %s", c.name, err, c.want)
		}
	}
}
