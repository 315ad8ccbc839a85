package standin

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// twilio stands in for api.twilio.com and verify.twilio.com (and for any other product's host, with 404 for what it does not know).
func (s *Set) twilio() http.Handler {
	const at = "/2010-04-01/Accounts/{sid}/"
	mux := http.NewServeMux()
	on := func(pattern string, f func(w http.ResponseWriter, r *http.Request, a *account, sid string)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.asTwilio(w, r, f) })
	}
	on("POST "+at+"Messages.json", s.createMessage)
	on("GET "+at+"Messages.json", s.listMessages)
	on("GET "+at+"Messages/{message}", s.oneMessage)
	on("DELETE "+at+"Messages/{message}", s.oneMessage)
	on("GET "+at+"Messages/{message}/Media/{media}", func(w http.ResponseWriter, r *http.Request, a *account, _ string) {
		w.Header().Set("Location", "https://mms.twiliocdn.com/"+a.Fields["account_sid"]+"/"+hexID(32)+"?Expires=14400&Signature=made-up")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	on("POST "+at+"Calls.json", s.createCall)
	on("GET "+at+"Balance.json", func(w http.ResponseWriter, _ *http.Request, _ *account, sid string) {
		answer(w, http.StatusOK, object{"account_sid": sid, "balance": "23.42", "currency": "USD"})
	})
	on("GET /2010-04-01/Accounts/{sid}", s.oneAccount)
	on("GET /2010-04-01/Accounts.json", s.oneAccount)
	on("POST /2010-04-01/Accounts.json", s.oneAccount)
	on("GET /v2/Services", s.listServices)
	on("POST /v2/Services", s.createService)
	on("POST /v2/Services/{service}/Verifications", s.createVerification)
	on("/", func(w http.ResponseWriter, r *http.Request, _ *account, _ string) {
		refuseTwilio(w, r, http.StatusNotFound)
	})
	return mux
}

// asTwilio lets f answer when the credential and the account in the path are right.
func (s *Set) asTwilio(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request, *account, string)) {
	h := w.Header()
	h.Set("Twilio-Request-Id", "RQ"+hexID(32))
	h.Set("Twilio-Request-Duration", "0.042")
	h.Set("Twilio-Concurrent-Requests", "1")
	h.Set("X-Home-Region", "us1")
	h.Set("X-Api-Domain", hostOf(r))
	a := s.accounts.proven(Twilio, "basic", basic(r))
	if a == nil {
		refuseTwilio(w, r, http.StatusUnauthorized)
		return
	}
	authenticated(w, r, a)
	if a.Restricted && (strings.HasSuffix(r.URL.Path, "/Balance.json") || !strings.Contains(strings.TrimPrefix(r.URL.Path, "/2010-04-01/Accounts/"), "/")) {
		refuseTwilio(w, r, http.StatusUnauthorized) // as if it were wrong
		return
	}
	sid := strings.TrimSuffix(r.PathValue("sid"), ".json")
	if sid == "" {
		sid = a.Fields["account_sid"]
	}
	if sid != a.Fields["account_sid"] && !listed(a.Fields["subaccounts"], sid) {
		refuseTwilio(w, r, http.StatusNotFound)
		return
	}
	f(w, r, a, sid)
}

func listed(list, item string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(one) == item {
			return true
		}
	}
	return false
}

