package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/mezzo-os/mezzo/sdk/framework"
)

// maxCommand bounds a command, in bytes.
const maxCommand = 64 << 10

// handler is the dialect that this adapter speaks: the body of a POST is a shell
// command; all answers are JSON.
//
//	POST   /tasks        runs a command
//	GET    /tasks        all tasks, the oldest first
//	GET    /tasks/{id}   one
//	DELETE /tasks/{id}   ends it
//
// Nobody is asked who he is: whoever reaches the address can run commands. So it
// is the loopback's by default, and web pages of other origins are refused.
func (a *adapter) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /tasks", a.create)
	mux.HandleFunc("GET /tasks", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, a.tasks.list()) })
	mux.HandleFunc("GET /tasks/{id}", a.show)
	mux.HandleFunc("DELETE /tasks/{id}", a.end)
	return http.NewCrossOriginProtection().Handler(mux)
}

func (a *adapter) create(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommand))
	command := strings.TrimSpace(string(body))
	switch {
	case err != nil:
		refuse(w, http.StatusRequestEntityTooLarge, "the command cannot be read: "+err.Error())
		return
	case command == "":
		refuse(w, http.StatusBadRequest, "the body is empty; it should be a shell command")
		return
	}
	s := a.connected()
	if s == nil {
		standby(w)
		return
	}
	t, err := a.tasks.add(command)
	if err != nil {
		refuse(w, http.StatusTooManyRequests, err.Error())
		return
	}
	a.complain("reviving", s.Revive(r.Context()))
	answer(w, http.StatusCreated, t)
}

func (a *adapter) show(w http.ResponseWriter, r *http.Request) {
	t, found := a.tasks.get(r.PathValue("id"))
	if !found {
		refuse(w, http.StatusNotFound, "there is no such task, or none any more")
		return
	}
	answer(w, http.StatusOK, t)
}

func (a *adapter) end(w http.ResponseWriter, r *http.Request) {
	s := a.connected()
	if s == nil {
		standby(w)
		return
	}
	t, taskID, found := a.tasks.cancel(r.PathValue("id"))
	if !found {
		refuse(w, http.StatusNotFound, "there is no such task, or none any more")
		return
	}
	if taskID != "" {
		if err := s.Kill(r.Context(), taskID, nil); err != nil {
			refuse(w, http.StatusBadGateway, "the master was not told: "+err.Error())
			return
		}
	}
	answer(w, http.StatusAccepted, t)
}

func standby(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, framework.ErrNotSubscribed.Error()+"; another master may lead")
}

func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, map[string]string{"error": why})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}
