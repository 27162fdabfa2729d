package scheduler

import (
	"sync"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
)

// coreSilence is for how long heartbeats go on that the core did not send: a core
// that hangs must not look alive.
const coreSilence = 40 * time.Second

// pulse writes records and, into their silences, heartbeats.
type pulse struct {
	out       *transport.RecordWriter
	heartbeat []byte
	every     time.Duration

	mu    sync.Mutex
	timer *time.Timer
	heard time.Time // when the core sent something last
	over  bool
}

func newPulse(out *transport.RecordWriter, heartbeat []byte, every time.Duration) *pulse {
	p := &pulse{out: out, heartbeat: heartbeat, every: every}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(every, p.beat)
	return p
}

// write writes a record of the core's.
func (p *pulse) write(record []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
	p.timer.Reset(p.every)
	return p.out.Write(record)
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || time.Since(p.heard) > coreSilence {
		return
	}
	if p.out.Write(p.heartbeat) == nil { // else the next write tells why
		p.timer.Reset(p.every)
	}
}

// stop returns when no heartbeat is being written, and none will be.
func (p *pulse) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.timer.Stop()
}
