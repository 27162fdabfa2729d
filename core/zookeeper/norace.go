//go:build !race

package zookeeper

import "time"

// firstPause is how long calls wait on the first connection of a session. The
// client reads its last transaction's number unlocked just after it has begun to
// take answers, if a watch is there by then. That does no harm, and the race
// detector complains of it; for it only, the first watch is set later.
const firstPause time.Duration = 0
