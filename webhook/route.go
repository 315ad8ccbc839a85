package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
)

// The modes of a route.
const (
	Durable = "durable" // acknowledged once stored, delivered with retries
	Sync    = "sync"    // the app's answer goes back
)

// A Route says where verified deliveries go. Provider and Org are empty for any; the most specific route wins: provider and org, then
// the org, then the provider, then neither; of two alike the first.
type Route struct {
	Provider, Org string
	Target        string // http://HOST:PORT/PATH or unix:SOCKET:/PATH
	Mode          string // Durable, Sync; empty: as the message needs it
	Redact        bool   // the tenant's secrets in the body are overwritten, before it is stored too
}

// routes are a configuration's. They are never changed once they are in force.
type routes struct{ all []parsedRoute }

type parsedRoute struct {
	Route
	to target
}

func newRoutes(all []Route) (*routes, error) {
	r := &routes{}
	for i, route := range all {
		to, err := parseTarget(route.Target)
		if err != nil {
			return nil, fmt.Errorf("webhook route %d: %w", i, err)
		}
		if route.Mode != "" && route.Mode != Durable && route.Mode != Sync {
			return nil, fmt.Errorf("webhook route %d: mode must be %s or %s", i, Durable, Sync)
		}
		r.all = append(r.all, parsedRoute{route, to})
	}
	return r, nil
}

// find is the most specific route, or nil.
func (r *routes) find(provider, org string) *parsedRoute {
	var best *parsedRoute
	most := -1
	for i := range r.all {
		route := &r.all[i]
		if route.Provider != "" && route.Provider != provider || route.Org != "" && route.Org != org {
			continue
		}
		n := 0
		if route.Org != "" {
			n += 2
		}
		if route.Provider != "" {
			n++
		}
		if n > most {
			best, most = route, n
		}
	}
	return best
}

// A target is where an app takes deliveries.
type target struct {
	network, address string // to dial
	scheme, host     string // of its URLs
	name             string // of its certificate
	path, query      string
}

// parseTarget reads http://HOST:PORT/PATH and unix:SOCKET:/PATH. Its errors do not quote the target, which may hold a password.
func parseTarget(s string) (target, error) {
	if _, query, _ := strings.Cut(s, "?"); !isTarget(query) {
		return target{}, errors.New("the target's query has a space or a control character: write it as %20, for instance")
	}
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		socket, path, ok := strings.Cut(rest, ":")
		if !ok || socket == "" || !strings.HasPrefix(path, "/") {
			return target{}, errors.New("the target must be unix:/SOCKET:/PATH")
		}
		path, query, _ := strings.Cut(path, "?")
		return target{network: "unix", address: socket, scheme: "http", host: "localhost", path: escaped(path), query: query}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return target{}, errors.New("the target must be a URL, as http://127.0.0.1:3000/hooks, or unix:/run/app.sock:/hooks")
	}
	t := target{network: "tcp", scheme: u.Scheme, host: u.Host, name: u.Hostname(), path: u.EscapedPath(), query: u.RawQuery}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	if t.path == "" {
		t.path = "/"
	}
	return t, nil
}

// escaped is a path as it may stand in a request.
func escaped(path string) string {
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path
	}
	return (&url.URL{Path: plain, RawPath: path}).EscapedPath()
}

// A way asks an app.
type way interface {
	ask(ctx context.Context, q *question) (*appAnswer, error)
	close()
}

// targets hold the ways to the apps.
type targets struct {
	mu  sync.Mutex
	all map[place]way
}

type place struct{ scheme, network, address string }

func newTargets() *targets { return &targets{all: map[place]way{}} }

func (t *targets) to(at target) way {
	key := place{at.scheme, at.network, at.address}
	t.mu.Lock()
	defer t.mu.Unlock()
	have := t.all[key]
	if have == nil {
		l := &lane{network: at.network, address: at.address}
		if at.scheme == "https" {
			l.tls = &tls.Config{ServerName: at.name}
		}
		have = l
		t.all[key] = have
	}
	return have
}

func (t *targets) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.all {
		w.close()
	}
}
