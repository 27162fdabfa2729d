// Package legacy serves the JSON endpoints that Mesos had before its v1 API, and
// that tools still read: /state and its kin. They say slave where the v1 API says
// agent. Answers come from a mirror of the cluster, and large ones are written in
// pieces.
package legacy

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/mirror"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/operator"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	maintenancev1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/maintenance"
	quotav1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/quota"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

// Master serves the endpoints of a master. Safe for concurrent use.
type Master struct {
	Mirror *mirror.Mirror
	// Orders carries out what changes something.
	Orders *operator.Handler
	// MasterInfo is how this master is known to clients.
	MasterInfo func(*operatorv1.Status) *mezzov1.MasterInfo
	About      transport.About
	// Cluster is the cluster's name; empty: it has none.
	Cluster string

	decoder *wirejson.Decoder
}

// Register has it serve its endpoints.
func (m *Master) Register(s *transport.Server) {
	m.decoder = wirejson.NewDecoder()
	read := func(path string, write func(*JSON, *mirror.Snapshot, url.Values)) {
		s.Handle("", path, transport.Endpoint{Realm: transport.ReadOnly, Leader: true, Serve: func(w http.ResponseWriter, r *http.Request) { m.read(w, r, write) }})
	}
	read("/state", func(j *JSON, now *mirror.Snapshot, _ url.Values) { m.state(j, now) })
	read("/state.json", func(j *JSON, now *mirror.Snapshot, _ url.Values) { m.state(j, now) })
	read("/state-summary", func(j *JSON, now *mirror.Snapshot, _ url.Values) { m.summary(j, now) })
	read("/slaves", slaves)
	read("/frameworks", frameworks)
	read("/tasks", tasks)
	read("/tasks.json", tasks)
	read("/roles", func(j *JSON, now *mirror.Snapshot, _ url.Values) { roles(j, now) })
	m.registerOrders(s)
}

// read answers from the mirror.
func (m *Master) read(w http.ResponseWriter, r *http.Request, write func(*JSON, *mirror.Snapshot, url.Values)) {
	if failure := transport.MayView(r); failure != nil {
		failure.Write(w)
		return
	}
	now, err := m.Mirror.Read(r.Context())
	if err != nil {
		operator.ReadFailed(err).Write(w)
		return
	}
	Answer(w, r, func(j *JSON) { write(j, now, r.URL.Query()) })
}

// registerOrders has it serve what changes something.
func (m *Master) registerOrders(s *transport.Server) {
	handle := func(path string, serve func(w http.ResponseWriter, r *http.Request) *transport.Error, methods ...string) {
		s.Handle("", path, transport.Endpoint{Realm: transport.ReadWrite, Leader: true, Methods: methods, Serve: func(w http.ResponseWriter, r *http.Request) {
			if failure := serve(w, r); failure != nil {
				failure.Write(w)
			}
		}})
	}
	handle("/weights", m.weights, "GET", "PUT")
	handle("/quota", m.quota, "GET", "POST", "DELETE")
	handle("/teardown", m.teardown, "POST")
	handle("/machine/down", func(w http.ResponseWriter, r *http.Request) *transport.Error { return m.machines(w, r, true) }, "POST")
	handle("/machine/up", func(w http.ResponseWriter, r *http.Request) *transport.Error { return m.machines(w, r, false) }, "POST")
	handle("/maintenance/schedule", m.schedule, "GET", "POST")
	for path, x := range operations {
		handle(path, func(w http.ResponseWriter, r *http.Request) *transport.Error { return m.operation(w, r, x) }, "POST")
	}
	s.Handle("", "/maintenance/status", transport.Endpoint{Realm: transport.ReadOnly, Leader: true, Methods: []string{"GET"}, Serve: func(w http.ResponseWriter, r *http.Request) {
		status, failure := m.Orders.ClusterStatus(transport.CallContext(r))
		if failure != nil {
			failure.Write(w)
			return
		}
		Answer(w, r, func(j *JSON) { j.Message(status) })
	}})
}

