package holder

import (
	"time"

	"github.com/mezzo-os/mezzo/sdk/metric"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// counts are what an isolator that launches tells of itself. Calls, and how long
// they take, the agent counts.
type counts struct {
	ended   *metric.Counter
	orphans *metric.Counter
	killed  *metric.Counter
	steps   *metric.Histogram
}

// declare declares the metrics of every Holder.
func (h *Holder) declare() {
	s := metric.NewSet()
	h.Metrics = s
	s.GaugeFunc("containers", "Containers that the isolator knows, by how far they are: created and not let go, running, or ended and not cleaned up.", h.tellContainers, "state")
	h.counts = counts{
		ended:   s.Counter("containers_ended_total", "Containers whose end this process saw, by how: exited, signaled, limited by their memory, or lost, when a shim ended without leaving a status.", "outcome"),
		orphans: s.Counter("orphans_total", "Containers that were found, when the agent asked for its own, and were not among those."),
		killed:  s.Counter("shims_killed_total", "Shims that did not answer and were killed."),
		steps:   s.Histogram("create_step_seconds", "How long the steps of making a container took.", metric.Exponential(0.001, 4, 8), "step"),
	}
	for _, outcome := range []string{"exited", "signaled", "limited", "lost"} {
		h.counts.ended.Add(0, outcome)
	}
	h.counts.orphans.Add(0)
	h.counts.killed.Add(0)
}

// tellContainers counts the containers by state.
func (h *Holder) tellContainers(tell metric.Tell) {
	created, running, ended := 0, 0, 0
	h.mu.Lock()
	for _, c := range h.containers {
		if c.absent {
			continue
		}
		switch state, _ := c.state(); state {
		case isolatorv1.Recovered_STATE_CREATED:
			created++
		case isolatorv1.Recovered_STATE_RUNNING:
			running++
		default:
			ended++
		}
	}
	h.mu.Unlock()
	tell(float64(created), "created")
	tell(float64(running), "running")
	tell(float64(ended), "ended")
}

// Step measures a step of making a container, whatever comes of it.
func (h *Holder) Step(name string, do func() error) error {
	began := time.Now()
	err := do()
	h.counts.steps.Observe(time.Since(began).Seconds(), name)
	return err
}

// sawEnd counts the end of a container; status is nil when it is not known.
func (h *Holder) sawEnd(c *Container, status *isolatorv1.ExitStatus) {
	c.mu.Lock()
	limited := c.limitation != nil || status.GetLimitation() != nil
	c.mu.Unlock()
	outcome := "exited"
	switch {
	case status == nil:
		outcome = "lost"
	case limited:
		outcome = "limited"
	case status.GetSignal() != 0:
		outcome = "signaled"
	}
	h.counts.ended.Inc(outcome)
}

// Orphaned counts orphans that the agent is told of.
func (h *Holder) Orphaned(n int) { h.counts.orphans.Add(float64(n)) }
