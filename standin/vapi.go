package standin

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// vapi stands in for api.vapi.ai.
func (s *Set) vapi() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern, key string, f func(w http.ResponseWriter, r *http.Request, a *account)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			a := s.accounts.proven(Vapi, key, bearer(r))
			if a == nil {
				refuseVapi(w, r, http.StatusUnauthorized)
				return
			}
			authenticated(w, r, a)
			f(w, r, a)
		})
	}
	on("GET /assistant", "private", s.vapiList("assistant"))
	on("POST /assistant", "private", s.createAssistant)
	on("GET /assistant/{id}", "private", s.oneAssistant)
	on("PATCH /assistant/{id}", "private", s.oneAssistant)
	on("DELETE /assistant/{id}", "private", s.oneAssistant)
	on("GET /call", "private", s.vapiList("call"))
	on("POST /call", "private", s.createVapiCall("outboundPhoneCall"))
	on("POST /call/web", "public", s.createVapiCall("webCall"))
	on("GET /call/{id}", "private", func(w http.ResponseWriter, r *http.Request, a *account) {
		if c := a.find("call", "id", r.PathValue("id")); c != nil {
			answer(w, http.StatusOK, c)
			return
		}
		refuseVapi(w, r, http.StatusNotFound)
	})
	on("GET /call/{id}/mono-recording", "private", func(w http.ResponseWriter, r *http.Request, _ *account) {
		w.Header().Set("Location", "https://storage.vapi.ai/"+r.PathValue("id")+".wav?X-Amz-Signature=made-up")
		w.WriteHeader(http.StatusFound)
	})
	on("POST /chat", "private", s.createChat)
	on("GET /phone-number", "private", func(w http.ResponseWriter, _ *http.Request, a *account) {
		answer(w, http.StatusOK, []object{{
			"id": "0d5f2a5e-0000-4000-8000-000000000001", "orgId": a.Fields["vapi_org_id"], "provider": "twilio", "number": "+15550001000",
			"twilioAccountSid": "AC" + strings.Repeat("1", 32), "twilioAuthToken": strings.Repeat("0123456789abcdef", 2), // as Vapi does
		}})
	})
	on("POST /file", "private", s.uploadFile)
	on("/", "private", func(w http.ResponseWriter, r *http.Request, _ *account) { refuseVapi(w, r, http.StatusNotFound) })
	return mux
}

func (s *Set) stamp() string { return s.opt.Now().UTC().Format("2006-01-02T15:04:05.000Z") }

// vapiList lists the newest first, and takes bounds of createdAt.
func (s *Set) vapiList(kind string) func(http.ResponseWriter, *http.Request, *account) {
	return func(w http.ResponseWriter, r *http.Request, a *account) {
		q := r.URL.Query()
		all := []object{}
		for _, o := range a.list(kind) {
			at := o.text("createdAt")
			fits := func(name string, holds func(bound string) bool) bool { return !q.Has(name) || holds(q.Get(name)) }
			if fits("createdAtGe", func(b string) bool { return at >= b }) && fits("createdAtGt", func(b string) bool { return at > b }) &&
				fits("createdAtLe", func(b string) bool { return at <= b }) && fits("createdAtLt", func(b string) bool { return at < b }) {
				all = append(all, o)
			}
		}
		answer(w, http.StatusOK, all[:min(len(all), number(r, "limit", 100, 1000))])
	}
}

func (s *Set) createAssistant(w http.ResponseWriter, r *http.Request, a *account) {
	o, ok := read(r)
	if !ok {
		vapiError(w, http.StatusBadRequest, []string{"body must be a JSON object"})
		return
	}
	now := s.stamp()
	o = merged(o, object{"id": uuid(), "orgId": a.Fields["vapi_org_id"], "createdAt": now, "updatedAt": now})
	a.add("assistant", o)
	answer(w, http.StatusCreated, o)
}

