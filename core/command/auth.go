package command

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mezzo-os/mezzo/config"
	"github.com/mezzo-os/mezzo/core/authorization"
	"github.com/mezzo-os/mezzo/core/rpc"
)

func (c *cli) authCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "auth", Short: "Try the rules of who may do what", Args: cobra.NoArgs, RunE: needVerb,
		Long: "Tries the authorization block of a configuration, without a cluster. docs/security.md says how one is written.",
	}
	var configs []string
	var object rpc.Object
	can := &cobra.Command{
		Use:   "can PRINCIPAL ACTION",
		Short: "Say whether a configuration's rules allow something, and which rule decides",
		Long: `Asks the authorization block of the files whether PRINCIPAL may do ACTION: the rule
that decides, and where it is written, before a reload makes it count. PRINCIPAL is the
name in a certificate or of a credential; nobody is who has neither. What is left out
of --role, --user and --owner, where the action has such a thing, is not known, as it
is of a task that the master has forgotten.

The exit status is 0 when it is allowed, 1 when it is denied.`,
		Example: "  mezzo auth can web run_task --role web --user www-data --config /etc/mezzo.d\n" +
			"  mezzo auth can ann kill_task --role web --owner web --config master.hcl\n" +
			"  mezzo auth can nobody view_cluster --config master.hcl",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(configs) == 0 {
				return usage("--config FILE is missing: the configuration whose rules are tried")
			}
			return c.authCan(configs, args[0], args[1], object)
		},
	}
	f := can.Flags()
	f.StringArrayVar(&configs, "config", nil, "a configuration file, or a directory of them; may be repeated")
	f.StringVar(&object.Role, "role", "", "in which role: of the framework, the task, the reservation, the quota")
	f.StringVar(&object.User, "user", "", "as which user of the operating system")
	f.StringVar(&object.Owner, "owner", "", "whose it is: the principal of the framework, or of who reserved or created")
	c.addJSONFlag(can, jsonShape{jsonOne, []string{
		"principal string", "action string", "role string", "user string", "owner string", "allowed true or false", "rule string", "place string",
	}})
	group.AddCommand(can)
	return group
}

// verdict is what `mezzo auth can` answers.
type verdict struct {
	Principal string `json:"principal"`
	Action    string `json:"action"`
	Role      string `json:"role,omitempty"`
	User      string `json:"user,omitempty"`
	Owner     string `json:"owner,omitempty"`
	Allowed   bool   `json:"allowed,omitempty"`
	// Rule is the one that decides; empty: the default does.
	Rule  string `json:"rule,omitempty"`
	Place string `json:"place,omitempty"`
}

func (c *cli) authCan(configs []string, principal, name string, object rpc.Object) error {
	action, known := authorization.Find(name)
	if !known {
		return usage("ACTION %q: give one of %s", name, strings.Join(authorization.Names(), ", "))
	}
	for _, part := range []struct {
		flag, value string
		has         bool
	}{{"role", object.Role, action.Role}, {"user", object.User, action.User}, {"owner", object.Owner, action.Owner}} {
		if part.value != "" && !part.has {
			return usage("--%s: %s has no %s", part.flag, name, part.flag)
		}
	}
	file, diags := config.Load(configs)
	if err := c.resolved(file, diags); err != nil {
		return err
	}
	block := file.Authorization()
	policy, err := block.Policy()
	if err != nil {
		return err
	}
	v := verdict{Principal: principal, Action: name, Role: object.Role, User: object.User, Owner: object.Owner, Allowed: true}
	if principal == authorization.Nobody {
		principal = ""
	}
	why := "there is no authorization block: everything is allowed"
	if policy != nil {
		d := policy.Decide(principal, action.Name, object)
		v.Allowed, v.Place = d.Allowed, fmt.Sprintf("%s:%d", block.DefRange.Filename, block.DefRange.Start.Line)
		why = "no rule matches, and the default is " + block.Default
		if d.Rule != nil {
			v.Rule, v.Place = d.Rule.Name, d.Rule.Place
			why = fmt.Sprintf("rule %q", d.Rule.Name)
		}
		why += " (" + v.Place + ")"
	}
	if err := c.tell(v, why, authorization.Describe(action.Name, object)); err != nil {
		return err
	}
	if !v.Allowed {
		return &exitError{code: 1}
	}
	return nil
}

func (c *cli) tell(v verdict, why, what string) error {
	if c.json {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", text)
		return err
	}
	word := "allowed"
	if !v.Allowed {
		word = "denied"
	}
	_, err := fmt.Fprintf(c.out, "%s: %s %s: %s\n", word, v.Principal, what, why)
	return err
}

// actionChoices complete an ACTION.
func actionChoices() cobra.CompletionFunc {
	var words []string
	for _, a := range authorization.Actions {
		words = append(words, described(string(a.Name), "%s", a.Meaning))
	}
	slices.Sort(words)
	return fixed(words...)
}
