package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// callbackPath is where browsers come back to from Google. They come from another site and without a token: what proves that the consent is
// one that was asked for is the state that they bring, sealed by us.
const callbackPath = "/api/oauth/google/callback"

// consentCookie ties a consent to the browser that it was begun in, where that is known: a browser that navigated to connect itself. An
// app's backend, which hands the URL on to somebody's browser, is no such thing.
const consentCookie = "__Host-keyward-consent"

// A started consent is where to send the browser.
type startedConsent struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"`
}

func (a *API) connectIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if a.o.Consents == nil {
		return &Problem{Status: http.StatusNotImplemented, Code: "not_available", Detail: "this sidecar cannot ask for a consent"}
	}
	browser := ""
	if c.r.Header.Get("Sec-Fetch-Mode") == "navigate" {
		browser = rand.Text()
	}
	s, err := a.o.Consents.Begin(c.r.Context(), c.by, c.who.tokenID, ref, browser)
	if err != nil {
		return err
	}
	if browser != "" {
		c.setCookie(browser, time.Until(s.Ends))
	}
	code := http.StatusOK
	if !accepts(c.r, "application/json") {
		c.w.Header().Set("Location", s.URL)
		code = http.StatusFound
	}
	return c.json(code, startedConsent{s.URL, s.Ends.UTC()})
}

// setCookie keeps the browser's secret with it until the consent is over. Lax: it comes back by a navigation from another site.
func (c *call) setCookie(secret string, life time.Duration) {
	age := int(life.Seconds())
	if secret == "" {
		age = -1
	}
	http.SetCookie(c.w, &http.Cookie{
		Name: consentCookie, Value: secret, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// accepts says whether the client names the media type, among others or alone.
func accepts(r *http.Request, kind string) bool {
	for one := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		name, _, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), kind) {
			return true
		}
	}
	return false
}

// A connected org is what a finished consent answers: whoever finishes it in a browser is not therefore an admin, who may see more.
type connected struct {
	Org          string `json:"org"`
	Provider     string `json:"provider"`
	Status       string `json:"status"`       // "connected"
	Verification string `json:"verification"` // valid, or valid_restricted: the person left something out
	Version      int64  `json:"version"`
}

func (a *API) finishConsent(c *call) error {
	if c.r.Method != http.MethodGet { // HEAD would use it up
		c.w.Header().Set("Allow", http.MethodGet)
		return problemMethod
	}
	done, err := a.finish(c)
	if len(c.r.CookiesNamed(consentCookie)) > 0 {
		c.setCookie("", 0)
	}
	if err == nil && !accepts(c.r, "text/html") && a.o.ConsentReturn == "" {
		return c.json(http.StatusOK, done)
	}
	if !accepts(c.r, "text/html") && a.o.ConsentReturn == "" {
		return err
	}
	return a.tellBrowser(c, done, err)
}

// finish reads what the provider had the browser bring, and makes the org's credential of it. Google adds parameters of its own, and may
// add others, so that no parameter is refused here.
func (a *API) finish(c *call) (connected, error) {
	if a.o.Consents == nil {
		return connected{}, problemNoRoute
	}
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return connected{}, badRequest("the query is malformed")
	}
	for _, name := range []string{"state", "code", "error", "iss"} {
		if len(q[name]) > 1 {
			return connected{}, badField(name, "stands twice")
		}
	}
	switch {
	case !q.Has("state"):
		return connected{}, badField("state", "is missing")
	case !q.Has("code") && !q.Has("error"):
		return connected{}, badField("code", "is missing")
	}
	answer := credential.Answer{State: q.Get("state"), Code: q.Get("code"), Error: q.Get("error"), Issuer: q.Get("iss")}
	if cookie, err := c.r.Cookie(consentCookie); err == nil {
		answer.Browser = cookie.Value
	}
	ref, row, err := a.o.Consents.Finish(c.r.Context(), answer, c.by.From, a.mayStill)
	if err != nil {
		return connected{Org: ref.Org, Provider: ref.Provider}, err
	}
	return connected{ref.Org, ref.Provider, "connected", row.Verification, row.Version}, nil
}