func (s *Set) createMessage(w http.ResponseWriter, r *http.Request, a *account, sid string) {
	form, ok := formOf(r)
	switch {
	case !ok:
		twilioError(w, http.StatusBadRequest, 20001, "Unable to parse the request body")
		return
	case form.Get("To") == "":
		twilioError(w, http.StatusBadRequest, 21604, "A 'To' phone number is required.")
		return
	case form.Get("From") == "" && form.Get("MessagingServiceSid") == "":
		twilioError(w, http.StatusBadRequest, 21603, "A 'From' phone number is required.")
		return
	case form.Get("Body") == "" && form.Get("MediaUrl") == "" && form.Get("ContentSid") == "":
		twilioError(w, http.StatusBadRequest, 21602, "Message body is required.")
		return
	}
	id := "SM" + hexID(32)
	uri := "/2010-04-01/Accounts/" + sid + "/Messages/" + id
	now := s.opt.Now().UTC().Format(time.RFC1123Z)
	m := object{
		"account_sid": sid, "api_version": "2010-04-01", "body": form.Get("Body"),
		"date_created": now, "date_sent": nil, "date_updated": now, "direction": "outbound-api",
		"error_code": nil, "error_message": nil, "from": or(form.Get("From")),
		"messaging_service_sid": or(form.Get("MessagingServiceSid")),
		"num_media":             strconv.Itoa(len(form["MediaUrl"])), "num_segments": "1", "price": nil, "price_unit": "USD",
		"sid": id, "status": "queued", "to": form.Get("To"), "uri": uri + ".json",
		"subresource_uris": object{"media": uri + "/Media.json"},
	}
	a.add("message", m)
	answer(w, http.StatusCreated, m)
}

func (s *Set) oneMessage(w http.ResponseWriter, r *http.Request, a *account, _ string) {
	id := strings.TrimSuffix(r.PathValue("message"), ".json")
	m := a.find("message", "sid", id)
	switch {
	case m == nil:
		refuseTwilio(w, r, http.StatusNotFound)
	case r.Method == http.MethodDelete:
		a.replace("message", "sid", id, nil)
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, http.StatusOK, m)
	}
}

func (s *Set) listMessages(w http.ResponseWriter, r *http.Request, a *account, _ string) {
	all := a.list("message")
	size := max(1, number(r, "PageSize", 50, 1000))
	page := number(r, "Page", 0, 1<<20)
	from := min(page*size, len(all))
	to := min(from+size, len(all))
	at := func(page int) string {
		q := "?PageSize=" + strconv.Itoa(size) + "&Page=" + strconv.Itoa(page)
		if page > 0 {
			q += "&PageToken=PA" + all[page*size-1].text("sid")
		}
		return r.URL.EscapedPath() + q
	}
	out := object{
		"messages": all[from:to], "page": page, "page_size": size, "start": from, "end": max(from, to-1),
		"uri": r.URL.RequestURI(), "first_page_uri": at(0), "next_page_uri": nil, "previous_page_uri": nil,
	}
	if to < len(all) {
		out["next_page_uri"] = at(page + 1)
	}
	if page > 0 && from < len(all) {
		out["previous_page_uri"] = at(page - 1)
	}
	answer(w, http.StatusOK, out)
}

func (s *Set) createCall(w http.ResponseWriter, r *http.Request, a *account, sid string) {
	form, ok := formOf(r)
	if !ok || form.Get("To") == "" || form.Get("From") == "" {
		twilioError(w, http.StatusBadRequest, 21201, "No 'To' number is specified")
		return
	}
	id := "CA" + hexID(32)
	c := object{
		"account_sid": sid, "api_version": "2010-04-01", "direction": "outbound-api", "from": form.Get("From"), "to": form.Get("To"),
		"sid": id, "status": "queued", "date_created": nil, "duration": nil, "price": nil, "price_unit": "USD",
		"uri": "/2010-04-01/Accounts/" + sid + "/Calls/" + id + ".json",
	}
	a.add("call", c)
	answer(w, http.StatusCreated, c)
}

// oneAccount answers with the account's auth token, as Twilio does: what a proxy must not let through.
func (s *Set) oneAccount(w http.ResponseWriter, r *http.Request, a *account, sid string) {
	one := object{
		"sid": sid, "owner_account_sid": a.Fields["account_sid"], "friendly_name": a.Label, "status": "active", "type": "Full",
		"auth_token": a.Fields["auth_token"], "uri": "/2010-04-01/Accounts/" + sid + ".json",
	}
	switch {
	case r.Method == http.MethodPost:
		answer(w, http.StatusCreated, one)
	case strings.HasSuffix(r.URL.Path, "/Accounts.json"):
		answer(w, http.StatusOK, object{"accounts": []object{one}, "page": 0, "page_size": 50, "next_page_uri": nil})
	default:
		answer(w, http.StatusOK, one)
	}
}

