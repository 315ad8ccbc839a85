// Package admin is the management API: who has which credential, masked; assistants, callers' tokens, the audit log, and whether the
// sidecar is well.
//
// It is net/http with one table of routes, described in openapi.json. On the unix socket the kernel says who calls (SO_PEERCRED,
// unix(7)), and only root and the sidecar's own user are let in. Over TCP an admin token says so: an operator's, or one that is bound to
// an org, to which all others look as if they were not there. A secret goes in and never comes out: answers show the masked fields of
// the provider's table. Every write is audited in its own transaction by the store; every look at a credential, and every write that was
// refused, by us.
//
// A handler reads the request and writes the answer; what is done in between is a method of its own that knows nothing of HTTP.
//
// Errors are RFC 9457 problems with Keyward's code and the request's id, made in one table (problem.go); nothing internal reaches a
// client.
package admin

import (
	"crypto/rand"
	"fmt"
	"log"
	"maps"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// Options are what the API works on.
type Options struct {
	DB     *store.DB
	Keeper *credential.Keeper
	Log    zerolog.Logger
	// UID is the sidecar's own user: beside root the only one that the socket lets in.
	UID uint32
	// AnyHost: other machines may reach the TCP listener, so that Host may be any name.
	AnyHost bool
	// Checks are what /readyz asks, in the order in which it shows them.
	Checks []Check
	// Providers are all that there are. Nil: provider.All.
	Providers provider.Set
	// Stats adds the running sidecar's own numbers to /api/stats, by section: "cache", "proxy". Nil: none.
	Stats func() map[string]any
	// Traffic is what went through the sidecar in the last seconds. Nil: it is not shown.
	Traffic func() Traffic
	// Verifier asks providers whether they honour a credential. Nil: nobody can.
	Verifier *credential.Verifier
	// Consents asks for orgs' consents. Nil: nobody can.
	Consents *credential.Consents
	// ConsentReturn is the page that browsers are sent to after a consent. Empty: they are told in words.
	ConsentReturn string
	// Assistants makes and removes Vapi assistants.
	Assistants Assistants
	// Local switches credentials off in this sidecar alone.
	Local Local
	// Webhooks is what the running sidecar says and does about webhooks.
	Webhooks Webhooks
	// Metrics answers /metrics, for which nobody is asked who he is: it holds no org and no secret. Nil: there is no such path.
	Metrics http.Handler
	// Profiles answers /debug/pprof/ on the unix socket, never over TCP. Nil: there is no such path.
	Profiles http.Handler
	// Version and Started are shown by /api/stats.
	Version string
	Started time.Time
}

// maxBody is the largest request body that is read.
const maxBody = 1 << 20

// An API is the http.Handler of the management API. Serve it with Server, which tells it who is at the other end.
type API struct {
	o        Options
	mux      *http.ServeMux
	guesses  *guesses
	document []byte       // as describe makes it
	console  http.Handler // nil: none
}

// A route is one row of the table that the API consists of.
type route struct {
	method, path string
	handle       handler
}

type handler func(*API, *call) error

// orgIntegrations is short, as ownIntegrations, for the org of an org-bound token.
const (
	orgIntegrations = "/api/orgs/{org}/integrations"
	ownIntegrations = "/api/integrations"
)

// routes is the whole API.
func routes() []route {
	const (
		org         = "/api/orgs/{org}"
		integration = orgIntegrations + "/{provider}"
		assistant   = "/api/assistants/{assistant}"
		agent       = org + "/agents/{role}"
		deliveries  = "/api/webhooks/deliveries"
	)
	all := []route{
		{"GET", "/healthz", (*API).healthz},
		{"GET", "/readyz", (*API).readyz},
		{"GET", "/metrics", (*API).metrics},
		{"GET", "/api/openapi.json", (*API).openAPI},
		{"GET", "/api/whoami", (*API).whoAmI},
		{"GET", "/api/providers", (*API).listProviders},
		{"GET", "/api/orgs", (*API).listOrgs},
		{"GET", orgIntegrations, (*API).listIntegrations},
		{"GET", integration, (*API).showIntegration},
		{"PUT", integration, (*API).putIntegration},
		{"PATCH", integration, (*API).patchIntegration},
		{"DELETE", integration, (*API).deleteIntegration},
		{"POST", integration + "/verify", (*API).verifyIntegration},
		{"GET", integration + "/connect", (*API).connectIntegration},
		{"GET", callbackPath, (*API).finishConsent},
		{"PUT", integration + "/next", (*API).stageIntegration},
		{"DELETE", integration + "/next", (*API).unstageIntegration},
		{"POST", integration + "/next/promote", (*API).promoteIntegration},
		{"GET", org + "/assistants", (*API).listOrgAssistants},
		{"GET", "/api/assistants", (*API).listAssistants},
		{"GET", assistant, (*API).showAssistant},
		{"PUT", assistant, (*API).putAssistant},
		{"DELETE", assistant, (*API).deleteAssistant},
		{"GET", org + "/agents", (*API).listAgents},
		{"GET", agent, (*API).showAgent},
		{"PUT", agent, (*API).putAgent},
		{"PATCH", agent, (*API).patchAgent},
		{"DELETE", agent, (*API).deleteAgent},
		{"POST", agent + "/ensure", (*API).ensureAssistant},
		{"GET", agent + "/assistant", (*API).showAgentsAssistant},
		{"DELETE", agent + "/assistant", (*API).deleteAgentsAssistant},
		{"GET", "/api/callers", (*API).listCallers},
		{"POST", "/api/callers", (*API).addCaller},
		{"DELETE", "/api/callers/{caller}", (*API).revokeCaller},
		{"GET", "/api/admin-tokens", (*API).listAdminTokens},
		{"POST", "/api/admin-tokens", (*API).addAdminToken},
		{"DELETE", "/api/admin-tokens/{token}", (*API).revokeAdminToken},
		{"GET", deliveries, (*API).listDeliveries},
		{"GET", deliveries + "/{delivery}", (*API).showDelivery},
		{"POST", deliveries + "/{delivery}/redeliver", (*API).redeliver},
		{"POST", integration + "/webhook-test", (*API).testWebhook},
		{"GET", "/api/local/disabled", (*API).listLocal},
		{"PUT", "/api/local/disabled/{org}/{provider}", (*API).disableLocally},
		{"DELETE", "/api/local/disabled/{org}/{provider}", (*API).enableLocally},
		{"GET", "/api/audit", (*API).listEvents},
		{"GET", "/api/stats", (*API).stats},
	}
	for _, r := range all {
		if rest, ok := strings.CutPrefix(r.path, orgIntegrations); ok {
			all = append(all, route{r.method, ownIntegrations + rest, r.handle})
		}
	}
	return all
}

// New makes the API.
func New(o Options) *API {
	o.Providers = o.Providers.Or()
	a := &API{o: o, mux: http.NewServeMux(), guesses: newGuesses(), document: describe(o.Providers)}
	ends := map[string]endpoint{"/": {a: a}} // whatever no route has
	all := routes()
	if o.Profiles != nil { // Go's own, for who debugs the program: no part of the API
		all = append(all, route{"GET", "/debug/pprof/{profile...}", (*API).profile})
	}
	for _, r := range all {
		e, ok := ends[r.path]
		if !ok {
			e = endpoint{a, r.path, map[string]handler{}}
			ends[r.path] = e
		}
		e.methods[r.method] = r.handle
	}
	for pattern, e := range ends {
		a.mux.Handle(pattern, e)
	}
	return a
}

// Server is an http.Server for the API's listeners, unix and TCP alike; the caller runs and closes it.
func (a *API) Server() *http.Server {
	return &http.Server{
		Handler:           a,
		ConnContext:       a.ConnContext,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(serverLog{a.o.Log}, "", 0),
	}
}

// A call is one request being answered.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	peer      *peer
	who       identity    // once admitted
	by        store.Actor // the same, for the audit log; before that, where it comes from
	id        string
	providers provider.Set
	body      []byte // as read, overwritten at the end
	wrote     int    // the answer's status, once it is written
}

