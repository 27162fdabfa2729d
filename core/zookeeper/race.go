//go:build race

package zookeeper

import "time"

// firstPause: see norace.go.
const firstPause = 300 * time.Millisecond
