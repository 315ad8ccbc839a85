package provider

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"
)

const consent = `{"client_id":"id.apps.googleusercontent.com","client_secret":"GOCSPX-a+b","refresh_token":"1//0&x=%20"}`

func TestGoogleInjectsTheExchangedToken(t *testing.T) {
	r := &Request{Path: []byte("/calendar/v3/users/me/calendarList"), Token: []byte("ya29.a")}
	if err := GoogleCalendar.Inject(r, opened(t, &GoogleCalendar, consent)); err != nil || string(r.Value) != "Bearer ya29.a" || r.Header != "Authorization" {
		t.Errorf("got %s: %s, %v", r.Header, r.Value, err)
	}
}

func TestGoogleTokenRequest(t *testing.T) {
	x := GoogleCalendar.Exchange
	form, err := url.ParseQuery(string(x.Form(nil, opened(t, &GoogleCalendar, consent))))
	want := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {"1//0&x=%20"}, "client_id": {"id.apps.googleusercontent.com"}, "client_secret": {"GOCSPX-a+b"},
	}
	if err != nil || form.Encode() != want.Encode() || x.Host+x.Path != "oauth2.googleapis.com/token" {
		t.Errorf("got %v, %v to %s%s", form, err, x.Host, x.Path)
	}
}

func TestGoogleTokenRequestStaysInOneMemory(t *testing.T) {
	dst := make([]byte, 0, 48)
	before := dst[:cap(dst)]
	if form := GoogleCalendar.Exchange.Form(dst, opened(t, &GoogleCalendar, consent)); len(form) < len(before) {
		t.Fatal("too short to tell")
	}
	for _, c := range before {
		if c != 0 {
			t.Fatalf("a part of the form stayed behind: %q", before)
		}
	}
}

func TestGoogleTokenAnswer(t *testing.T) {
	is := func(status int, body, want string) {
		t.Helper()
		token, err := GoogleCalendar.Exchange.Read(status, []byte(body))
		got := fmt.Sprintf("%s %s %s", token.Access, token.Refresh, token.Life)
		switch {
		case errors.Is(err, ErrRejected):
			got = "rejected: " + err.Error()
		case err != nil:
			got = "error: " + err.Error()
		}
		if got != want {
			t.Errorf("%d %s\ngot  %s\nwant %s", status, body, got, want)
		}
	}
	is(200, `{"access_token":"ya29.a","expires_in":3599,"scope":"s","token_type":"Bearer"}`, "ya29.a  59m59s")
	is(200, `{"access_token":"ya29.a","expires_in":"60","refresh_token":"1//1","token_type":"bearer","id_token":"x"}`, "ya29.a 1//1 1m0s")
	is(200, `{"access_token":"ya29.\u0061\/","expires_in":3599}`, "ya29.a/  59m59s")
	is(200, `{"access_token":"ya29.a"}`, "ya29.a  5m0s")
	is(200, `{"access_token":"ya29.a","expires_in":-1}`, "ya29.a  5m0s")
	is(200, `{"access_token":"ya29.a","expires_in":99999999999999}`, "ya29.a  24h0m0s")

	is(400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`, "rejected: provider no longer honours the credential: invalid_grant")
	is(401, `{"error":"invalid_client","error_description":"The OAuth client was not found."}`, "rejected: provider no longer honours the credential: invalid_client")

	is(400, `{"error":"invalid_request"}`, "error: token endpoint gave no token: status 400")
	is(400, `{"error":{"status":"INVALID_ARGUMENT"}}`, "error: token endpoint gave no token: status 400")
	is(429, `{"error":"rate_limit_exceeded"}`, "error: token endpoint gave no token: status 429")
	is(500, `{"error":"invalid_grant"}`, "error: token endpoint gave no token: status 500") // its own trouble, not the credential's
	is(503, `<html>ya29.x</html>`, "error: token endpoint gave no token: status 503 and no JSON that is known")
	is(200, ``, "error: token endpoint gave no token: status 200 and no JSON that is known")
	is(200, `{}`, "error: token endpoint gave no token: status 200")
	is(200, `{"access_token":""}`, "error: token endpoint gave no token: status 200")
	is(200, `{"access_token":5}`, "error: token endpoint gave no token: status 200 and no JSON that is known")
	is(200, `{"access_token":"a\r\nX: y"}`, "error: token endpoint gave no token: status 200") // no header of its own
	is(200, `{"access_token":"ya29.a","token_type":"MAC"}`, "error: token endpoint gave no token: status 200")
	is(201, `{"access_token":"ya29.a"}`, "error: token endpoint gave no token: status 201")
}

func TestGoogleTokensAreNotTheBodys(t *testing.T) {
	body := []byte(`{"access_token":"ya29.a","refresh_token":"1//1"}`)
	token, err := GoogleCalendar.Exchange.Read(200, body)
	clear(body) // as the proxy does
	if err != nil || string(token.Access) != "ya29.a" || string(token.Refresh) != "1//1" || token.Life != 5*time.Minute {
		t.Errorf("got %q %q, %v", token.Access, token.Refresh, err)
	}
}