// ServeHTTP answers one request. ServeMux would answer an unclean path with a redirect to what it makes of it; here there is no such path.
// It is the path as sent that counts, as for ServeMux: dots and slashes that are percent-encoded are part of a name.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { wiped(w, r, a.serve) }

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	if a.forConsole(r) {
		a.serveConsole(w, r)
		return
	}
	if p := r.URL.EscapedPath(); p == "" || p[0] != '/' || (p != "/" && path.Clean(p) != strings.TrimSuffix(p, "/")) {
		endpoint{a: a}.ServeHTTP(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// An endpoint is one path with its methods; without any it is the answer to unknown paths.
type endpoint struct {
	a       *API
	pattern string
	methods map[string]handler
}

// ServeHTTP answers one request and logs one line about it. Paths, queries and bodies are not logged, the pattern is.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := e.a.begin(w, r)
	defer func() {
		clear(c.body)
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // it is compared so by net/http too
				e.log(c, time.Since(start))
				panic(p) // an answer that cannot be finished is cut off
			}
			// The value may hold anything, so only its type and the stack are told.
			e.a.o.Log.Error().Str("request_id", c.id).Str("panic", fmt.Sprintf("%T", p)).Bytes("stack", debug.Stack()).Msg("admin request panicked")
			if c.wrote == 0 {
				c.problem(problemInternal)
			}
		}
		e.log(c, time.Since(start))
	}()
	if err := e.answer(c); err != nil {
		p := problemFor(err)
		if p.Status == http.StatusInternalServerError {
			e.a.o.Log.Error().Str("request_id", c.id).Err(err).Msg("admin request failed")
		}
		e.a.refused(c, e.pattern, p)
		c.problem(p)
	}
}

