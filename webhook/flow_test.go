package webhook

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// asks wants an answer that the app gave.
func (w *world) asks(s sent) {
	w.t.Helper()
	if s.status != 200 || s.body != `{"assistantId":"from the app"}` {
		w.t.Errorf("answer is %d %q, want the app's\n%s", s.status, s.body, w.log)
	}
}

func (w *world) refuses(s sent, status int, code string) {
	w.t.Helper()
	if s.status != status || s.header.Get("Keyward-Error") != code || s.header.Get("Content-Type") != "application/problem+json" || s.header.Get("Keyward-Request-Id") == "" {
		w.t.Errorf("answer is %d %q %q, want %d %q", s.status, s.header.Get("Keyward-Error"), s.body, status, code)
	}
}

func request(typ, more string) string { return vapi(`"type":"` + typ + `"` + more) }

func TestMessageThatNeedsAnAnswer(t *testing.T) {
	w := newWorld(t)
	body := request("assistant-request", `,  "call":{"orgId":"`+vapiOrg+`","assistantId":"asst_acme","id":"c1"}`)
	w.asks(w.post("/webhooks/vapi?x=1%2F", body, acmeSecret, "X-Call-Id: c1", "keyward-org: globex", "Keyward_Org: globex", "KEYWARD-VERIFIED: no", "X-Hop: 1", "Connection: X-Hop"))
	head, got := w.app.last()
	if string(got) != body {
		t.Errorf("body changed:\n%s\n%s", got, body)
	}
	if !strings.HasPrefix(head, "POST /hooks?x=1%2F\n") {
		t.Errorf("the app was asked for\n%s", head)
	}
	for _, want := range []string{"Keyward-Org: acme\n", "Keyward-Assistant: asst_acme\n", "Keyward-Provider: vapi\n", "Keyward-Verified: true\n", "Keyward-Request-Id: ", "X-Call-Id: c1\n"} {
		if strings.Count(head, want) != 1 {
			t.Errorf("%q does not stand once in\n%s", want, head)
		}
	}
	for _, bad := range []string{"globex", "vapi_test", "Verified: no", "X-Hop", "Accept-Encoding", "User-Agent"} {
		if strings.Contains(head, bad) {
			t.Errorf("%q stands in\n%s", bad, head)
		}
	}
	if n := len(w.deliveries()); n != 0 {
		t.Errorf("%d deliveries were stored of a message that was answered", n)
	}
}

func TestEveryKindOfQuestion(t *testing.T) {
	w := newWorld(t)
	for i, typ := range []string{"assistant-request", "tool-calls", "function-call", "transfer-destination-request", "handoff-destination-request", "knowledge-base-request", "call.endpointing.request", "voice-request", "campaign.predial"} {
		w.asks(w.post("/webhooks/vapi/acme", request(typ, ""), acmeSecret))
		if w.app.count() != i+1 {
			t.Errorf("%s did not reach the app", typ)
		}
	}
}