// mayStill says whether the admin token that a consent was begun with may still change the org: it may be revoked by now.
func (a *API) mayStill(ctx context.Context, org, token string) error {
	if token == "" { // the peer of the admin socket
		return nil
	}
	row, err := a.o.DB.AdminTokenByID(ctx, token)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problemConsentUnknown
	case err != nil:
		return err
	case !(identity{org: row.Org}).reaches(org):
		return problemConsentUnknown
	}
	return nil
}

var (
	problemConsentUnknown = &Problem{Status: http.StatusBadRequest, Code: "consent_unknown", Detail: "this consent is not one that is waited for: it took longer than ten minutes, was finished before, began in another browser, or who began it may no longer; begin again"}
	problemConsentDenied  = &Problem{Status: http.StatusForbidden, Code: "consent_denied", Detail: "the consent was refused; nothing was changed"}
	problemConsentCode    = &Problem{Status: http.StatusBadRequest, Code: "consent_refused", Detail: "Google does not take the code that the browser came back with; nothing was changed: begin again"}
	problemConsentGrant   = &Problem{Status: http.StatusUnprocessableEntity, Code: "consent_insufficient", Detail: "the consent does not cover the calendar, or not while nobody is there; nothing was changed: begin again, and leave everything ticked"}
	problemNoClient       = &Problem{Status: http.StatusConflict, Code: "oauth_client_missing", Detail: "there is no OAuth client to ask with: start the sidecar with --google-client-id and --google-client-secret-file, or put the org's own client_id and client_secret"}
	problemNoRedirect     = &Problem{Status: http.StatusConflict, Code: "oauth_redirect_missing", Detail: "browsers have nowhere to come back to: start the sidecar with --google-redirect-url or with --admin-listen"}
	problemNoConsent      = missing("this provider's credentials are keys: there is nothing to connect")
)

// rejectedClient is the problem of an OAuth client that the provider does not take. Its reason is one of the verdicts', written by us.
func rejectedClient(e *provider.RejectedError) *Problem {
	return &Problem{Status: http.StatusFailedDependency, Code: "credential_rejected", Detail: "nothing was changed: " + e.Verdict().Reason}
}

// unanswered is the problem of a provider that did not answer.
func unanswered(e *provider.NoAnswerError) *Problem {
	p := &Problem{Status: http.StatusBadGateway, Code: e.Code, Detail: "nothing was changed: " + e.Detail}
	if e.Code == "upstream_timeout" {
		p.Status = http.StatusGatewayTimeout
	}
	return p
}

// consentPage is all that a person sees who has no page of the app's to come back to. It loads nothing.
var consentPage = template.Must(template.New("consent").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>{{.Title}}</title><main><h1>{{.Title}}</h1><p>{{.Text}}</p></main></html>
`))

// tellBrowser answers a person: at the app's page, if there is one, else in words.
func (a *API) tellBrowser(c *call, done connected, err error) error {
	outcome, code := "connected", http.StatusOK
	page := struct{ Title, Text string }{"Connected", "Google Calendar is connected for " + done.Org + ". You can close this window."}
	if err != nil {
		p := problemFor(err)
		if p.Status == http.StatusInternalServerError {
			return err
		}
		outcome, code = p.Code, p.Status
		page.Title, page.Text = "Not connected", p.Detail
		c.w.Header().Set("Keyward-Error", p.Code)
	}
	if a.o.ConsentReturn != "" {
		back, err := url.Parse(a.o.ConsentReturn)
		if err != nil {
			return err
		}
		q := back.Query()
		q.Set("outcome", outcome)
		if done.Org != "" {
			q.Set("org", done.Org)
			q.Set("provider", done.Provider)
		}
		back.RawQuery = q.Encode()
		c.w.Header().Set("Location", back.String())
		c.status(http.StatusSeeOther)
		return nil
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Referrer-Policy", "no-referrer") // the URL has the code
	c.status(code)
	_ = consentPage.Execute(c.w, page) // the browser is gone: nobody to tell
	return nil
}