// begin is a call, with the headers that every answer has.
func (a *API) begin(w http.ResponseWriter, r *http.Request) *call {
	c := &call{w: w, r: r, id: rand.Text(), peer: peerOf(r.Context()), providers: a.o.Providers}
	w.Header().Set("Keyward-Request-Id", c.id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return c
}

func (e endpoint) answer(c *call) error {
	if err := e.a.admit(c, e.pattern); err != nil {
		return err
	}
	if e.methods == nil {
		return problemNoRoute
	}
	if err := c.permit(e.pattern); err != nil {
		return err
	}
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	handle, ok := e.methods[method]
	if !ok {
		c.w.Header().Set("Allow", e.allowed())
		return problemMethod
	}
	if method != http.MethodGet { // what a write depends on is in its body and headers
		if _, err := c.query(); err != nil {
			return err
		}
	}
	c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxBody)
	return handle(e.a, c)
}

func (e endpoint) allowed() string {
	names := slices.Collect(maps.Keys(e.methods))
	if e.methods[http.MethodGet] != nil {
		names = append(names, http.MethodHead)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (e endpoint) log(c *call, took time.Duration) {
	if isProbe(e.pattern) {
		return // they come every few seconds for ever
	}
	level := zerolog.InfoLevel
	if e.pattern == "/api/stats" && c.wrote == http.StatusOK {
		level = zerolog.DebugLevel // who watches asks every second
	}
	ev := e.a.o.Log.WithLevel(level).Str("request_id", c.id).Str("method", c.r.Method).Str("route", e.pattern).Int("status", c.wrote).
		Str("by", c.by.Name).Str("from", c.by.From).Dur("took", took)
	if org, err := c.org(); err == nil {
		ev.Str("org", org)
	}
	if code := c.w.Header().Get("Keyward-Error"); code != "" {
		ev.Str("code", code)
	}
	ev.Msg("admin")
}