func TestMessageThatNeedsNone(t *testing.T) {
	w := newWorld(t)
	body := request("end-of-call-report", `,"call":{"orgId":"`+vapiOrg+`","id":"c1"},"assistant":{"id":"asst_acme"}`)
	if s := w.post("/webhooks/vapi?q", body, acmeSecret, "X-Mine: 1"); s.status != 200 || s.header.Get("Keyward-Duplicate") != "" {
		t.Fatalf("%d %q", s.status, s.body)
	}
	all := w.deliveries()
	if len(all) != 1 {
		t.Fatalf("%d deliveries stored", len(all))
	}
	d := all[0]
	if d.Org != "acme" || d.Provider != "vapi" || d.Type != "end-of-call-report" || d.Assistant != "asst_acme" || d.Group != "vapi/acme/c1" ||
		d.Target != w.app.URL+"/hooks" || d.Method != "POST" || d.Path != "/webhooks/vapi" || d.RawQuery != "q" || string(d.Body) != body {
		t.Errorf("stored %+v", d)
	}
	header := string(d.Header)
	if strings.Contains(header, "vapi_test") || !strings.Contains(header, "X-Mine: 1\r\n") || !strings.Contains(header, "Keyward-Org: acme\r\n") || strings.Contains(header, "Content-Length") {
		t.Errorf("header is\n%s", header)
	}
	if w.app.count() != 0 {
		t.Error("the app was asked")
	}
	if s := w.post("/webhooks/vapi?q", body, acmeSecret); s.status != 200 || s.header.Get("Keyward-Duplicate") != "true" || len(w.deliveries()) != 1 {
		t.Errorf("a second time: %d %q", s.status, s.header)
	}
	w.setDown(true)
	w.refuses(w.post("/webhooks/vapi", request("hang", ""), acmeSecret), 401, "webhook_unverified") // names nobody
	s := w.post("/webhooks/vapi/acme", request("hang", ""), acmeSecret)
	w.refuses(s, 503, "store_unavailable")
	if s.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.refuses(w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret), 503, "store_unavailable")
	w.setDown(false)
	if s := w.post("/webhooks/vapi/acme", request("hang", ""), acmeSecret); s.status != 200 || s.header.Get("Keyward-Duplicate") != "" {
		t.Errorf("after the outage: %d %v", s.status, s.header)
	}
}

func TestReplayOfAnAnsweredMessage(t *testing.T) {
	w := newWorld(t)
	body := request("tool-calls", `,"n":1`)
	w.asks(w.post("/webhooks/vapi/acme", body, acmeSecret))
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
	w.refuses(w.post("/webhooks/vapi/acme?x", body, acmeSecret, "X-Other: 1"), 409, "replayed")
	if w.app.count() != 1 {
		t.Errorf("the app got %d", w.app.count())
	}
	// What was not answered is welcome again.
	body = request("tool-calls", `,"n":2`)
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) })
	if s := w.post("/webhooks/vapi/acme", body, acmeSecret); s.status != 503 || s.header.Get("Keyward-Error") != "" {
		t.Errorf("answer is %d %v, want the app's 503", s.status, s.header)
	}
	w.app.answers(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 502, "target_unreachable")
	w.app.answers(nil)
	w.asks(w.post("/webhooks/vapi/acme", body, acmeSecret))
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
}

