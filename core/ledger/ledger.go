package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Errors of operations that are not proposals; callers tell them apart with
// errors.Is.
var (
	// ErrUnknownAgent means that the agent was never set, or was removed.
	ErrUnknownAgent = errors.New("the agent is not known")
	// ErrUnknownOffer means that the offer was never made, or is withdrawn.
	ErrUnknownOffer = errors.New("the offer is not outstanding")
	// ErrNotHeld means that the resources are not in what they were to come from.
	ErrNotHeld = errors.New("the resources are not there")
	// ErrExists means that the name is taken.
	ErrExists = errors.New("it exists already")
	// ErrMismatch means that the parts of a request do not belong together.
	ErrMismatch = errors.New("the parts do not belong together")
)

// Capabilities are what a framework can handle, as bits.
type Capabilities uint8

// The capabilities that decide which resources a framework may be offered.
const (
	RevocableResources Capabilities = 1 << iota
	GPUResources
	SharedResources
	ReservationRefinement
)

// Framework is what the ledger knows of a framework.
type Framework struct {
	ID string
	// Roles are those that it is subscribed to, in any order.
	Roles []string
	// Suppressed are the roles in which it wants no offers.
	Suppressed   []string
	Capabilities Capabilities
	// Active tells whether a scheduler is connected.
	Active bool
}

// Offer is a proposal, and once accepted by the ledger what remains of it.
type Offer struct {
	ID        string
	Agent     string
	Framework string
	Role      string
	Resources resource.Resources
}

// KeyKind tells what sort of thing uses resources.
type KeyKind uint8

const (
	// Task is a task; its ID is unique in its framework.
	Task KeyKind = iota + 1
	// Executor is an executor; its ID is unique in its framework on its agent.
	Executor
	// Operation is a pending operation.
	Operation
)

// String returns "task", "executor" or "operation".
func (k KeyKind) String() string {
	switch k {
	case Task:
		return "task"
	case Executor:
		return "executor"
	case Operation:
		return "operation"
	}
	return "use"
}

// Key names a use.
type Key struct {
	Agent     string
	Framework string
	Kind      KeyKind
	ID        string
}

// String returns, say, "task T of framework F on agent A".
func (k Key) String() string {
	return fmt.Sprintf("%s %s of framework %s on agent %s", k.Kind, k.ID, k.Framework, k.Agent)
}

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Agent, o.Agent), strings.Compare(k.Framework, o.Framework),
		cmp.Compare(k.Kind, o.Kind), strings.Compare(k.ID, o.ID))
}

// Use is what a task, an executor or an operation holds.
type Use struct {
	Key
	Role      string
	Resources resource.Resources
}

// Holding is what a framework has in a role on an agent.
type Holding struct {
	Framework, Role string
	Offered, Used   resource.Resources
}

// Ledger keeps the books. The zero value is not usable; call New.
type Ledger struct {
	agents     map[string]*agent
	frameworks map[string]*framework
	roles      map[string]*role
	offers     map[string]*outstanding
	// total and held are the sums over all agents.
	total tally
	held  sums
	near  []*agent // memory of Approach
}

type agent struct {
	active bool
	free   resource.Resources
	// holdings are few: who looks for one goes through them.
	holdings []*holding
	offers   []*outstanding
	// offered and used are the sums over the holdings.
	offered, used resource.Resources
	id            string
	total         resource.Resources
	uses          map[Key]*use
	// exceeded is set while something held is not in the total.
	exceeded bool
	// overlap is set while two hold the same number or item, so that sums cannot
	// be undone by subtraction.
	overlap bool
}

// holding counts with refs the offers and uses that it is the sum of.
type holding struct {
	Holding
	refs        int
	agent       *agent
	account     *account
	atFramework int // its place among those of its framework
}

// account is what a framework has in a role in the cluster.
type account struct {
	framework *framework
	role      *role
	sums
	holdings int
}

