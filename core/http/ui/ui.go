package ui

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	mezzohttp "github.com/mezzo-os/mezzo/core/http"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

//go:embed static
var static embed.FS

// Options of the UI.
type Options struct {
	// Operator is the master's own service. It is called with the principal of
	// the HTTP request in the context.
	Operator operatorv1.OperatorServer
	// Agent is the rpc address of an agent; rpc.ErrNotFound, or rpc.ErrUnavailable
	// when it has none.
	Agent func(ctx context.Context, id string) (address string, err error)
	// View asks whether the caller may see the cluster, Read whether he may read
	// at a path in a sandbox: what Operator does not ask for.
	View func(context.Context) error
	Read func(ctx context.Context, path string) error
	// Dial connects to an agent's rpc address.
	Dial func(address string) (*grpc.ClientConn, error)
	// Settings are what the process was configured with, as text.
	Settings func() []Setting
}

// Setting is one value of the configuration.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// UI serves the pages and what they need. Safe for concurrent use.
type UI struct {
	options Options
	encoder *wirejson.Encoder
	decoder *wirejson.Decoder
	history history

	mu     sync.Mutex
	agents map[string]*agentConn // by address
	closed bool
}

// New returns a UI; Close ends its connections to agents.
func New(o Options) *UI {
	return &UI{options: o, encoder: wirejson.NewEncoder(), decoder: wirejson.NewDecoder(), agents: map[string]*agentConn{}}
}

// Handlers are by the patterns of http.ServeMux.
func (u *UI) Handlers() map[string]http.Handler {
	handlers := map[string]http.Handler{
		"GET /ui/":                    http.HandlerFunc(u.pages),
		"GET /v1/watch":               http.HandlerFunc(u.watch),
		"GET /v1/history":             http.HandlerFunc(u.pastHour),
		"GET /v1/settings":            http.HandlerFunc(u.settings),
		"GET /v1/agent/{id}/state":    u.answer(callTimeout, u.agentState),
		"GET /v1/agent/{id}/usage":    u.answer(callTimeout, u.agentUsage),
		"GET /v1/agent/{id}/files":    u.answer(callTimeout, u.agentFiles),
		"GET /v1/agent/{id}/read":     http.HandlerFunc(u.agentRead),
		"GET /v1/agent/{id}/download": http.HandlerFunc(u.agentDownload),
	}
	// Orders come from the UI's own pages, or from programs: never from a page of
	// somebody else that the operator's browser happens to show.
	guard := http.NewCrossOriginProtection()
	handlers["POST /v1/order/{verb}"] = guard.Handler(u.answer(orderTimeout, u.order))
	return handlers
}

// policy allows the pages what they have themselves, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pages serves the files, and for every other path the page that then shows
// what the path says.
func (u *UI) pages(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/ui/")
	files, _ := fs.Sub(static, "static") // it is embedded
	if info, err := fs.Stat(files, name); err != nil || info.IsDir() {
		name = "index.html"
	}
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.ServeFileFS(w, r, files, name)
}

// answer serves what is asked as JSON, within the time for it.
func (u *UI) answer(within time.Duration, ask func(http.ResponseWriter, *http.Request) (proto.Message, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), within)
		defer cancel()
		message, err := ask(w, r.WithContext(ctx))
		var body []byte
		if err == nil {
			body, err = u.encoder.Marshal(message)
		}
		if err != nil {
			mezzohttp.Error(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(body, '\n')) // a client that is gone is no error
	})
}

const callTimeout = 30 * time.Second

func (u *UI) settings(w http.ResponseWriter, r *http.Request) {
	if err := u.options.View(r.Context()); err != nil {
		mezzohttp.Error(w, err)
		return
	}
	writeJSON(w, u.options.Settings())
}

func writeJSON(w http.ResponseWriter, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		mezzohttp.Error(w, fmt.Errorf("the answer cannot be written as JSON: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // a client that is gone is no error
}