func TestWhoseItIs(t *testing.T) {
	w := newWorld(t)
	call := func(members string) string { return request("tool-calls", `,"call":{`+members+`}`) }
	n := 0
	verified := func(target, body string, headers ...string) {
		t.Helper()
		n++
		body = strings.Replace(body, `"type"`, fmt.Sprintf(`"n":%d,"type"`, n), 1) // no replay
		w.asks(w.post(target, body, headers...))
		if head, _ := w.app.last(); !strings.Contains(head, "Keyward-Org: acme\n") {
			t.Errorf("%s: not acme's:\n%s", body, head)
		}
	}
	verified("/webhooks/vapi", call(`"assistantId":"asst_acme"`), acmeSecret)
	verified("/webhooks/vapi", call(`"assistantId":null,"orgId":"`+vapiOrg+`"`), acmeSecret)
	verified("/webhooks/vapi", call(`"assistantId":"unmapped","orgId":"`+strings.ToUpper(vapiOrg)+`"`), acmeSecret)
	verified("/webhooks/vapi", call(`"phoneNumberId":"`+phoneID+`"`), acmeSecret)
	verified("/webhooks/vapi", call(`"squad":{"members":[{"assistantId":"x"},{"assistant":{}},{"assistantId":"asst_acme"}]}`), acmeSecret)
	verified("/webhooks/vapi", request("tool-calls", `,"phoneNumber":{"id":"`+phoneID+`"}`), acmeSecret)
	verified("/webhooks/vapi", request("tool-calls", `,"assistant":{"id":"asst_acme","model":{"messages":[{"content":"{\"}"}]}}`), acmeSecret)
	verified("/webhooks/vapi", request("tool-calls", `,"chat":{"orgId":"`+vapiOrg+`"}`), acmeSecret)
	verified("/webhooks/vapi", request("tool-calls", `,"call":{"org\u0049d":"`+vapiOrg+`"},"message":{"call":{"orgId":"x"}}`), acmeSecret)
	verified("/webhooks/vapi/acme", call(`"assistantId":"unmapped"`), acmeSecret)
	verified("/webhooks/vapi", call(`"orgId":"`+vapiOrg+`","orgId":"`+vapiOrg+`"`), acmeSecret) // twice the same

	for name, s := range map[string]sent{
		"nobody's assistant":          w.post("/webhooks/vapi", call(`"assistantId":"unmapped"`), acmeSecret),
		"no id at all":                w.post("/webhooks/vapi", request("tool-calls", ""), acmeSecret),
		"wrong secret":                w.post("/webhooks/vapi", call(`"assistantId":"asst_acme"`), "X-Vapi-Secret: nope"),
		"another org's secret":        w.post("/webhooks/vapi", call(`"assistantId":"asst_acme"`), "X-Vapi-Secret: globex_secret"),
		"no secret":                   w.post("/webhooks/vapi", call(`"assistantId":"asst_acme"`)),
		"unknown org in the path":     w.post("/webhooks/vapi/nobody", request("tool-calls", ""), acmeSecret),
		"malformed org in the path":   w.post("/webhooks/vapi/%61cme", request("tool-calls", ""), acmeSecret),
		"the placeholder's org":       w.post("/webhooks/vapi/-", request("tool-calls", ""), acmeSecret),
		"two owners":                  w.post("/webhooks/vapi", call(`"orgId":"`+vapiOrg+`","assistantId":"asst_globex"`), acmeSecret),
		"two owners, theirs first":    w.post("/webhooks/vapi", call(`"orgId":"`+vapiOrg2+`","assistantId":"asst_acme"`), acmeSecret),
		"path and assistant disagree": w.post("/webhooks/vapi/acme", call(`"assistantId":"asst_globex"`), acmeSecret),
		"path and orgId disagree":     w.post("/webhooks/vapi/acme", call(`"orgId":"`+vapiOrg2+`"`), acmeSecret),
		"a squad of two orgs":         w.post("/webhooks/vapi/acme", call(`"squad":{"members":[{"assistantId":"asst_acme"},{"assistantId":"asst_globex"}]}`), acmeSecret),
		"key twice":                   w.post("/webhooks/vapi", call(`"orgId":"`+vapiOrg+`","orgId":"`+vapiOrg2+`"`), acmeSecret),
		"key twice, org in the path":  w.post("/webhooks/vapi/acme", call(`"orgId":"`+vapiOrg+`","orgId":"x"`), acmeSecret),
		"object twice":                w.post("/webhooks/vapi", `{"message":{"type":"tool-calls"},"message":{"call":{"orgId":"`+vapiOrg+`"}}}`, acmeSecret),
		"id of the wrong type":        w.post("/webhooks/vapi/acme", call(`"orgId":5`), acmeSecret),
		"id that is an object":        w.post("/webhooks/vapi/acme", call(`"orgId":{"orgId":"`+vapiOrg+`"}`), acmeSecret),
		"id of an odd kind":           w.post("/webhooks/vapi", call(`"orgId":["`+vapiOrg+`"]`), acmeSecret),
		"not JSON":                    w.post("/webhooks/vapi", `{"message":{"call":{"orgId":"`+vapiOrg+`"}}`, acmeSecret),
		"something behind the JSON":   w.post("/webhooks/vapi", call(`"orgId":"`+vapiOrg+`"`)+"x", acmeSecret),
		"no body":                     w.post("/webhooks/vapi", "", acmeSecret),
		"nested too deep":             w.post("/webhooks/vapi/acme", request("tool-calls", `,"x":`+strings.Repeat("[", 100000)), acmeSecret),
		"NUL in an id":                w.post("/webhooks/vapi", call(`"assistantId":"\u0000"`), acmeSecret),
	} {
		if s.status != 401 || s.header.Get("Keyward-Error") != "webhook_unverified" {
			t.Errorf("%s: answer is %d %s", name, s.status, s.body)
		}
	}
	if w.app.count() != n {
		t.Errorf("the app got %d messages, want %d", w.app.count(), n)
	}
	if log := w.log.String(); strings.Contains(log, "vapi_test") || !strings.Contains(log, `"reason":"an assistant in the payload belongs to another org"`) {
		t.Errorf("log:\n%s", log)
	}
}

