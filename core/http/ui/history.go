package ui

import (
	"context"
	"net/http"
	"sync"
	"time"

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

const (
	// SampleInterval is the pause between two samples of the history.
	SampleInterval = 10 * time.Second
	// samplesKept make an hour.
	samplesKept = 360
)

// sample is the cluster at one time, by resource.
type sample struct {
	At        int64              `json:"at"` // Unix time in seconds
	Total     map[string]float64 `json:"total"`
	Allocated map[string]float64 `json:"allocated"`
	Offered   map[string]float64 `json:"offered"`
	Tasks     uint64             `json:"tasks"`
}

// history is the last hour.
type history struct {
	mu      sync.Mutex
	samples []sample
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.samples = append(h.samples, s); len(h.samples) > samplesKept {
		h.samples = append([]sample(nil), h.samples[len(h.samples)-samplesKept:]...)
	}
}

// Sample notes how the cluster is at a time, for the history. It is to be called
// every SampleInterval while this master leads.
func (u *UI) Sample(now time.Time, s *operatorv1.Status) {
	numbers := func(all map[string]any) map[string]float64 {
		out := map[string]float64{}
		for name, value := range all {
			if number, ok := value.(float64); ok {
				out[name] = number
			}
		}
		return out
	}
	u.history.add(sample{
		At: now.Unix(), Total: numbers(s.GetTotal().AsMap()), Allocated: numbers(s.GetAllocated().AsMap()),
		Offered: numbers(s.GetOffered().AsMap()), Tasks: s.GetTasks().GetActive(),
	})
}

// Run samples until ctx ends. ask is Operator.GetStatus for the process itself.
func (u *UI) Run(ctx context.Context, ask func() *operatorv1.Status) {
	ticker := time.NewTicker(SampleInterval)
	defer ticker.Stop()
	for {
		if s := ask(); s.GetLeadership() == "leading" {
			u.Sample(time.Now(), s)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (u *UI) pastHour(w http.ResponseWriter, r *http.Request) {
	if err := u.options.View(r.Context()); err != nil {
		mezzohttp.Error(w, err)
		return
	}
	u.history.mu.Lock()
	samples := u.history.samples // only appended to, or replaced
	u.history.mu.Unlock()
	if samples == nil {
		samples = []sample{}
	}
	writeJSON(w, samples)
}