// outstanding is an offer in the books.
type outstanding struct {
	Offer
	holding *holding
	// Its places in the lists of its agent and framework.
	atAgent, atFramework int
}

// use is a use in the books.
type use struct {
	Use
	holding *holding
}

// cut takes the entry at a place out of a list; the last takes its place, of
// which moved is told.
func cut[T any](list []*T, at int, moved func(*T)) []*T {
	last := len(list) - 1
	list[at] = list[last]
	moved(list[at])
	list[last] = nil
	return list[:last]
}

type framework struct {
	Framework
	// known is unset while it has only uses that agents reported, or is removed.
	known      bool
	roles      map[string]bool
	suppressed map[string]bool
	held       sums
	accounts   map[string]*account // by role
	holdings   []*holding
	offers     []*outstanding
}

type sums struct{ offered, used tally }

// New returns empty books.
func New() *Ledger {
	return &Ledger{
		agents:     make(map[string]*agent),
		frameworks: make(map[string]*framework),
		roles:      make(map[string]*role),
		offers:     make(map[string]*outstanding),
	}
}

// SetAgent enters an agent, or replaces the total of one. A new one is inactive.
// What is held stays held, even if it is no longer in the total: withdraw the
// offers concerned (Excess) if the total shrank.
func (l *Ledger) SetAgent(id string, total resource.Resources) {
	total = total.Unallocate()
	a := l.agents[id]
	if a == nil {
		a = &agent{id: id, uses: make(map[Key]*use)}
		l.agents[id] = a
	}
	l.setTotal(a, total)
	a.settle()
}

// setTotal replaces the total; the caller settles the agent.
func (l *Ledger) setTotal(a *agent, total resource.Resources) {
	l.total.add(a.total, -1)
	l.reserve(a.total, -1)
	a.total = total
	l.reserve(a.total, +1)
	l.total.add(total, +1)
}

// SetAgentActive says whether the agent may be offered. It returns false if the
// agent is unknown.
func (l *Ledger) SetAgentActive(id string, active bool) bool {
	a := l.agents[id]
	if a == nil {
		return false
	}
	a.active = active
	return true
}

// RemoveAgent drops an agent with all that is held on it, which is returned in
// order of its names.
func (l *Ledger) RemoveAgent(id string) ([]Offer, []Use) {
	a := l.agents[id]
	if a == nil {
		return nil, nil
	}
	offers, uses := l.OffersOn(id), l.UsesOn(id)
	for _, o := range offers {
		l.Withdraw(o.ID)
	}
	for _, u := range uses {
		l.Release(u.Key)
	}
	l.setTotal(a, nil)
	delete(l.agents, id)
	return offers, uses
}

// SetFramework enters a framework or replaces what is known of it. What it holds
// stays, also in roles that it has left.
func (l *Ledger) SetFramework(f Framework) {
	f.Roles, f.Suppressed = slices.Clone(f.Roles), slices.Clone(f.Suppressed)
	e := l.framework(f.ID)
	e.Framework, e.known = f, true
	e.roles, e.suppressed = setOf(f.Roles), setOf(f.Suppressed)
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, item := range list {
		set[item] = true
	}
	return set
}

// framework returns the entry of id, made if need be.
func (l *Ledger) framework(id string) *framework {
	f := l.frameworks[id]
	if f == nil {
		f = &framework{Framework: Framework{ID: id}, accounts: make(map[string]*account)}
		l.frameworks[id] = f
	}
	return f
}

// RemoveFramework forgets a framework and withdraws its offers, which are
// returned in order of their ids. Its uses stay in the books until they are
// released, since its tasks hold what they hold until they have ended.
func (l *Ledger) RemoveFramework(id string) []Offer {
	f := l.frameworks[id]
	if f == nil {
		return nil
	}
	offers := l.OffersTo(id)
	for _, o := range offers {
		l.Withdraw(o.ID)
	}
	f.Framework, f.known = Framework{ID: id}, false
	f.roles, f.suppressed = nil, nil
	l.dropFramework(f)
	return offers
}

