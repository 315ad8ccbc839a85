package standin

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// googleCalendar stands in for www.googleapis.com (the calendar) and oauth2.googleapis.com (the token endpoint).
func (s *Set) googleCalendar() http.Handler {
	const at = "/calendar/v3/"
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("POST /revoke", s.revoke)
	mux.HandleFunc("GET "+consentPath, s.authorize)
	on := func(pattern string, f func(w http.ResponseWriter, r *http.Request, a *account)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			a := s.accounts.labelled(GoogleCalendar, s.google.owner(bearer(r), s.opt.Now()))
			if a == nil {
				refuseGoogle(w, r, http.StatusUnauthorized)
				return
			}
			authenticated(w, r, a)
			if a.Restricted && strings.Contains(r.URL.Path, "/calendarList") {
				googleError(w, http.StatusForbidden, "global", "insufficientPermissions", "Insufficient Permission")
				return
			}
			f(w, r, a)
		})
	}
	on("GET "+at+"users/me/calendarList", s.listCalendars)
	on("GET "+at+"users/me/settings/timezone", func(w http.ResponseWriter, _ *http.Request, _ *account) {
		answer(w, http.StatusOK, object{"kind": "calendar#setting", "etag": `"1"`, "id": "timezone", "value": "Europe/Berlin"})
	})
	on("GET "+at+"calendars/{calendar}/events", s.listEvents)
	on("POST "+at+"calendars/{calendar}/events", s.insertEvent)
	on("GET "+at+"calendars/{calendar}/events/{event}", s.oneEvent)
	on("DELETE "+at+"calendars/{calendar}/events/{event}", s.oneEvent)
	on("POST "+at+"calendars/{calendar}/events/watch", s.watchEvents)
	on("POST "+at+"channels/stop", func(w http.ResponseWriter, r *http.Request, _ *account) {
		drain(r)
		w.WriteHeader(http.StatusNoContent)
	})
	on("/", func(w http.ResponseWriter, r *http.Request, _ *account) {
		drain(r)
		refuseGoogle(w, r, http.StatusNotFound)
	})
	return mux
}

// listCalendars has two calendars in two pages when maxResults is 1.
func (s *Set) listCalendars(w http.ResponseWriter, r *http.Request, a *account) {
	all := []object{
		{"kind": "calendar#calendarListEntry", "id": a.Label + "@example.com", "summary": a.Label, "primary": true, "accessRole": "owner", "timeZone": "Europe/Berlin"},
		{"kind": "calendar#calendarListEntry", "id": "holidays@group.v.calendar.google.com", "summary": "Holidays", "accessRole": "reader", "timeZone": "Europe/Berlin"},
	}
	googlePage(w, r, "calendar#calendarList", all)
}

func (s *Set) listEvents(w http.ResponseWriter, r *http.Request, a *account) {
	googlePage(w, r, "calendar#events", a.list(eventsOf(r)))
}

func eventsOf(r *http.Request) string { return "event of " + r.PathValue("calendar") }

func googlePage(w http.ResponseWriter, r *http.Request, kind string, all []object) {
	from, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Query().Get("pageToken"), "page"))
	from = max(0, min(from, len(all)))
	to := min(from+max(1, number(r, "maxResults", 250, 2500)), len(all))
	out := object{"kind": kind, "etag": `"1"`, "items": all[from:to]}
	if to < len(all) {
		out["nextPageToken"] = "page" + strconv.Itoa(to)
	} else {
		out["nextSyncToken"] = "sync1"
	}
	answer(w, http.StatusOK, out)
}

func (s *Set) insertEvent(w http.ResponseWriter, r *http.Request, a *account) {
	o, ok := read(r)
	switch {
	case !ok || o["start"] == nil || o["end"] == nil:
		googleError(w, http.StatusBadRequest, "global", "required", "Missing end time.")
		return
	case o.text("id") != "" && a.find(eventsOf(r), "id", o.text("id")) != nil:
		googleError(w, http.StatusConflict, "global", "duplicate", "The requested identifier already exists.")
		return
	}
	id, now := or(o.text("id"), hexID(26)), s.stamp()
	mail := a.Label + "@example.com"
	o = merged(o, object{
		"kind": "calendar#event", "etag": `"1"`, "id": id, "status": "confirmed", "created": now, "updated": now,
		"htmlLink": "https://www.google.com/calendar/event?eid=" + id.(string), "iCalUID": id.(string) + "@google.com",
		"creator": object{"email": mail, "self": true}, "organizer": object{"email": mail, "self": true}, "sequence": 0,
	})
	a.add(eventsOf(r), o)
	answer(w, http.StatusOK, o)
}

func (s *Set) oneEvent(w http.ResponseWriter, r *http.Request, a *account) {
	id := r.PathValue("event")
	o := a.find(eventsOf(r), "id", id)
	switch {
	case o == nil:
		refuseGoogle(w, r, http.StatusNotFound)
	case r.Method == http.MethodDelete:
		a.replace(eventsOf(r), "id", id, nil)
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, http.StatusOK, o)
	}
}

func (s *Set) watchEvents(w http.ResponseWriter, r *http.Request, _ *account) {
	o, ok := read(r)
	if !ok || o["id"] == nil || o["address"] == nil {
		googleError(w, http.StatusBadRequest, "global", "required", "Required")
		return
	}
	answer(w, http.StatusOK, object{
		"kind": "api#channel", "id": o["id"], "resourceId": hexID(27), "token": o["token"],
		"resourceUri": "https://" + hostOf(r) + strings.TrimSuffix(r.URL.Path, "/watch") + "?alt=json",
		"expiration":  strconv.FormatInt(s.opt.Now().Add(7*24*time.Hour).UnixMilli(), 10),
	})
}

func googleError(w http.ResponseWriter, status int, domain, reason, message string) {
	one := object{"domain": domain, "reason": reason, "message": message}
	if reason == "authError" {
		one["locationType"], one["location"] = "header", "Authorization"
	}
	answer(w, status, object{"error": object{"errors": []object{one}, "code": status, "message": message}})
}

func refuseGoogle(w http.ResponseWriter, r *http.Request, status int) {
	if hostOf(r) == tokenHost || r.URL.Path == "/token" {
		refuseToken(w, status)
		return
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://accounts.google.com/", error="invalid_token"`)
		googleError(w, status, "global", "authError", "Invalid Credentials")
	case http.StatusForbidden:
		googleError(w, status, "usageLimits", "rateLimitExceeded", "Rate Limit Exceeded")
	case http.StatusNotFound:
		googleError(w, status, "global", "notFound", "Not Found")
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		googleError(w, status, "usageLimits", "rateLimitExceeded", "Rate Limit Exceeded")
	default:
		googleError(w, status, "global", "backendError", "Backend Error")
	}
}