func TestRefusalsAreAlike(t *testing.T) {
	w := newWorld(t)
	plain := func(s sent) string {
		id := s.header.Get("Keyward-Request-Id")
		s.header.Del("Keyward-Request-Id")
		s.header.Del("Date")
		return fmt.Sprint(s.status, s.header, strings.ReplaceAll(s.body, id, ""))
	}
	body := request("tool-calls", `,"call":{"orgId":"`+vapiOrg+`"}`)
	want := plain(w.post("/webhooks/vapi", body, "X-Vapi-Secret: nope"))
	for name, got := range map[string]string{
		"unknown org":     plain(w.post("/webhooks/vapi/nobody", body, acmeSecret)),
		"no header":       plain(w.post("/webhooks/vapi", body)),
		"disagreeing org": plain(w.post("/webhooks/vapi/globex", body, "X-Vapi-Secret: globex_secret")),
		"disabled org": func() string {
			if _, err := w.db.SetActive(t.Context(), by, store.Ref{Org: "acme", Provider: "vapi"}, false, 0); err != nil {
				t.Fatal(err)
			}
			return plain(w.post("/webhooks/vapi", body, acmeSecret))
		}(),
	} {
		if got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
}

func TestTwilioWebhook(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/xml")
		_, _ = rw.Write([]byte("<Response><Say>hi</Say></Response>"))
	})
	signed := func(token, url, body string) []string {
		f, _ := parseForm([]byte(body))
		return []string{form, "X-Twilio-Signature: " + string(inBase64(mac(algorithms["sha1"], []byte(token), []byte(url), joinParams(f))))}
	}
	body := "AccountSid=" + acmeSID + "&CallSid=CA1&CallStatus=ringing&From=%2B1555&To=%2B1556"
	s := w.post("/webhooks/twilio?a=b", body, signed("12345", "https://hooks.example/webhooks/twilio?a=b", body)...)
	if s.status != 200 || s.body != "<Response><Say>hi</Say></Response>" || s.header.Get("Content-Type") != "text/xml" {
		t.Errorf("%d %q %v\n%s", s.status, s.body, s.header, w.log)
	}
	head, got := w.app.last()
	if string(got) != body || !strings.Contains(head, "X-Twilio-Signature: ") || !strings.Contains(head, "Keyward-Org: acme\n") {
		t.Errorf("the app got\n%s%s", head, got)
	}
	foreign := strings.ReplaceAll(body, acmeSID, otherSID)
	w.refuses(w.post("/webhooks/twilio", foreign, signed("12345", "https://hooks.example/webhooks/twilio", foreign)...), 401, "webhook_unverified")
	w.refuses(w.post("/webhooks/twilio/acme", foreign, signed("12345", "https://hooks.example/webhooks/twilio/acme", foreign)...), 401, "webhook_unverified")
	twice := body + "&AccountSid=" + otherSID
	w.refuses(w.post("/webhooks/twilio/acme", twice, signed("12345", "https://hooks.example/webhooks/twilio/acme", twice)...), 401, "webhook_unverified")
	// A body that the signature does not cover.
	w.refuses(w.post("/webhooks/twilio/acme", "evil=1", "X-Twilio-Signature: "+string(inBase64(mac(algorithms["sha1"], []byte("12345"), []byte("https://hooks.example/webhooks/twilio/acme"))))), 401, "webhook_unverified")
	// The second of two equal key presses is no replay, the same request is one.
	pressed := body + "&Digits=1"
	sig := signed("12345", "https://hooks.example/webhooks/twilio/acme", pressed)
	for _, id := range []string{"1", "2"} {
		if s := w.post("/webhooks/twilio/acme", pressed, append(sig, "I-Twilio-Idempotency-Token: "+id)...); s.status != 200 {
			t.Errorf("key press %s: %d", id, s.status)
		}
	}
	w.refuses(w.post("/webhooks/twilio/acme", pressed, append(sig, "I-Twilio-Idempotency-Token: 2")...), 409, "replayed")
}