// listServices pages as the newer products do: by an absolute URL of the product's own host.
func (s *Set) listServices(w http.ResponseWriter, r *http.Request, a *account, sid string) {
	all := a.list("service")
	for i := range 3 {
		all = append(all, s.service(sid, "VA"+sid[2:33]+strconv.Itoa(i), a.Label+" "+strconv.Itoa(i+1)))
	}
	size := max(1, number(r, "PageSize", 50, 1000))
	page := number(r, "Page", 0, 1<<20)
	from := min(page*size, len(all))
	to := min(from+size, len(all))
	at := func(page int) string {
		q := "?PageSize=" + strconv.Itoa(size) + "&Page=" + strconv.Itoa(page)
		if page > 0 {
			q += "&PageToken=PT" + strconv.Itoa(page)
		}
		return "https://" + hostOf(r) + "/v2/Services" + q
	}
	meta := object{
		"key": "services", "page": page, "page_size": size, "url": "https://" + hostOf(r) + r.URL.RequestURI(),
		"first_page_url": at(0), "next_page_url": nil, "previous_page_url": nil,
	}
	if to < len(all) {
		meta["next_page_url"] = at(page + 1)
	}
	if page > 0 {
		meta["previous_page_url"] = at(page - 1)
	}
	answer(w, http.StatusOK, object{"services": all[from:to], "meta": meta})
}

func (s *Set) createService(w http.ResponseWriter, r *http.Request, a *account, sid string) {
	form, ok := formOf(r)
	if !ok || form.Get("FriendlyName") == "" {
		twilioError(w, http.StatusBadRequest, 60200, "Invalid parameter")
		return
	}
	v := s.service(sid, "VA"+hexID(32), form.Get("FriendlyName"))
	a.add("service", v)
	answer(w, http.StatusCreated, v)
}

func (s *Set) service(account, id, name string) object {
	now := s.opt.Now().UTC().Format(time.RFC3339)
	return object{
		"sid": id, "account_sid": account, "friendly_name": name, "code_length": 6, "lookup_enabled": false,
		"date_created": now, "date_updated": now, "url": "https://verify.twilio.com/v2/Services/" + id,
	}
}

func (s *Set) createVerification(w http.ResponseWriter, r *http.Request, _ *account, sid string) {
	form, ok := formOf(r)
	if !ok || form.Get("To") == "" || form.Get("Channel") == "" {
		twilioError(w, http.StatusBadRequest, 60200, "Invalid parameter")
		return
	}
	service := r.PathValue("service")
	id := "VE" + hexID(32)
	answer(w, http.StatusCreated, object{
		"sid": id, "service_sid": service, "account_sid": sid, "to": form.Get("To"), "channel": form.Get("Channel"),
		"status": "pending", "valid": false, "url": "https://verify.twilio.com/v2/Services/" + service + "/Verifications/" + id,
	})
}

// formOf reads a form body.
func formOf(r *http.Request) (url.Values, bool) {
	err := r.ParseForm()
	drain(r)
	return r.PostForm, err == nil
}

func twilioError(w http.ResponseWriter, status, code int, message string) {
	answer(w, status, object{
		"code": code, "message": message, "more_info": "https://www.twilio.com/docs/errors/" + strconv.Itoa(code), "status": status,
	})
}

func refuseTwilio(w http.ResponseWriter, r *http.Request, status int) {
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="Twilio API"`)
		twilioError(w, status, 20003, "Authenticate")
	case http.StatusNotFound:
		twilioError(w, status, 20404, "The requested resource "+r.URL.Path+" was not found")
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "1")
		twilioError(w, status, 20429, "Too Many Requests")
	default:
		twilioError(w, status, 20500, http.StatusText(status))
	}
}
