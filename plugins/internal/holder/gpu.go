package holder

import (
	"math"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/plugins/internal/cgroup"
	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// WantedGPUs is how many GPUs a task's container is to be given of those that the
// plugin knows, or why it can never be. It is 0 where the plugin knows none: then
// gpus are a number, and who sees which is not the plugin's affair. where tells
// the operator how GPUs become known.
func (h *Holder) WantedGPUs(t *isolatorv1.Task, known int, where string) (int, error) {
	asked, _ := cgroup.Amount(t, "gpus")
	switch {
	case asked == 0 || known == 0 || t.GetSandboxOnly():
		return 0, nil
	case asked != math.Trunc(asked):
		return 0, status.Errorf(codes.InvalidArgument, "isolator %s gives whole GPUs, and %g are asked for", h.Name, asked)
	case int(asked) > known:
		return 0, status.Errorf(codes.InvalidArgument, "%g GPUs are asked for, and isolator %s knows %d on this host (%s)", asked, h.Name, known, where)
	}
	return int(asked), nil
}

// TakeGPUs gives a container so many of the plugin's GPUs, which no other has
// until it is removed: c.GPUs has their names then, in the order of all. They are
// noted with the container (Note), which is to follow.
func (h *Holder) TakeGPUs(c *Container, wanted int, all []string) error {
	if wanted == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	free := slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		for _, other := range h.containers {
			if slices.Contains(other.GPUs, name) {
				return true
			}
		}
		return false
	})
	if len(free) < wanted {
		return status.Errorf(codes.ResourceExhausted, "%d GPUs are asked for, and %d of %d are free", wanted, len(free), len(all))
	}
	c.GPUs = free[:wanted:wanted]
	return nil
}
