package sim

import "time"

// pipe is one direction of a stream: what goes in comes out in order, later,
// until it is cut. What is under way then is lost.
type pipe struct {
	w       *world
	deliver func(any)
	// blocked, if set, says that nothing gets through now; it waits.
	blocked func() bool
	last    time.Duration
	waiting []packet
	dead    bool
	// shut: nothing more goes in; what is under way still comes out.
	shut bool
}

type packet struct {
	at      time.Duration
	content any
}

func (p *pipe) send(content any) {
	if p.dead || p.shut {
		return
	}
	p.last = max(p.last, p.w.now+p.w.weather.delay(p.w))
	p.waiting = append(p.waiting, packet{p.last, content})
	p.w.at(p.last, p.pump)
}

// pump delivers what is due.
func (p *pipe) pump() {
	for !p.dead && len(p.waiting) > 0 && p.waiting[0].at <= p.w.now && (p.blocked == nil || !p.blocked()) {
		content := p.waiting[0].content
		p.waiting = p.waiting[1:]
		p.deliver(content)
	}
}

func (p *pipe) cut() { p.dead, p.waiting = true, nil }

// fails is the end of a stream: what is under way is lost, mostly, or comes out
// late, when another stream may have been opened already.
func (p *pipe) fails() {
	if p.shut = true; !p.w.chance(0.3) {
		p.cut()
	}
}

func (p *pipe) empty() bool { return len(p.waiting) == 0 }

// weather is how fast messages and disks are at present.
type weather struct {
	slowUntil, twiceUntil time.Duration
}

// twice is whether a message that may be told more than once is.
func (x *weather) twice(w *world) bool { return w.now < x.twiceUntil && !w.healed && w.chance(0.3) }

// delay is how long a message takes.
func (x *weather) delay(w *world) time.Duration {
	switch {
	case w.now < x.slowUntil && !w.healed:
		return w.between(time.Millisecond, 1500*time.Millisecond)
	case w.chance(0.02):
		return w.between(5*time.Millisecond, 100*time.Millisecond)
	}
	return w.between(100*time.Microsecond, 4*time.Millisecond)
}

// work is how long a disk or a plugin takes.
func (x *weather) work(w *world) time.Duration {
	if w.now < x.slowUntil && !w.healed || w.chance(0.02) {
		return w.between(10*time.Millisecond, 2*time.Second)
	}
	return w.between(200*time.Microsecond, 15*time.Millisecond)
}