func TestOtherProviders(t *testing.T) {
	w := newWorld(t)
	w.now = time.Unix(1739537297, 0)
	eleven := `{"type":"post_call_transcription","event_timestamp":1739537297,"data":{"agent_id":"xyz","conversation_id":"abc"}}`
	sig := "ElevenLabs-Signature: t=1739537297,v0=3c1759532b83d15efcd752edb7579aa6ee8a260d8a5cfc29a3fa93435bcc4d73"
	accepted := func(s sent) {
		t.Helper()
		if s.status != 200 || s.header.Get("Keyward-Duplicate") != "" {
			t.Errorf("%d %s\n%s", s.status, s.body, w.log)
		}
	}
	accepted(w.post("/webhooks/elevenlabs", eleven, sig))
	w.refuses(w.post("/webhooks/elevenlabs", strings.Replace(eleven, "xyz", "their_agent", 1), sig), 401, "webhook_unverified")
	w.now = time.Unix(1614265330, 0)
	svix := []string{"svix-id: msg_p5jXN8AQM9LWM0D4loKWxJek", "svix-timestamp: 1614265330", "svix-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
	accepted(w.post("/webhooks/resend/acme", `{"test": 2432232314}`, svix...))
	w.now = time.Now()
	google := []string{"X-Goog-Channel-Token: channel-token-acme", "X-Goog-Channel-ID: ch", "X-Goog-Message-Number: 1", "X-Goog-Resource-State: sync"}
	accepted(w.post("/webhooks/google_calendar/acme", "", google...))
	accepted(w.post("/webhooks/google-calendar/acme", "", google[0], google[1], "X-Goog-Message-Number: 2"))
	if s := w.post("/webhooks/google_calendar/acme", "", google...); s.header.Get("Keyward-Duplicate") != "true" {
		t.Errorf("a second time: %d %v", s.status, s.header)
	}
	for _, d := range w.deliveries() {
		if strings.Contains(string(d.Header), "channel-token-acme") {
			t.Error("the channel's token would reach the app")
		}
	}
	w.refuses(w.post("/webhooks/google_calendar/acme", "", "X-Goog-Channel-Token: other", google[1], google[2]), 401, "webhook_unverified")
	w.refuses(w.post("/webhooks/google_calendar/globex", "", google...), 401, "webhook_unverified")
}

func TestPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/webhooks", "/webhooks/", "/webhooks/vapi/", "/webhooks/vapi/acme/", "/webhooks/vapi/acme/x", "/webhooks/nosuch", "/webhooks/resend", "/webhooks/google_calendar", "/Webhooks/vapi", "//webhooks/vapi", "/webhooks/../webhooks/vapi", "/healthz"} {
		w.refuses(w.post(path, "{}", acmeSecret), 404, "not_found")
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS"} {
		s := w.raw(method + " /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\n\r\n")
		w.refuses(s, 405, "method_not_allowed")
		if s.header.Get("Allow") != "POST" {
			t.Error("no Allow")
		}
	}
	for _, head := range []string{
		"POST /webhooks/vapi/acme HTTP/1.1\r\n\r\n",
		"POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /webhooks/vapi/acme?a b HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /webhooks/vapi/acme?\x01 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
	} {
		if s := w.raw(head); s.status != 400 {
			t.Errorf("%q: %d", head, s.status)
		}
	}
	if s := w.raw("POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\n" + acmeSecret + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2\r\n1}\r\n0\r\nKeyward-Org: globex\r\n\r\n"); s.status != 200 || len(w.deliveries()) != 1 || string(w.deliveries()[0].Body) != `{"a":1}` || strings.Contains(string(w.deliveries()[0].Header), "globex") {
		t.Errorf("chunked: %d %s", s.status, s.body)
	}
}