// dropFramework deletes the entry of a framework that nothing refers to.
func (l *Ledger) dropFramework(f *framework) {
	if !f.known && len(f.holdings) == 0 {
		delete(l.frameworks, f.ID)
	}
}

// Approach reads what Offer will read of these agents, and changes nothing. The
// books of a large cluster do not fit in the processor's caches, so an offer is
// mostly waiting for memory. Each wait of Offer depends on the one before; those
// of many agents do not, and the processor waits for them together. It returns
// a number without meaning, so that the reads are not optimised away.
func (l *Ledger) Approach(agents []string) (read int) {
	near := l.near[:0]
	for _, id := range agents {
		if a := l.agents[id]; a != nil {
			near = append(near, a)
		}
	}
	for _, a := range near {
		read += len(a.free) + len(a.holdings) + len(a.offers)
	}
	for _, a := range near {
		for i := range a.free {
			read += int(a.free[i].Scalar) + len(a.free[i].Ranges)
		}
		for i := range a.holdings {
			read += a.holdings[i].refs
		}
	}
	clear(near)
	l.near = near
	return read
}

// Offer checks a proposal and enters it. It returns nil, or why it is refused;
// then nothing has changed.
func (l *Ledger) Offer(o Offer) *Refusal {
	o.Resources = o.Resources.Unallocate()
	a, f := l.agents[o.Agent], l.frameworks[o.Framework]
	if r := l.checkOffer(&o, a, f); r != nil {
		return r
	}
	l.enter(o, a, f)
	return nil
}

func (l *Ledger) enter(o Offer, a *agent, f *framework) {
	e := &outstanding{Offer: o, holding: l.attach(a, f, o.Role), atAgent: len(a.offers), atFramework: len(f.offers)}
	l.offers[o.ID] = e
	a.offers = append(a.offers, e)
	f.offers = append(f.offers, e)
	l.hold(e.holding, offered, o.Resources)
}

// Withdraw ends an offer, for whatever reason: declined, rescinded, timed out, or
// used up. What was left of it is free again and returned; false if the offer is
// not outstanding.
func (l *Ledger) Withdraw(id string) (Offer, bool) {
	o := l.offers[id]
	if o == nil {
		return Offer{}, false
	}
	a, f := o.holding.agent, o.holding.account.framework
	delete(l.offers, id)
	a.offers = cut(a.offers, o.atAgent, func(x *outstanding) { x.atAgent = o.atAgent })
	f.offers = cut(f.offers, o.atFramework, func(x *outstanding) { x.atFramework = o.atFramework })
	l.unhold(o.holding, offered, o.Resources)
	l.detach(o.holding)
	return o.Offer, true
}

// Use turns resources of offers into those of a use. All offers must be of the
// same agent, framework and role; resources are taken from them in order. A copy
// of a shared resource may be used as often as wanted while an offer has it. An
// offer that is used up is outstanding until it is withdrawn. On an error nothing
// has changed: ErrUnknownOffer, ErrMismatch, ErrExists (of the key) or ErrNotHeld
// (in the offers; or the agent has them no longer, or reported a use of them, so
// that the offer should have been withdrawn).
func (l *Ledger) Use(offers []string, key Key, r resource.Resources) error {
	from, err := l.sources(offers)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if len(from) == 0 || from[0].Agent != key.Agent || from[0].Framework != key.Framework {
		return fmt.Errorf("%s: its offers are of another agent or framework: %w", key, ErrMismatch)
	}
	held := from[0].holding
	a := held.agent
	if a.uses[key] != nil {
		return fmt.Errorf("%s: %w", key, ErrExists)
	}
	r = r.Unallocate()
	parts, err := draw(from, r.NonShared())
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if err := haveShared(from, r.Shared()); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if c := a.conflicts(r); !c.IsEmpty() {
		return fmt.Errorf("%s: %s is in an offer and agent %s has it no more: %w", key, c, a.id, ErrNotHeld)
	}
	plain := !a.overlap && !a.exceeded
	if plain {
		for i, o := range from {
			o.Resources = o.Resources.Minus(parts[i])
		}
	} else {
		l.move(from, parts)
	}
	a.uses[key] = &use{Use{Key: key, Role: held.Role, Resources: r}, held}
	held.refs++
	if plain {
		l.transfer(held, r)
	} else {
		l.hold(held, used, r)
	}
	return nil
}

