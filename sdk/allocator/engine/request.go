package engine

import (
	"slices"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
)

// request is a framework's hint of what it would like: so much on one agent. It
// stands until the framework was offered that much or is disconnected, and
// makes nobody come before others. What is revoked for the framework is no less
// than one of its requests.
type request struct {
	agent uint32 // 0: any
	want  []amount
}

// maxRequests bounds what is kept for a framework; the oldest goes first.
const maxRequests = 8

func (e *Engine) requested(r *allocatorv1.Requested) {
	if int(r.GetFramework()) >= len(e.frameworks) || e.frameworks[r.GetFramework()] == nil {
		return
	}
	f := e.frameworks[r.GetFramework()]
	want := e.amounts(r.GetQuantities())
	f.requests = slices.DeleteFunc(f.requests, func(x request) bool { return x.agent == r.GetAgent() && slices.Equal(x.want, want) })
	if len(want) == 0 {
		return
	}
	if len(f.requests) == maxRequests {
		f.requests = slices.Delete(f.requests, 0, 1)
	}
	f.requests = append(f.requests, request{r.GetAgent(), want})
	for _, c := range f.clients {
		c.hunger.declined = nil // it wants something now
	}
}

// meets reports whether v on an agent is what was requested.
func (r *request) meets(e *Engine, a *agent, v vector) bool {
	return (r.agent == 0 || r.agent == a.number) && e.worth(v, [][]amount{r.want})
}

// requestedOn reports whether v on an agent meets one of the framework's
// requests; any will do if it has made none.
func (f *framework) requestedOn(e *Engine, a *agent, v vector) bool {
	return len(f.requests) == 0 || slices.ContainsFunc(f.requests, func(r request) bool { return r.meets(e, a, v) })
}

// answerRequests forgets the requests that an offer meets.
func (e *Engine) answerRequests(f *framework, a *agent, v vector) {
	f.requests = slices.DeleteFunc(f.requests, func(r request) bool { return r.meets(e, a, v) })
}