// schedule shows and replaces the maintenance schedule.
func (m *Master) schedule(w http.ResponseWriter, r *http.Request) *transport.Error {
	ctx := transport.CallContext(r)
	if r.Method == http.MethodGet {
		now, failure := m.Orders.Schedule(ctx)
		if failure != nil {
			return failure
		}
		Answer(w, r, func(j *JSON) { j.Message(now) })
		return nil
	}
	text, failure := body(w, r)
	if failure != nil {
		return failure
	}
	schedule := &maintenancev1.Schedule{}
	if err := m.decoder.Unmarshal(text, schedule); err != nil {
		return bodyError(err)
	}
	if failure := m.Orders.UpdateSchedule(ctx, schedule); failure != nil {
		return failure
	}
	transport.Empty(w, http.StatusOK)
	return nil
}

// machines takes machines down, or up again.
func (m *Master) machines(w http.ResponseWriter, r *http.Request, down bool) *transport.Error {
	text, failure := body(w, r)
	if failure != nil {
		return failure
	}
	list, err := wirejson.UnmarshalList[*mezzov1.MachineID](m.decoder, text)
	if err != nil {
		return bodyError(err)
	}
	if failure := m.Orders.SetMachines(transport.CallContext(r), list, down); failure != nil {
		return failure
	}
	transport.Empty(w, http.StatusOK)
	return nil
}

// body reads a request's body.
func body(w http.ResponseWriter, r *http.Request) (out []byte, failure *transport.Error) {
	failure = transport.ReadBody(w, r, func(b []byte) *transport.Error {
		out = append(out, b...)
		return nil
	})
	return out, failure
}

// form reads a request's body as a form.
func form(w http.ResponseWriter, r *http.Request) (url.Values, *transport.Error) {
	text, failure := body(w, r)
	if failure != nil {
		return nil, failure
	}
	out, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, transport.Failed(http.StatusBadRequest, "Unable to decode query string: "+err.Error())
	}
	return out, nil
}

// bodyError is the answer to a body that cannot be read.
func bodyError(err error) *transport.Error {
	var syntax *wirejson.SyntaxError
	if errors.As(err, &syntax) {
		return transport.Failed(http.StatusBadRequest, "Failed to parse body into JSON: "+err.Error())
	}
	return transport.Failed(http.StatusBadRequest, "Failed to convert JSON: "+err.Error())
}

func (m *Master) weights(w http.ResponseWriter, r *http.Request) *transport.Error {
	if r.Method == http.MethodGet {
		if failure := transport.MayView(r); failure != nil {
			return failure
		}
		now, err := m.Mirror.Read(r.Context())
		if err != nil {
			return operator.ReadFailed(err)
		}
		Answer(w, r, func(j *JSON) {
			j.Array(func() {
				for _, x := range operator.Weights(now) {
					j.Object(func() {
						j.Key("role").Text(x.GetRole())
						j.Key("weight").Float(x.GetWeight())
					})
				}
			})
		})
		return nil
	}
	text, failure := body(w, r)
	if failure != nil {
		return failure
	}
	list, err := wirejson.UnmarshalList[*mezzov1.WeightInfo](m.decoder, text)
	if err != nil {
		return bodyError(err)
	}
	if failure := m.Orders.UpdateWeights(transport.CallContext(r), list); failure != nil {
		return failure
	}
	transport.Empty(w, http.StatusOK)
	return nil
}

func (m *Master) quota(w http.ResponseWriter, r *http.Request) *transport.Error {
	var failure *transport.Error
	switch r.Method {
	case http.MethodGet:
		if failure := transport.MayView(r); failure != nil {
			return failure
		}
		now, err := m.Mirror.Read(r.Context())
		if err != nil {
			return operator.ReadFailed(err)
		}
		Answer(w, r, func(j *JSON) { j.Message(operator.Quota(now)) })
		return nil
	case http.MethodPost:
		var text []byte
		if text, failure = body(w, r); failure != nil {
			return failure
		}
		request := &quotav1.QuotaRequest{}
		if err := m.decoder.Unmarshal(text, request); err != nil {
			return bodyError(err)
		}
		failure = m.Orders.SetQuota(transport.CallContext(r), request)
	default:
		_, role, found := strings.Cut(r.URL.Path, "/quota/")
		if role = strings.Trim(role, "/"); !found || role == "" {
			return transport.Failed(http.StatusBadRequest, fmt.Sprintf("Failed to parse request path '%s': 1 token ('role') required", r.URL.Path))
		}
		failure = m.Orders.RemoveQuota(transport.CallContext(r), role)
	}
	if failure == nil {
		transport.Empty(w, http.StatusOK)
	}
	return failure
}

