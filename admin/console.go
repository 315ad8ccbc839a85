package admin

import (
	"net/http"
	"strings"
)

// Mount has h, the console, answer what browsers ask over TCP beside the API's own paths. It is called before the API serves.
//
// The console is one more client of the API: it asks it through Inside, on the browser's connection and with the token of the person who
// is logged in, so that checks, masks and the audit log are the same for both.
func (a *API) Mount(h http.Handler) { a.console = h }

// Inside is the API for the console: the same answers to the same requests. Only the memory of the connection is left alone, which is
// overwritten when the browser's own request ends.
func (a *API) Inside() http.Handler { return http.HandlerFunc(a.serve) }

// forConsole says whether the console answers a request. On the socket there is none: no browser speaks to it.
func (a *API) forConsole(r *http.Request) bool {
	p := peerOf(r.Context())
	if a.console == nil || p == nil || p.unix {
		return false
	}
	switch path := r.URL.Path; path {
	case "", "/healthz", "/readyz", "/metrics", "/api":
		return false
	default:
		return path[0] == '/' && !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, "/debug/")
	}
}

// serveConsole lets the console answer what is no attack by another web page. Unlike the API, it may be linked to from elsewhere: a
// person who follows a link brings no session along (the cookie is SameSite=Strict), and nothing is changed by a GET.
func (a *API) serveConsole(w http.ResponseWriter, r *http.Request) {
	err := a.fromBrowser(r)
	if problemFor(err) == problemBrowser && isVisit(r) {
		err = nil
	}
	if err != nil {
		a.begin(w, r).problem(problemFor(err))
		return
	}
	a.console.ServeHTTP(w, r)
}

// isVisit says whether the browser opens the page as a whole, in a tab or window of its own, as it does for a link.
func isVisit(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Origin") == "" &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}
