package image

import (
	"context"

	"github.com/mezzo-os/mezzo/sdk/metric"
)

// Counts are what a store tells of itself; each may be nil. Pulls the agent
// counts.
type Counts struct {
	Images  *metric.Gauge // by whether containers hold them
	Disk    *metric.Gauge
	Removed *metric.Counter // by why
}

// Count declares them.
func Count(s *metric.Set) Counts {
	c := Counts{
		Images:  s.Gauge("images", "Images that are here, by whether a container holds them; as of the last look, every ten minutes or so.", "held"),
		Disk:    s.Gauge("image_disk_used_ratio", "How full the disk of the images is, from 0 to 1; as of the same look."),
		Removed: s.Counter("images_removed_total", "Images that were collected, by why: nobody had used them for long, or the disk was too full.", "reason"),
	}
	c.Removed.Add(0, "unused")
	c.Removed.Add(0, "disk")
	return c
}

// measure looks at the images and their disk. What cannot be had is not known.
func (s *Store) measure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(s.in(ctx), measurePatience)
	defer cancel()
	list, err := s.list(ctx, false)
	if err != nil {
		s.o.Counts.Images.Unset("true")
		s.o.Counts.Images.Unset("false")
		s.o.Counts.Disk.Unset()
		return
	}
	held := 0
	for _, i := range list {
		if i.Containers > 0 {
			held++
		}
	}
	s.o.Counts.Images.Set(float64(held), "true")
	s.o.Counts.Images.Set(float64(len(list)-held), "false")
	s.o.Counts.Disk.Unset()
	c, err := s.o.Client()
	if err != nil {
		return
	}
	if dir, err := s.directory(ctx, c); err == nil {
		if used, err := s.o.DiskUsed(dir); err == nil {
			s.o.Counts.Disk.Set(used)
		}
	}
}