func (m *Master) teardown(w http.ResponseWriter, r *http.Request) *transport.Error {
	form, failure := form(w, r)
	if failure != nil {
		return failure
	}
	id := form.Get("frameworkId")
	if id == "" {
		return transport.Failed(http.StatusBadRequest, "Missing 'frameworkId' query parameter")
	}
	if failure := m.Orders.Teardown(transport.CallContext(r), id); failure != nil {
		return failure
	}
	transport.Empty(w, http.StatusOK)
	return nil
}

// formOperation is an operation on an agent's resources that comes as a form.
type formOperation struct {
	field string // that has the resources
	of    func([]*mezzov1.Resource) *mezzov1.Offer_Operation
}

var operations = map[string]formOperation{
	"/reserve": {"resources", func(list []*mezzov1.Resource) *mezzov1.Offer_Operation {
		return &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_RESERVE.Enum(), Reserve: &mezzov1.Offer_Operation_Reserve{Resources: list}}
	}},
	"/unreserve": {"resources", func(list []*mezzov1.Resource) *mezzov1.Offer_Operation {
		return &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mezzov1.Offer_Operation_Unreserve{Resources: list}}
	}},
	"/create-volumes": {"volumes", func(list []*mezzov1.Resource) *mezzov1.Offer_Operation {
		return &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_CREATE.Enum(), Create: &mezzov1.Offer_Operation_Create{Volumes: list}}
	}},
	"/destroy-volumes": {"volumes", func(list []*mezzov1.Resource) *mezzov1.Offer_Operation {
		return &mezzov1.Offer_Operation{Type: mezzov1.Offer_Operation_DESTROY.Enum(), Destroy: &mezzov1.Offer_Operation_Destroy{Volumes: list}}
	}},
}

// operation changes what resources of an agent are: slaveId=…&resources=[…].
func (m *Master) operation(w http.ResponseWriter, r *http.Request, x formOperation) *transport.Error {
	form, failure := form(w, r)
	if failure != nil {
		return failure
	}
	for _, field := range []string{"slaveId", x.field} {
		if form.Get(field) == "" {
			return transport.Failed(http.StatusBadRequest, "Missing '"+field+"' query parameter in the request body")
		}
	}
	list, err := wirejson.UnmarshalList[*mezzov1.Resource](m.decoder, []byte(form.Get(x.field)))
	if err != nil {
		return transport.Failed(http.StatusBadRequest, "Error in parsing '"+x.field+"' query parameter in the request body: "+err.Error())
	}
	if failure := m.Orders.Apply(transport.CallContext(r), form.Get("slaveId"), x.of(list)); failure != nil {
		return failure
	}
	transport.Empty(w, http.StatusAccepted)
	return nil
}

// RegisterProcess has the server serve what master and agent have in common:
// /system/stats.json and /logging/toggle.
func RegisterProcess(s *transport.Server, v *operator.Verbosity) {
	s.Handle("system", "/stats.json", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
		Answer(w, r, func(j *JSON) {
			j.Object(func() {
				for _, x := range System() {
					if x.Whole {
						j.Key(x.Name).Int(int(x.Value))
					} else {
						j.Key(x.Name).Float(x.Value)
					}
				}
			})
		})
	}})
	s.Handle("logging", "/toggle", transport.Endpoint{Realm: transport.ReadWrite, Serve: func(w http.ResponseWriter, r *http.Request) {
		if failure := toggle(w, r, v); failure != nil {
			failure.Write(w)
		}
	}})
}

func toggle(w http.ResponseWriter, r *http.Request, v *operator.Verbosity) *transport.Error {
	ctx, q := transport.CallContext(r), r.URL.Query()
	if !q.Has("level") && !q.Has("duration") {
		level, failure := v.Level(ctx)
		if failure == nil {
			transport.Text(w, http.StatusOK, fmt.Sprintf("%d\n", level))
		}
		return failure
	}
	var level uint32
	if _, err := fmt.Sscanf(q.Get("level")+" ", "%d ", &level); err != nil {
		return transport.Failed(http.StatusBadRequest, "Expecting 'level=value' in query.\n")
	}
	duration, err := ParseDuration(q.Get("duration"))
	if err != nil {
		return transport.Failed(http.StatusBadRequest, "Expecting 'duration=value' in query: "+err.Error()+".\n")
	}
	if failure := v.Set(ctx, level, int64(duration)); failure != nil {
		failure.Text += ".\n"
		return failure
	}
	transport.Empty(w, http.StatusOK)
	return nil
}
