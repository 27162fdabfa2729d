package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/mezzo-os/mezzo/core/master/state"
)

// candidate is a process that may lead: one of the masters' machines. It stands
// by until it is elected, takes the registry's epoch, reads the registry, and
// leads until it finds out that it does not any more. Each of these takes a
// while, in which another may be elected.
type candidate struct {
	w    *world
	name string
	up   bool
	// stopped: its process stands still. What comes waits for it to go on.
	stopped bool
	waiting []func()
	life    uint64 // of the process; rises with each
	stands  bool   // for election
	term    uint64 // its own, from its election until it knows of the end; 0: none
	master  *master
	// cut: it reaches neither the registry nor the others, and so finds out nothing.
	cut  bool
	skew time.Duration // of its clock, as a process sees it that starts now
}

// election is what all candidates would agree on if they knew.
type election struct {
	candidates []*candidate
	elected    *candidate // nil: nobody
	terms      uint64
	// storm is how many terms more are to end as soon as they have begun.
	storm int
}

const (
	candidates = 3
	// sessionTimeout is how long a candidate may be silent until another is elected.
	sessionTimeout = 2 * time.Second
	// epochCheck is how often a leader looks whether its epoch is still the newest.
	epochCheck = 2 * time.Second
	// soon is when somebody must lead, once nothing goes wrong any more.
	soon = 10 * time.Second
)

func (w *world) addCandidates() {
	for i := range candidates {
		c := &candidate{w: w, name: fmt.Sprintf("master%d", i+1)}
		w.election.candidates = append(w.election.candidates, c)
		c.boot()
	}
}

// boot starts the process.
func (c *candidate) boot() {
	if c.up {
		return
	}
	c.life++
	c.up, c.stopped, c.waiting, c.term, c.master, c.cut = true, false, nil, 0, nil, false
	c.w.note([]string{c.name}, "%s starts", c.name)
	c.stand(c.w.between(0, 20*time.Millisecond))
}

// run does something in the process, at the latest when it goes on. It is for
// the caller to see whether it is still the same process.
func (c *candidate) run(do func()) {
	if c.stopped {
		c.waiting = append(c.waiting, do)
		return
	}
	do()
}

// later has the process do something after a while, unless it has ended or its
// term has.
func (c *candidate) later(wait time.Duration, do func()) {
	life, term := c.life, c.term
	c.w.after(wait, func() {
		c.run(func() {
			if c.up && c.life == life && c.term == term && c.w.failure == nil {
				do()
			}
		})
	})
}

// stand has it stand for election after a while.
func (c *candidate) stand(wait time.Duration) {
	c.later(wait, func() {
		c.stands = true
		c.w.elect()
	})
}

// elect elects somebody, if nobody is and somebody stands.
func (w *world) elect() {
	e := &w.election
	if e.elected != nil || w.failure != nil {
		return
	}
	var standing []*candidate
	for _, c := range e.candidates {
		if c.up && c.stands && !c.stopped {
			standing = append(standing, c)
		}
	}
	if len(standing) == 0 {
		return
	}
	c := standing[w.pick(len(standing))]
	e.terms++
	e.elected, c.stands, c.term = c, false, e.terms
	w.note([]string{c.name}, "%s is elected", c.name)
	c.later(w.weather.work(w), c.acquire)
	if e.storm > 0 {
		e.storm--
		w.after(w.between(0, 300*time.Millisecond), func() { w.storm(c) })
	}
}

// storm ends a term that has hardly begun.
func (w *world) storm(c *candidate) {
	if w.election.elected != c || w.healed {
		return
	}
	switch w.pick(3) {
	case 0:
		c.crash("killed")
		w.after(w.outage(), c.boot)
	case 1:
		c.stop(sessionTimeout + w.outage())
		w.expire(c, 0)
	default:
		w.expire(c, w.between(0, 4*time.Second))
	}
}

// acquire takes the registry's epoch.
func (c *candidate) acquire() {
	w := c.w
	if w.registryAway(c) {
		c.resign(errNoRegistry.Error())
		return
	}
	r := w.registry.store.open()
	epoch, err := r.Acquire(context.Background())
	if err != nil {
		w.fail([]string{c.name}, "%s cannot take an epoch: %v", c.name, err)
		return
	}
	w.checkGone()
	w.note([]string{c.name}, "%s has taken epoch %d", c.name, epoch)
	c.later(w.weather.work(w), func() { c.lead(r, epoch) })
}

