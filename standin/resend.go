package standin

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// resend stands in for api.resend.com.
func (s *Set) resend() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, f func(w http.ResponseWriter, r *http.Request, a *account)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.asResend(w, r, f) })
	}
	on("POST /emails", s.sendEmail)
	on("POST /emails/batch", s.sendBatch)
	on("GET /emails", listResend("email"))
	on("GET /emails/{id}", oneResend("email"))
	on("GET /domains", listResend("domain"))
	on("POST /domains", s.createResend("domain", "name", object{"status": "not_started", "region": "us-east-1", "records": []object{}}))
	on("GET /domains/{id}", oneResend("domain"))
	on("GET /broadcasts", listResend("broadcast"))
	on("POST /broadcasts", s.createResend("broadcast", "from", object{"status": "draft"}))
	on("GET /broadcasts/{id}", oneResend("broadcast"))
	on("PATCH /broadcasts/{id}", s.changeBroadcast)
	on("POST /broadcasts/{id}/send", s.changeBroadcast)
	// A full key and a webhook's secret, as Resend gives them out: what a proxy must not let through.
	on("POST /api-keys", func(w http.ResponseWriter, r *http.Request, _ *account) {
		drain(r)
		answer(w, http.StatusCreated, object{"id": uuid(), "token": "re_" + hexID(8) + "_" + hexID(24)})
	})
	on("GET /webhooks/{id}", func(w http.ResponseWriter, r *http.Request, _ *account) {
		answer(w, http.StatusOK, object{
			"object": "webhook", "id": r.PathValue("id"), "status": "enabled", "endpoint": "https://example.com/hook",
			"events": []string{"email.sent"}, "signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		})
	})
	on("/", func(w http.ResponseWriter, r *http.Request, _ *account) {
		drain(r)
		refuseResend(w, r, http.StatusNotFound)
	})
	return mux
}

func (s *Set) asResend(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request, *account)) {
	h := w.Header()
	h.Set("Ratelimit-Limit", "5")
	h.Set("Ratelimit-Remaining", "4")
	h.Set("Ratelimit-Reset", "1")
	if r.Header.Get("User-Agent") == "" {
		resendError(w, http.StatusForbidden, "invalid_access", "error code: 1010")
		return
	}
	if len(r.Header.Values("Authorization")) == 0 {
		resendError(w, http.StatusUnauthorized, "missing_api_key", "Missing API key in the authorization header. Include the following header 'Authorization: Bearer YOUR_API_KEY' in the request.")
		return
	}
	a := s.accounts.proven(Resend, "key", bearer(r))
	if a == nil {
		refuseResend(w, r, http.StatusUnauthorized)
		return
	}
	authenticated(w, r, a)
	if a.Restricted && !strings.HasPrefix(r.URL.Path, "/emails") {
		drain(r)
		resendError(w, http.StatusUnauthorized, "restricted_api_key", "This API key is restricted to only send emails")
		return
	}
	f(w, r, a)
}

// sendEmail answers as before when the Idempotency-Key was seen before, and refuses when the body is another.
func (s *Set) sendEmail(w http.ResponseWriter, r *http.Request, a *account) {
	o, ok := read(r)
	if !ok || o["from"] == nil || o["to"] == nil {
		resendError(w, http.StatusUnprocessableEntity, "missing_required_field", "Missing `from` or `to` field.")
		return
	}
	key := r.Header.Get("Idempotency-Key")
	body, _ := json.Marshal(o) // members sorted: the same object is the same text
	if key != "" {
		if old := a.find("idempotency", "key", key); old != nil {
			if old["body"] != string(body) {
				resendError(w, http.StatusConflict, "invalid_idempotent_request", "This idempotency key has been used on a request with a different payload.")
				return
			}
			answer(w, http.StatusOK, object{"id": old["id"]})
			return
		}
	}
	id := s.email(a, o)
	if key != "" {
		a.add("idempotency", object{"key": key, "body": string(body), "id": id})
	}
	answer(w, http.StatusOK, object{"id": id})
}

func (s *Set) email(a *account, o object) string {
	id := uuid()
	a.add("email", merged(o, object{"object": "email", "id": id, "created_at": s.stampResend(), "last_event": "delivered"}))
	return id
}

func (s *Set) stampResend() string { return s.opt.Now().UTC().Format("2006-01-02 15:04:05.000000+00") }

func (s *Set) sendBatch(w http.ResponseWriter, r *http.Request, a *account) {
	all, ok := readList(r)
	if !ok || len(all) == 0 {
		resendError(w, http.StatusUnprocessableEntity, "validation_error", "The batch is not a list of emails.")
		return
	}
	var ids []object
	for _, o := range all {
		ids = append(ids, object{"id": s.email(a, o)})
	}
	answer(w, http.StatusOK, object{"data": ids})
}

func (s *Set) createResend(kind, needs string, with object) func(http.ResponseWriter, *http.Request, *account) {
	return func(w http.ResponseWriter, r *http.Request, a *account) {
		o, ok := read(r)
		if !ok || o[needs] == nil {
			resendError(w, http.StatusUnprocessableEntity, "missing_required_field", "Missing `"+needs+"` field.")
			return
		}
		o = merged(o, with, object{"object": kind, "id": uuid(), "created_at": s.stampResend()})
		a.add(kind, o)
		if kind == "broadcast" {
			o = object{"id": o["id"]}
		}
		answer(w, http.StatusCreated, o)
	}
}

func (s *Set) changeBroadcast(w http.ResponseWriter, r *http.Request, a *account) {
	id := r.PathValue("id")
	o := a.find("broadcast", "id", id)
	if o == nil {
		drain(r)
		refuseResend(w, r, http.StatusNotFound)
		return
	}
	change, _ := read(r) // sending needs no body
	if r.Method == http.MethodPost {
		change = object{"status": "queued", "sent_at": s.opt.Now().UTC().Format(time.RFC3339)}
	}
	a.replace("broadcast", "id", id, merged(o, change))
	answer(w, http.StatusOK, object{"id": id})
}

func listResend(kind string) func(http.ResponseWriter, *http.Request, *account) {
	return func(w http.ResponseWriter, r *http.Request, a *account) {
		all := a.list(kind)
		if after := r.URL.Query().Get("after"); after != "" {
			for i, o := range all {
				if o["id"] == after {
					all = all[i+1:]
					break
				}
			}
		}
		limit := max(1, number(r, "limit", 20, 100))
		answer(w, http.StatusOK, object{"object": "list", "has_more": len(all) > limit, "data": all[:min(len(all), limit)]})
	}
}

func oneResend(kind string) func(http.ResponseWriter, *http.Request, *account) {
	return func(w http.ResponseWriter, r *http.Request, a *account) {
		if o := a.find(kind, "id", r.PathValue("id")); o != nil {
			answer(w, http.StatusOK, o)
			return
		}
		refuseResend(w, r, http.StatusNotFound)
	}
}

func resendError(w http.ResponseWriter, status int, name, message string) {
	answer(w, status, object{"statusCode": status, "name": name, "message": message})
}

func refuseResend(w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusUnauthorized:
		resendError(w, status, "validation_error", "API key is invalid")
	case http.StatusNotFound:
		resendError(w, status, "not_found", "The requested endpoint does not exist: "+r.URL.Path)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		resendError(w, status, "rate_limit_exceeded", "Too many requests. You can only make 5 requests per second.")
	default:
		resendError(w, status, "application_error", http.StatusText(status))
	}
}
