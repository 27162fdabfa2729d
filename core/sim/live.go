package sim

import (
	"time"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// live is a whole run.
func (w *world) live() {
	for i := range w.cfg.Agents {
		w.addHost(i + 1)
	}
	w.addCandidates()
	arrival := time.Second
	if w.cfg.Large {
		arrival = 10 * time.Second
	}
	for _, h := range w.hosts {
		w.after(w.between(0, arrival), h.boot)
	}
	for i := range w.cfg.Frameworks {
		w.addScheduler(i + 1)
	}
	w.watch()
	w.planFaults()
	w.until(w.cfg.Duration)
	if w.failure != nil {
		return
	}
	w.heal()
	if w.failure != nil {
		return
	}
	w.until(w.now + w.tempo.recovery)
	w.closing = true
	w.until(w.now + w.tempo.settling)
	w.checkAgreement()
	w.report.Settled = w.now
	if w.failure != nil {
		return
	}
	w.note([]string{everybody}, "CLOSING: all that runs ends")
	for _, h := range w.hosts {
		for _, id := range sorted(h.containers) {
			if c := h.containers[id]; c != nil {
				c.end(&isolatorv1.ExitStatus{Known: true})
			}
		}
	}
	w.until(w.now + w.tempo.ending)
	w.checkNothingLeft()
	w.checkFreshSession()
}

// watch checks now and then what is too dear to check all the time.
func (w *world) watch() {
	w.after(w.tempo.check, func() {
		for _, m := range w.masters {
			w.checkViews(m)
			w.checkMirror(m)
		}
		w.checkOffered()
		for _, h := range w.hosts {
			if !w.cfg.Large {
				h.checkMade("now")
			}
		}
		w.watch()
	})
}

// randomLimit is a limit, or a guarantee, of a role; mostly none.
func (w *world) randomLimit() resource.Quantities {
	if w.chance(0.6) {
		return nil
	}
	return resource.NewQuantities(resource.Quantity{Name: "cpus", Amount: resource.Scalar(500 * (1 + w.pick(10)))})
}
