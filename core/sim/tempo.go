package sim

import "time"

// tempo is how fast the times of a world are: short ones, so that a small world
// sees many of them pass, or those of a real cluster.
type tempo struct {
	pingInterval                         time.Duration
	offerTimeout, reregisterTimeout      time.Duration
	agentBackoffMax, agentConnectTimeout time.Duration
	retry, retryMax                      time.Duration
	refuse                               time.Duration // at most, of an offer
	// check is how often what is too dear to check after every step is.
	check time.Duration
	// recovery is how long a healed cluster launches tasks as before.
	recovery time.Duration
	// settling is how long it then has until everybody must agree: longer than
	// any back-off and failover timeout.
	settling time.Duration
	// ending is how long the last tasks have to be forgotten.
	ending time.Duration
}

const pingTimeouts = 5

func tempoOf(c Config) tempo {
	if c.Large {
		return tempo{
			pingInterval: 15 * time.Second, offerTimeout: 5 * time.Minute, reregisterTimeout: 10 * time.Minute, agentBackoffMax: 10 * time.Second,
			agentConnectTimeout: 15 * time.Second, retry: 10 * time.Second, retryMax: time.Minute, refuse: time.Minute,
			check: 30 * time.Second, recovery: 30 * time.Second, settling: 4 * time.Minute, ending: 2 * time.Minute,
		}
	}
	return tempo{
		pingInterval: time.Second, offerTimeout: 15 * time.Second, reregisterTimeout: 20 * time.Second, agentBackoffMax: 3 * time.Second,
		agentConnectTimeout: 2 * time.Second, retry: time.Second, retryMax: 8 * time.Second, refuse: 5 * time.Second,
		check: 500 * time.Millisecond, recovery: 30 * time.Second, settling: 100 * time.Second, ending: time.Minute,
	}
}
