package election

import "context"

// Tell is what a Watch does: it sends the leader, then each change, to a slow
// reader only the newest, and closes leaders when ctx or the election ends. look
// returns who leads, whether that is known yet, and what closes when it changes.
func Tell(ctx context.Context, over <-chan struct{}, leaders chan<- *Candidate, look func() (leader *Candidate, known bool, changed <-chan struct{})) {
	defer close(leaders)
	for first, told := true, (*Candidate)(nil); ; {
		leader, known, changed := look()
		send := leaders
		if !known || !first && leader == told {
			send = nil
		}
		select {
		case send <- leader:
			first, told = false, leader
		case <-changed:
		case <-ctx.Done():
			return
		case <-over:
			return
		}
	}
}
