// Package console is the web console on --admin-listen: what an operator, or the person who keeps one org, sees and does in a browser.
//
// It is a client of the admin API and nothing else. A person logs in with an admin token; each page asks the API with that token, in
// process and on the browser's own connection, and shows the answer. So what the console may see and do, how secrets are masked, what is
// checked and what the audit log says are decided in one place. The package imports none of ours: the API is an http.Handler to it.
//
// Pages are made here, by html/template, and work without the script: that only keeps the numbers moving (live.go). Everything is
// embedded, nothing is inline, no other host is named; the Content-Security-Policy holds the browser to it.
package console

import (
	"embed"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"
)

//go:embed assets
var assets embed.FS

// Options are what the console works on.
type Options struct {
	// API answers as the admin API does. It gets the browser's connection in the context, and the token in Authorization.
	API http.Handler
	Log zerolog.Logger
	// Titles are the providers' names as people write them, by their names in the API. One that is not there is shown as the API has it.
	Titles map[string]string
	// Open is an admin token that lets in whoever comes without a session: for a first try with made-up credentials, on loopback. Nil or
	// empty: nobody gets in without a token.
	Open func() string
	// Stop ends the live streams when it is closed, so that nobody waits for them. Nil: never.
	Stop <-chan struct{}
}

// A Console is an http.Handler.
type Console struct {
	o        Options
	mux      *http.ServeMux
	sessions *sessions
	streams  chan struct{} // full: no more live streams
}

// maxStreams is how many pages are kept live at once; the others show what was when they were opened.
const maxStreams = 32

// New makes the console.
func New(o Options) *Console {
	c := &Console{o: o, mux: http.NewServeMux(), sessions: newSessions(), streams: make(chan struct{}, maxStreams)}
	open := map[string]func(*Console, *visit) error{
		"GET /login":  (*Console).showLogin,
		"POST /login": (*Console).login,
	}
	for pattern, h := range open {
		c.mux.HandleFunc(pattern, c.handle(h, false))
	}
	for pattern, h := range pages() {
		c.mux.HandleFunc(pattern, c.handle(h, true))
	}
	c.mux.HandleFunc("GET /assets/{name}", c.asset)
	return c
}

// pages is everything that a person must be logged in for.
func pages() map[string]func(*Console, *visit) error {
	const (
		org         = "/orgs/{org}"
		integration = org + "/integrations/{provider}"
		agent       = org + "/agents/{role}"
		assistant   = org + "/assistants/{assistant}"
		delivery    = "/webhooks/{delivery}"
	)
	return map[string]func(*Console, *visit) error{
		"GET /{$}":     (*Console).overview,
		"GET /live":    (*Console).live,
		"POST /logout": (*Console).logout,
		"GET /orgs":    (*Console).orgs,

		"GET " + org:                       (*Console).org,
		"GET " + integration:               (*Console).editIntegration,
		"POST " + integration:              (*Console).saveIntegration,
		"GET " + integration + "/delete":   (*Console).askDeleteIntegration,
		"POST " + integration + "/delete":  (*Console).deleteIntegration,
		"POST " + integration + "/verify":  (*Console).verifyIntegration,
		"POST " + integration + "/enable":  (*Console).enableIntegration,
		"POST " + integration + "/disable": (*Console).disableIntegration,
		"POST " + integration + "/promote": (*Console).promoteIntegration,
		"POST " + integration + "/unstage": (*Console).unstageIntegration,
		"POST " + integration + "/webhook": (*Console).testWebhook,
		"GET " + integration + "/connect":  (*Console).connect,
		"POST " + org + "/assistants":      (*Console).mapAssistant,
		"GET " + assistant + "/delete":     (*Console).askUnmapAssistant,
		"POST " + assistant + "/delete":    (*Console).unmapAssistant,
		"GET " + agent:                     (*Console).editAgent,
		"POST " + agent:                    (*Console).saveAgent,
		"POST " + agent + "/ensure":        (*Console).ensureAssistant,
		"GET " + agent + "/delete":         (*Console).askDeleteAgent,
		"POST " + agent + "/delete":        (*Console).deleteAgent,
		"GET /webhooks":                    (*Console).webhooks,
		"GET " + delivery:                  (*Console).delivery,
		"POST " + delivery + "/redeliver":  (*Console).redeliver,
		"GET /access":                      (*Console).access,
		"POST /access/callers":             (*Console).addCaller,
		"POST /access/tokens":              (*Console).addToken,
		"GET /access/callers/{id}/revoke":  (*Console).askRevokeCaller,
		"POST /access/callers/{id}/revoke": (*Console).revokeCaller,
		"GET /access/tokens/{id}/revoke":   (*Console).askRevokeToken,
		"POST /access/tokens/{id}/revoke":  (*Console).revokeToken,
		"GET /audit":                       (*Console).audit,
		"GET /audit.jsonl":                 (*Console).exportAudit,
		"/":                                (*Console).nowhere,
	}
}

// policy is what a page of the console may do: show what this host serves, send forms to this host, and no more. Google's consent is
// reached by a link, which needs no permission.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP answers one request of a browser.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // without any, a form's Origin would be null
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Cache-Control", "no-store")
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint // it is compared so by net/http too
			panic(p)
		}
		// The value may hold anything, so only its type and the stack are told.
		c.o.Log.Error().Str("panic", fmt.Sprintf("%T", p)).Bytes("stack", debug.Stack()).Msg("console request panicked")
		w.WriteHeader(http.StatusInternalServerError)
	}()
	c.mux.ServeHTTP(w, r)
}

// asset serves what pages are made with. Its name holds the version of all of them, so that a browser may keep it and never shows an old one.
func (c *Console) asset(w http.ResponseWriter, r *http.Request) {
	served, _ := named()
	name, ok := served[r.PathValue("name")]
	if !ok {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	b, err := assets.ReadFile("assets/" + name)
	if err != nil {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	kind := map[string]string{"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
	w.Header().Set("Content-Type", kind[name[strings.LastIndexByte(name, '.')+1:]])
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	_, _ = w.Write(b) // the browser is gone: nobody to tell
}