func (s *Set) oneAssistant(w http.ResponseWriter, r *http.Request, a *account) {
	id := r.PathValue("id")
	o := a.find("assistant", "id", id)
	if o == nil {
		drain(r)
		refuseVapi(w, r, http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodPatch:
		change, ok := read(r)
		if !ok {
			vapiError(w, http.StatusBadRequest, []string{"body must be a JSON object"})
			return
		}
		o = merged(o, change, object{"id": id, "updatedAt": s.stamp()})
		a.replace("assistant", "id", id, o)
	case http.MethodDelete:
		a.replace("assistant", "id", id, nil)
	}
	answer(w, http.StatusOK, o)
}

func (s *Set) createVapiCall(kind string) func(http.ResponseWriter, *http.Request, *account) {
	return func(w http.ResponseWriter, r *http.Request, a *account) {
		o, ok := read(r)
		if !ok || (o["assistantId"] == nil && o["assistant"] == nil && o["squadId"] == nil && o["squad"] == nil) {
			vapiError(w, http.StatusBadRequest, []string{"one of assistantId, assistant, squadId or squad is required"})
			return
		}
		id, now := uuid(), s.stamp()
		host := strings.TrimPrefix(hostOf(r), "api.")
		c := merged(o, object{
			"id": id, "orgId": a.Fields["vapi_org_id"], "type": kind, "status": "queued", "createdAt": now, "updatedAt": now,
			"monitor": object{
				"listenUrl":  "wss://phone-call-websocket." + host + "/" + id + "/listen",
				"controlUrl": "https://phone-call-websocket." + host + "/" + id + "/control",
			},
		})
		if kind == "webCall" {
			c["webCallUrl"] = "https://" + host + "/" + id
		}
		a.add("call", c)
		answer(w, http.StatusCreated, c)
	}
}

// createChat answers at once or, with "stream": true, word by word as server-sent events.
func (s *Set) createChat(w http.ResponseWriter, r *http.Request, a *account) {
	o, ok := read(r)
	if !ok || o["input"] == nil {
		vapiError(w, http.StatusBadRequest, []string{"input should not be empty"})
		return
	}
	id, now := uuid(), s.stamp()
	words := []string{"Hello", " from", " the", " stand-in."}
	if o["stream"] != true {
		answer(w, http.StatusCreated, object{
			"id": id, "orgId": a.Fields["vapi_org_id"], "assistantId": o["assistantId"], "input": o["input"],
			"output": []object{{"role": "assistant", "content": strings.Join(words, "")}}, "createdAt": now, "updatedAt": now,
		})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	var pieces [][]byte
	for _, word := range words {
		b, _ := json.Marshal(object{"id": id, "path": "chat.output[0].content", "delta": word})
		pieces = append(pieces, []byte("data: "+string(b)+"\n\n"))
	}
	s.slow(w, r, append(pieces, []byte("data: [DONE]\n\n"))...)
}

func (s *Set) uploadFile(w http.ResponseWriter, r *http.Request, a *account) {
	up, err := readUpload(r)
	if err != nil || len(up.files) == 0 {
		vapiError(w, http.StatusBadRequest, []string{"file is required"})
		return
	}
	f := up.files[0]
	answer(w, http.StatusCreated, object{
		"id": uuid(), "orgId": a.Fields["vapi_org_id"], "name": f.name, "bytes": f.size, "mimetype": f.kind,
		"status": "done", "createdAt": s.opt.Now().UTC().Format(time.RFC3339),
	})
}

func vapiError(w http.ResponseWriter, status int, message any) {
	answer(w, status, object{"message": message, "error": http.StatusText(status), "statusCode": status})
}

func refuseVapi(w http.ResponseWriter, r *http.Request, status int) {
	message := http.StatusText(status)
	switch status {
	case http.StatusUnauthorized:
		message = "Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa."
	case http.StatusNotFound:
		message = "Cannot " + r.Method + " " + r.URL.Path
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
	}
	vapiError(w, status, message)
}
