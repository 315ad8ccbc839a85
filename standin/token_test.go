package standin_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/standin"
)

const calendars = "GET www.googleapis.com/calendar/v3/users/me/calendarList"

func TestAccessTokensEnd(t *testing.T) {
	var later atomic.Int64
	g := start(t, standin.Options{TokenLife: time.Minute, Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	status := func(auth string) int {
		res, _ := g.call(calendars, "", auth)
		return res.StatusCode
	}
	first := g.auth("acme", standin.GoogleCalendar)
	if status(first) != 200 {
		t.Error("a new access token is refused")
	}
	g.ExpireTokens("acme")
	if status(first) != 401 {
		t.Error("an access token is good after ExpireTokens")
	}
	second := g.auth("acme", standin.GoogleCalendar)
	later.Store(int64(time.Minute))
	if status(second) != 401 {
		t.Error("an access token is good after its life")
	}
	if n := len(g.AccessTokens("acme")); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	g := start(t, standin.Options{RotateRefresh: true})
	old := fields("acme", standin.GoogleCalendar)["refresh_token"]
	_, body := g.token("acme", old)
	next, _ := decode(t, body)["refresh_token"].(string)
	if next == "" || next == old || next != g.RefreshToken("acme") {
		t.Fatalf("rotated to %q, good is %q", next, g.RefreshToken("acme"))
	}
	if res, body := g.token("acme", old); res.StatusCode != 400 || decode(t, body)["error"] != "invalid_grant" {
		t.Errorf("the old one: %d %s", res.StatusCode, body)
	}
	if res, body := g.token("acme", next); res.StatusCode != 200 {
		t.Errorf("the new one: %d %s", res.StatusCode, body)
	}
}

func TestTheTokenEndpointRefuses(t *testing.T) {
	g := start(t, standin.Options{})
	if res, body := g.token("globex", g.RefreshToken("acme")); res.StatusCode != 401 || !strings.Contains(body, "invalid_client") {
		t.Errorf("another client: %d %s", res.StatusCode, body)
	}
	old := g.RefreshToken("acme")
	g.Revoke("acme")
	if res, body := g.token("acme", old); res.StatusCode != 400 || !strings.Contains(body, "invalid_grant") {
		t.Errorf("a revoked token: %d %s", res.StatusCode, body)
	}
}
