package state

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// prober is the check or the health check of a task that runs. It waits until
// due, has the shell probe the task, and waits again. It lives in memory only:
// an agent that starts again begins with the delay, as if the task had just
// started.
type prober struct {
	task   *task
	health *mezzov1.HealthCheck // nil: a check
	check  *mezzov1.CheckInfo   // nil: a health check

	interval, timeout time.Duration
	graceUntil        time.Time
	due               time.Time // zero: a probe is under way, or all is over
	serial            uint64    // of the probe under way; 0: none
	failures          uint32    // in a row
}

// startProbes begins to look at a task that runs. Custom executors look at their
// tasks themselves.
func (m *Machine) startProbes(t *task) {
	if t.info.GetHealthCheck() != nil && t.executor.program == nil {
		h := t.info.GetHealthCheck()
		m.addProber(&prober{
			task: t, health: h, interval: seconds(h.GetIntervalSeconds()), timeout: seconds(h.GetTimeoutSeconds()),
			graceUntil: m.now.Add(seconds(h.GetGracePeriodSeconds())),
		}, seconds(h.GetDelaySeconds()))
	}
	if t.info.GetCheck() != nil && t.executor.program == nil {
		c := t.info.GetCheck()
		if t.checked == nil {
			t.checked = checkResult(c, Probed{Err: "not yet"})
		}
		m.addProber(&prober{task: t, check: c, interval: seconds(c.GetIntervalSeconds()), timeout: seconds(c.GetTimeoutSeconds())}, seconds(c.GetDelaySeconds()))
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (m *Machine) addProber(p *prober, delay time.Duration) {
	p.task.probers = append(p.task.probers, p)
	m.probeAt(p, delay)
}

func (m *Machine) probeAt(p *prober, after time.Duration) {
	p.due = m.now.Add(after)
	heap.Push(&m.timers, timer{at: p.due, prober: p})
}

// stopProbes ends the looking at a task that ends.
func (t *task) stopProbes() {
	for _, p := range t.probers {
		p.due, p.serial = time.Time{}, 0
	}
	t.probers = nil
}

// probe has a task looked at.
func (m *Machine) probe(p *prober) {
	p.due = time.Time{}
	c := m.containers[p.task.container]
	if c == nil || c.phase != running {
		return
	}
	m.lastProbe++
	p.serial = m.lastProbe
	o := Probe{Serial: p.serial, Plan: m.plan(c), Netns: c.netns, Timeout: p.timeout}
	if o.Netns == "" && c.executor.root != nil {
		o.Netns = c.executor.root.netns
	}
	o.Look = lookOf(p)
	m.effect(o)
}

// lookOf is what is to be looked at, for both kinds of check in one form. The
// master has set the type of a health check where its framework left it out.
func lookOf(p *prober) Look {
	if h := p.health; h != nil {
		look := Look{Command: h.GetCommand(), Scheme: "http"}
		switch h.GetType() {
		case mezzov1.HealthCheck_HTTP:
			look.Command, look.Port, look.Path = nil, h.GetHttp().GetPort(), h.GetHttp().GetPath()
			look.IPv6 = h.GetHttp().GetProtocol() == mezzov1.NetworkInfo_IPv6
			if s := h.GetHttp().GetScheme(); s != "" {
				look.Scheme = s
			}
		case mezzov1.HealthCheck_TCP:
			look.Command, look.Scheme, look.Port = nil, "", h.GetTcp().GetPort()
			look.IPv6 = h.GetTcp().GetProtocol() == mezzov1.NetworkInfo_IPv6
		}
		return look
	}
	switch p.check.GetType() {
	case mezzov1.CheckInfo_HTTP:
		return Look{Scheme: "http", Port: p.check.GetHttp().GetPort(), Path: p.check.GetHttp().GetPath()}
	case mezzov1.CheckInfo_TCP:
		return Look{Port: p.check.GetTcp().GetPort()}
	}
	return Look{Command: p.check.GetCommand().GetCommand()}
}

// probed takes what was seen. What comes of a probe that nobody waits for any
// more is nothing.
func (m *Machine) probed(in Probed) {
	c := m.containers[in.Container]
	if c == nil || c.task == nil {
		return
	}
	for _, p := range c.task.probers {
		if p.serial != in.Serial {
			continue
		}
		p.serial = 0
		m.probeAt(p, p.interval)
		switch {
		case in.Void:
		case p.health != nil:
			m.healthSeen(p, in)
		default:
			m.checkSeen(p, in)
		}
		return
	}
}

func (m *Machine) checkSeen(p *prober, in Probed) {
	t := p.task
	seen := checkResult(p.check, in)
	if proto.Equal(seen, t.checked) {
		return
	}
	t.checked = seen
	m.seen(t, mezzov1.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED, in.Err)
}

// checkResult is a check's result as frameworks see it: empty when there is none.
func checkResult(c *mezzov1.CheckInfo, in Probed) *mezzov1.CheckStatusInfo {
	s := &mezzov1.CheckStatusInfo{Type: c.GetType().Enum()}
	switch c.GetType() {
	case mezzov1.CheckInfo_COMMAND:
		s.Command = &mezzov1.CheckStatusInfo_Command{}
		if in.Err == "" {
			s.Command.ExitCode = proto.Int32(in.Code)
		}
	case mezzov1.CheckInfo_HTTP:
		s.Http = &mezzov1.CheckStatusInfo_Http{}
		if in.Err == "" {
			s.Http.StatusCode = proto.Uint32(uint32(in.Code))
		}
	case mezzov1.CheckInfo_TCP:
		s.Tcp = &mezzov1.CheckStatusInfo_Tcp{}
		if in.Err == "" || in.Refused {
			s.Tcp.Succeeded = proto.Bool(!in.Refused)
		}
	}
	return s
}

// seen tells what a look at a task has brought. While the framework acknowledges
// nothing, only the newest of what was seen waits behind the update that is
// outstanding.
func (m *Machine) seen(t *task, reason mezzov1.TaskStatus_Reason, message string) {
	if last := len(t.updates) - 1; last > 0 {
		switch t.updates[last].GetReason() {
		case mezzov1.TaskStatus_REASON_TASK_CHECK_STATUS_UPDATED, mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED:
			t.updates = slices.Clone(t.updates[:last])
		}
	}
	m.update(t, because(m.newStatus(t, mezzov1.TaskState_TASK_RUNNING, fromExecutor), reason, message))
}

// healthSeen counts failures in a row. In the time of grace they do not count,
// unless something else was seen before: the task's health is known then.
func (m *Machine) healthSeen(p *prober, in Probed) {
	t := p.task
	why := unhealthy(p.health, in)
	if why == "" {
		p.failures = 0
		if t.healthy == nil || !*t.healthy {
			t.healthy = proto.Bool(true)
			m.seen(t, mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED, "")
		}
		return
	}
	if t.healthy == nil && m.now.Before(p.graceUntil) {
		return
	}
	p.failures++
	t.healthy = proto.Bool(false)
	message := fmt.Sprintf("Health check failed %d times in a row: %s", p.failures, why)
	if p.failures == 1 {
		message = "Health check failed: " + why
	}
	if p.failures >= max(1, p.health.GetConsecutiveFailures()) {
		m.kill(t, m.grace(t, nil), byHealth, message)
		return
	}
	m.seen(t, mezzov1.TaskStatus_REASON_TASK_HEALTH_CHECK_STATUS_UPDATED, message)
}

// unhealthy says why what was seen is a failure; empty when it is none.
func unhealthy(h *mezzov1.HealthCheck, in Probed) string {
	if in.Err != "" {
		return in.Err
	}
	switch h.GetType() {
	case mezzov1.HealthCheck_TCP: // there is a connection
	case mezzov1.HealthCheck_HTTP:
		if in.Code < 200 || in.Code >= 400 {
			return fmt.Sprintf("the answer had HTTP status %d", in.Code)
		}
	default: // a command
		if in.Code != 0 {
			return fmt.Sprintf("the command exited with status %d", in.Code)
		}
	}
	return ""
}