// lead reads the registry and begins.
func (c *candidate) lead(r *handle, epoch uint64) {
	w := c.w
	if w.registryAway(c) {
		c.resign(errNoRegistry.Error())
		return
	}
	loaded, err := r.Load(context.Background())
	if err != nil {
		w.fail([]string{c.name}, "%s cannot read the registry: %v", c.name, err)
		return
	}
	var entries []state.Entry
	for _, e := range w.cfg.plant.loads(w, loaded) {
		entries = append(entries, state.Entry{Key: e.Key, Value: e.Value})
	}
	c.master = w.startMaster(c, r, epoch, entries)
	c.later(epochCheck, c.checkEpoch)
}

// checkEpoch finds out by itself that another has taken a later epoch: one that
// was elected before, say, and was slow.
func (c *candidate) checkEpoch() {
	m := c.master
	if m == nil {
		return
	}
	if newest, err := m.registry.Epoch(context.Background()); err == nil && newest > m.epoch && !c.cut {
		m.crash("a later epoch has been taken")
		return
	}
	c.later(epochCheck, c.checkEpoch)
}

// resign ends the term from within: it stands again after a pause.
func (c *candidate) resign(why string) {
	w := c.w
	w.note([]string{c.name}, "%s resigns: %s", c.name, why)
	c.term, c.master, c.cut = 0, nil, false
	if w.election.elected == c {
		w.election.elected = nil
		w.after(w.between(0, 50*time.Millisecond), w.elect)
	}
	c.stand(w.between(50*time.Millisecond, time.Second))
}

// expire ends a candidate's session: others may be elected now. It finds out
// later, and then stands again.
func (w *world) expire(c *candidate, later time.Duration) {
	if w.election.elected != c {
		return
	}
	c.cut = later > 0 && w.chance(0.5)
	w.note([]string{c.name}, "the session of %s expires; it is cut off: %v", c.name, c.cut)
	w.election.elected = nil
	w.after(w.between(0, 50*time.Millisecond), w.elect)
	c.later(later, func() { c.depose("it finds out that it does not lead any more") })
}

// depose ends what a candidate does as the leader that it is not.
func (c *candidate) depose(why string) {
	if m := c.master; m != nil {
		m.crash(why) // resigns
		return
	}
	c.resign(why)
}

// crash ends the process. Its session goes on for a while.
func (c *candidate) crash(why string) {
	if !c.up {
		return
	}
	w := c.w
	w.note([]string{c.name}, "%s dies: %s", c.name, why)
	c.up, c.stands, c.stopped, c.waiting = false, false, false, nil
	c.life++
	if m := c.master; m != nil {
		c.master = nil
		m.crash(why)
	}
	e := &w.election
	terms := e.terms
	w.after(w.between(10*time.Millisecond, sessionTimeout), func() {
		if e.elected == c && e.terms == terms {
			e.elected = nil
			w.elect()
		}
	})
}

// stop makes the process stand still for a while. If that is longer than its
// session, another is elected meanwhile; when it goes on, it may do what it has
// in hand before it finds out.
func (c *candidate) stop(duration time.Duration) {
	if !c.up || c.stopped {
		return
	}
	w := c.w
	w.note([]string{c.name}, "%s is stopped for %v", c.name, duration)
	c.stopped = true
	life := c.life
	if duration > sessionTimeout {
		late := time.Duration(0)
		if w.chance(0.5) {
			late = w.between(0, 5*time.Second)
		}
		w.after(sessionTimeout, func() {
			if c.life == life && c.stopped {
				w.expire(c, max(0, duration-sessionTimeout+late))
			}
		})
	}
	w.after(duration, func() {
		if c.life == life {
			c.goOn()
		}
	})
}

// goOn ends a stop.
func (c *candidate) goOn() {
	if !c.stopped {
		return
	}
	c.stopped = false
	c.w.note([]string{c.name}, "%s goes on, with %d things to do", c.name, len(c.waiting))
	waiting := c.waiting
	c.waiting = nil
	for _, do := range waiting {
		do()
	}
	c.w.elect()
}

// settleElection ends all that goes wrong with masters, and waits for a leader.
func (w *world) settleElection() {
	e := &w.election
	e.storm, w.registry.failing = 0, false
	for _, c := range e.candidates {
		c.goOn()
		c.boot()
		if e.elected != c && c.term != 0 {
			c.depose("another leads")
		}
	}
	w.elect()
	for end := w.now + soon; w.failure == nil && !w.led(); {
		if w.now >= end {
			w.fail([]string{everybody}, "nobody leads %v after nothing went wrong any more", soon)
		}
		w.until(w.now + 20*time.Millisecond)
	}
}

// led is whether the leader leads, and is the newest.
func (w *world) led() bool {
	m := w.leader
	return m != nil && m.alive && w.election.elected == m.candidate && m.epoch == w.registry.store.epoch
}