func TestBodies(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxBody = 1 << 20 })
	long := func(n int) string {
		body := request("transcript", `,"call":{"orgId":"`+vapiOrg+`"},"x":"`)
		return body[:len(body)-2] + strings.Repeat("x", n-len(body)-1) + `"}}`
	}
	body := long(1 << 20)
	if s := w.post("/webhooks/vapi", body, acmeSecret, "X-Tag: a"); s.status != 200 {
		t.Fatalf("a body of the limit: %d %s", s.status, s.body)
	}
	d := w.deliveries()[0]
	if string(d.Body) != body || !strings.Contains(string(d.Header), "X-Tag: a\r\n") {
		t.Error("a long body was changed")
	}
	w.refuses(w.post("/webhooks/vapi", long(1<<20+1), acmeSecret), 413, "body_too_large")
	w.refuses(w.post("/webhooks/vapi", long(8<<20), acmeSecret), 413, "body_too_large")
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<19, strings.Repeat("y", 1<<19))
	w.refuses(w.raw("POST /webhooks/vapi HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat(chunk, 3)+"0\r\n\r\n"), 413, "body_too_large")
	w.refuses(w.raw("POST /webhooks/vapi HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"), 413, "body_too_large")
	if w.s.memory.TryAcquire(bodiesAtOnce << 20) {
		w.s.memory.Release(bodiesAtOnce << 20)
	} else {
		t.Error("memory for bodies was not given back")
	}
}

func TestRoutes(t *testing.T) {
	other, sms := newApp(t), newApp(t)
	socket := filepath.Join(t.TempDir(), "app.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := newApp(t)
	srv := &http.Server{Handler: http.HandlerFunc(local.serve)}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	w := newWorld(t, func(o *Options) {
		o.Routes = append(o.Routes,
			Route{Provider: "vapi", Target: other.URL},
			Route{Org: "acme", Target: "unix:" + socket + ":/local?k=v"},
			Route{Provider: "vapi", Org: "globex", Target: sms.URL + "/x", Mode: Durable},
			Route{Provider: "resend", Org: "acme", Target: other.URL + "/mail", Mode: Sync})
	})
	w.asks(w.post("/webhooks/vapi/acme?a=b", request("tool-calls", ""), acmeSecret))
	if head, _ := local.last(); !strings.HasPrefix(head, "POST /local?k=v&a=b\n") {
		t.Errorf("over the socket came\n%s", head)
	}
	if s := w.post("/webhooks/vapi/globex", request("tool-calls", ""), "X-Vapi-Secret: globex_secret"); s.status != 200 || sms.count() != 0 || len(w.deliveries()) != 1 || w.deliveries()[0].Target != sms.URL+"/x" {
		t.Errorf("durable by its route: %d %s", s.status, s.body)
	}
	w.now = time.Unix(1614265330, 0)
	w.asks(w.post("/webhooks/resend/acme", `{"test": 2432232314}`, "svix-id: msg_p5jXN8AQM9LWM0D4loKWxJek", "svix-timestamp: 1614265330", "svix-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="))
	if head, _ := other.last(); !strings.HasPrefix(head, "POST /mail\n") {
		t.Errorf("sync by its route came\n%s", head)
	}
	if err := w.s.SetRoutes(nil); err != nil {
		t.Fatal(err)
	}
	w.refuses(w.post("/webhooks/vapi/acme", request("tool-calls", `,"n":2`), acmeSecret), 503, "no_target")
}

// A connection on which nothing was asked ends without a word; one that began to ask is told.
func TestNothingAskedIsNotAnswered(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.HeadTimeout = 700 * time.Millisecond })
	for sent, want := range map[string]string{"": "", "P": "HTTP/1.1 408 "} {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, sent)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 {
			t.Errorf("after %q: %q, %v", sent, got, err)
		}
		_ = c.Close()
	}
	if n := w.s.Stats().Refused.Load(); n != 1 {
		t.Errorf("%d refused, not the one that had begun", n)
	}
}
