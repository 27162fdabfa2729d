package transport

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Endpoint answers at a path. The checks are made in the order of the fields:
// first who asks, last the method.
type Endpoint struct {
	// Realm says whose credentials are asked for, if any are.
	Realm Realm
	// Leader: at a master that does not lead the client is sent to the one that
	// does.
	Leader bool
	// Gate, if not nil, may refuse a request whatever its method (an agent that
	// is recovering).
	Gate func(*http.Request) *Error
	// Methods that are allowed; none: all.
	Methods []string
	// Exact: a longer path is not found, where otherwise an endpoint answers for
	// all paths below its own.
	Exact bool
	Serve http.HandlerFunc

	name string // its path, as it is counted
}

// allow checks the method.
func (e *Endpoint) allow(method string) *Error {
	if len(e.Methods) == 0 || slices.Contains(e.Methods, method) {
		return nil
	}
	return MethodNotAllowed(method, e.Methods...)
}

// MethodNotAllowed is the answer to a method other than those expected.
func MethodNotAllowed(method string, expected ...string) *Error {
	return &Error{
		Code:   http.StatusMethodNotAllowed,
		Text:   fmt.Sprintf("405 Method Not Allowed. Expecting one of { '%s' }, but received '%s'.", strings.Join(expected, "', '"), method),
		Header: http.Header{"Allow": {strings.Join(expected, ", ")}},
	}
}

// routes find endpoints. They are complete before the first request.
type routes struct {
	fallback  string // the default process
	processes map[string]map[string]*Endpoint
}

// Handle has an endpoint answer at a path of a process; "" is the default
// process. A path is "/state" or "/maintenance/status"; "" is the process
// itself ("/version" is the process "version" with no path). It must be called
// before Serve, once a path.
func (s *Server) Handle(process, path string, e Endpoint) {
	if process == "" {
		process = s.routes.fallback
	}
	path = strings.Trim(path, "/")
	if s.routes.processes == nil {
		s.routes.processes = map[string]map[string]*Endpoint{}
	}
	if s.routes.processes[process] == nil {
		s.routes.processes[process] = map[string]*Endpoint{}
	}
	if s.routes.processes[process][path] != nil {
		panic(fmt.Sprintf("transport: two endpoints at %s/%s", process, path))
	}
	e.name = "/" + path
	if process != s.routes.fallback {
		e.name = strings.TrimSuffix("/"+process+e.name, "/")
	}
	s.routes.processes[process][path] = &e
}

// parens undoes the one encoding that counts in a path: clients may encode the
// parentheses of "slave(1)".
var parens = strings.NewReplacer("%28", "(", "%29", ")")

// find returns the endpoint of a path as it was sent; nil: there is none. The
// longest path that is an endpoint's counts. Percent-encodings are not undone:
// "/%73tate" is not "/state".
func (r *routes) find(path string) *Endpoint {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	process := r.processes[r.process(first)]
	if process == nil {
		process, rest = r.processes[r.fallback], strings.TrimPrefix(path, "/")
	}
	rest = strings.TrimSuffix(rest, "/")
	if e := process[rest]; e != nil {
		return e
	}
	for {
		cut := strings.LastIndexByte(rest, '/')
		if cut < 0 {
			return nil
		}
		rest = rest[:cut]
		if e := process[rest]; e != nil {
			if e.Exact {
				return nil
			}
			return e
		}
	}
}

// process is the process that the first component of a path means. An agent is
// one process, whatever number a client gives it.
func (r *routes) process(first string) string {
	first = parens.Replace(first)
	number, ok := strings.CutPrefix(first, "slave(")
	if !ok {
		return first
	}
	number, ok = strings.CutSuffix(number, ")")
	if ok && number != "" && strings.Trim(number, "0123456789") == "" {
		return "slave(1)"
	}
	return first
}

func knownMethod(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete,
		http.MethodPatch, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return true
	}
	return false
}

// badQuery is whether the query has an encoding that means nothing.
func badQuery(r *http.Request) bool {
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if _, err := url.QueryUnescape(pair); err != nil {
			return true
		}
	}
	return false
}
