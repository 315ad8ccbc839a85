package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A Check is one thing that must be well for the sidecar to be ready: the store, the keys, a listener.
type Check struct {
	Name string
	// Run says what is wrong. It may be called often and at once, and must end with ctx.
	Run func(ctx context.Context) error
	// Degrades: failing, it makes the sidecar "degraded" and not unready, because orgs that are warm are still served.
	Degrades bool
	// Note says more about one that is well, on the admin socket. It may be nil.
	Note func() string
}

// checkTimeout bounds all checks of one answer together.
const checkTimeout = 2 * time.Second

// isProbe says whether a path is asked for by machines that have no token.
func isProbe(pattern string) bool {
	return pattern == "/healthz" || pattern == "/readyz" || pattern == "/metrics"
}

// metrics are the running sidecar's numbers, in Prometheus's text format or OpenMetrics'.
func (a *API) metrics(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	if a.o.Metrics == nil {
		return problemNoRoute
	}
	c.wrote = http.StatusOK
	a.o.Metrics.ServeHTTP(c.w, c.r)
	return nil
}

// healthz says that the process is alive; nothing else is looked at, or a store that is away would have the sidecar killed.
func (a *API) healthz(c *call) error {
	c.text(http.StatusOK, "ok\n")
	return nil
}

// readyz is "ok" or "degraded" (200) or "not ready" (503); with ?verbose, one line per check as Kubernetes' own components write it.
// Why a check fails is for the admin socket only.
func (a *API) readyz(c *call) error {
	q, err := c.query("verbose")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), checkTimeout)
	defer cancel()
	errs := a.runChecks(ctx)

	state, code := "ok", http.StatusOK
	var lines strings.Builder
	for i, ck := range a.o.Checks {
		switch {
		case errs[i] == nil && ck.Note != nil && c.peer.unix:
			fmt.Fprintf(&lines, "[+]%s ok: %s\n", ck.Name, ck.Note())
			continue
		case errs[i] == nil:
			fmt.Fprintf(&lines, "[+]%s ok\n", ck.Name)
			continue
		case ck.Degrades && code == http.StatusOK:
			state = "degraded"
		case !ck.Degrades:
			state, code = "not ready", http.StatusServiceUnavailable
		}
		sign := "[-]"
		if ck.Degrades {
			sign = "[!]"
		}
		reason := "failed"
		if c.peer.unix {
			reason += ": " + errs[i].Error()
		}
		fmt.Fprintf(&lines, "%s%s %s\n", sign, ck.Name, reason)
	}
	if !q.Has("verbose") {
		lines.Reset()
	}
	if code != http.StatusOK {
		c.w.Header().Set("Retry-After", "1")
	}
	c.text(code, lines.String()+state+"\n")
	return nil
}

// runChecks runs them side by side; one that does not end in time has failed, and is left to end with ctx.
func (a *API) runChecks(ctx context.Context) []error {
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(a.o.Checks))
	errs := make([]error, len(a.o.Checks))
	for i, ck := range a.o.Checks {
		errs[i] = errors.New("no answer in time")
		go func() { results <- result{i, ck.Run(ctx)} }()
	}
	for range a.o.Checks {
		select {
		case r := <-results:
			errs[r.i] = r.err
		case <-ctx.Done():
			return errs
		}
	}
	return errs
}

func (c *call) text(code int, body string) {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	c.status(code)
	_, _ = c.w.Write([]byte(body)) // the client is gone: nobody to tell
}
