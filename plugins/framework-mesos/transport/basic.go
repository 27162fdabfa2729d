package transport

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// About is what the basic endpoints tell.
type About struct {
	// Version is what clients take for that of Mesos; empty: MesosVersion.
	Version string
	// Built is when the binary was made, and by whom; zero: not known.
	Built     time.Time
	BuildUser string
	// Flags are how the process was started, without secrets, as text.
	Flags func() map[string]string
}

// version is the answer of /version.
type version struct {
	BuildDate string  `json:"build_date"`
	BuildTime float64 `json:"build_time"`
	BuildUser string  `json:"build_user"`
	Version   string  `json:"version"`
}

// HandleBasics serves what master and agent have in common and what needs no
// knowledge of the cluster: /health, /version, /flags, /help, and, at a master,
// /redirect.
func (s *Server) HandleBasics(about About) {
	s.Handle("", "/health", Endpoint{Serve: func(w http.ResponseWriter, _ *http.Request) { Empty(w, http.StatusOK) }})
	s.Handle("version", "", Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) { legacyJSON(w, r, about.version()) }})
	s.Handle("", "/flags", Endpoint{Realm: ReadOnly, Methods: []string{"GET", "POST", "DELETE"}, Serve: func(w http.ResponseWriter, r *http.Request) {
		if failure := MayView(r); failure != nil {
			failure.Write(w)
			return
		}
		flags := map[string]string{}
		if about.Flags != nil {
			flags = about.Flags()
		}
		legacyJSON(w, r, map[string]any{"flags": flags})
	}})
	s.Handle("help", "", Endpoint{Serve: s.help})
	if s.options.Side == Master {
		s.Handle("", "/redirect", Endpoint{Exact: true, Serve: func(w http.ResponseWriter, _ *http.Request) {
			s.options.Leadership.redirect("").Write(w)
		}})
	}
}

func (a About) version() version {
	v := version{Version: a.Version, BuildUser: a.BuildUser}
	if v.Version == "" {
		v.Version = MesosVersion
	}
	if !a.Built.IsZero() {
		v.BuildTime = float64(a.Built.Unix())
		v.BuildDate = a.Built.UTC().Format("2006-01-02 15:04:05")
	}
	return v
}

func legacyJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("transport: an answer does not encode: " + err.Error())
	}
	Legacy(w, r, body)
}

// help lists the endpoints.
func (s *Server) help(w http.ResponseWriter, _ *http.Request) {
	var lines []string
	for process, paths := range s.routes.processes {
		for path, e := range paths {
			methods := "any"
			if len(e.Methods) > 0 {
				methods = strings.Join(e.Methods, ", ")
			}
			lines = append(lines, strings.TrimSuffix("/"+process+"/"+path, "/")+"  "+methods)
		}
	}
	slices.Sort(lines)
	Text(w, http.StatusOK, strings.Join(lines, "\n")+"\n")
}