// sources returns the offers of these ids, which must be of one holder.
func (l *Ledger) sources(ids []string) ([]*outstanding, error) {
	list := make([]*outstanding, 0, len(ids))
	for _, id := range ids {
		o := l.offers[id]
		if o == nil {
			return nil, fmt.Errorf("offer %s: %w", id, ErrUnknownOffer)
		}
		if slices.Contains(list, o) {
			return nil, fmt.Errorf("offer %s is named twice: %w", id, ErrMismatch)
		}
		if len(list) > 0 && (o.Agent != list[0].Agent || o.Framework != list[0].Framework || o.Role != list[0].Role) {
			return nil, fmt.Errorf("offers %s and %s are of different agents, frameworks or roles: %w", list[0].ID, id, ErrMismatch)
		}
		list = append(list, o)
	}
	return list, nil
}

// draw splits want into what comes from each offer, in order.
func draw(from []*outstanding, want resource.Resources) ([]resource.Resources, error) {
	parts := make([]resource.Resources, len(from))
	left := want
	for i, o := range from {
		parts[i] = o.Resources.Intersect(left)
		left = left.Minus(parts[i])
	}
	if !left.IsEmpty() {
		return nil, fmt.Errorf("%s is not in the offers: %w", left, ErrNotHeld)
	}
	return parts, nil
}

// haveShared checks that the offers have each shared resource of want, in
// however many copies.
func haveShared(from []*outstanding, want resource.Resources) error {
	for _, r := range want {
		r.Count = 1
		one := resource.Resources{r}
		if !slices.ContainsFunc(from, func(o *outstanding) bool { return o.Resources.Contains(one) }) {
			return fmt.Errorf("%s is not in the offers: %w", one, ErrNotHeld)
		}
	}
	return nil
}

// move takes parts out of offers; the resources are nobody's then.
func (l *Ledger) move(from []*outstanding, parts []resource.Resources) {
	for i, o := range from {
		o.Resources = o.Resources.Minus(parts[i])
		l.unhold(o.holding, offered, parts[i])
	}
}

// Release ends a use; what it had is free again and returned. False if there is
// no such use.
func (l *Ledger) Release(key Key) (Use, bool) {
	a := l.agents[key.Agent]
	if a == nil || a.uses[key] == nil {
		return Use{}, false
	}
	u := a.uses[key]
	delete(a.uses, key)
	l.unhold(u.holding, used, u.Resources)
	l.detach(u.holding)
	return u.Use, true
}

// Recover enters a use that an agent reports. It comes from no offer, needs no
// known framework, and may exceed what is free or even the total. Offers that
// have the same resources stay, and cannot be used; withdraw them. It fails with
// ErrUnknownAgent or ErrExists.
func (l *Ledger) Recover(key Key, role string, r resource.Resources) error {
	a := l.agents[key.Agent]
	if a == nil {
		return fmt.Errorf("%s: %w", key, ErrUnknownAgent)
	}
	if a.uses[key] != nil {
		return fmt.Errorf("%s: %w", key, ErrExists)
	}
	r = r.Unallocate()
	h := l.attach(a, l.framework(key.Framework), role)
	a.uses[key] = &use{Use{Key: key, Role: role, Resources: r}, h}
	l.hold(h, used, r)
	return nil
}
