package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// An event is a row of the audit log, as it is shown.
type event struct {
	ID     int64     `json:"id"`
	At     time.Time `json:"at"`
	Actor  string    `json:"actor"`
	From   string    `json:"from"`
	Action string    `json:"action"`
	Org    string    `json:"org"`
	Target string    `json:"target"`
	Result string    `json:"result"`
	Detail string    `json:"detail"`
}

// A logPage is a page of events. Last is the cursor to go on from, whether or not there is more by now: who follows the log sends it with
// the next request.
type logPage struct {
	page
	Last int64 `json:"last_id"`
}

// listEvents lists the audit log, oldest first: from the beginning, or after the event that cursor names, or, with tail=N, its last N. As
// JSON lines it is all that match, without pages.
func (a *API) listEvents(c *call) error {
	q, err := c.query("limit", "cursor", "tail", "org", "actor", "action", "target", "result", "since", "until", "format")
	if err != nil {
		return err
	}
	f, err := eventFilter(q, c.who)
	if err != nil {
		return err
	}
	lines, err := asLines(c.r, q)
	if err != nil {
		return err
	}
	switch {
	case q.Has("tail"):
		p, err := a.lastEvents(c.r.Context(), c.who, f)
		if err != nil {
			return err
		}
		if lines {
			return c.lines(p.Items.([]event))
		}
		return c.json(http.StatusOK, p)
	case lines:
		return a.exportEvents(c, f, q.Has("limit"))
	}
	p, err := a.events(c.r.Context(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, p)
}

// eventFilter reads which events somebody wants, and who it is decides which of them there are.
func eventFilter(q url.Values, who identity) (f store.EventFilter, err error) {
	f = store.EventFilter{Org: q.Get("org"), Actor: q.Get("actor"), Action: q.Get("action"), Target: q.Get("target"), Result: q.Get("result")}
	if who.org != "" {
		if f.Org != "" && f.Org != who.org {
			return f, problemNoSuchOrg
		}
		f.Org = who.org
	}
	if f.Limit, err = limit(q); err != nil {
		return f, err
	}
	if cursor := q.Get("cursor"); cursor != "" {
		if f.AfterID, err = strconv.ParseInt(cursor, 10, 64); err != nil || f.AfterID < 0 {
			return f, badField("cursor", "is not one that this listing gave")
		}
	}
	if q.Has("tail") {
		if f.Limit, err = strconv.Atoi(q.Get("tail")); err != nil || f.Limit < 0 || f.Limit > maxLimit || f.AfterID > 0 || q.Has("limit") {
			return f, badField("tail", "must be a number from 0 to "+strconv.Itoa(maxLimit)+", with neither limit nor cursor")
		}
	}
	for name, into := range map[string]*time.Time{"since": &f.Since, "until": &f.Until} {
		if q.Has(name) {
			if *into, err = time.Parse(time.RFC3339Nano, q.Get(name)); err != nil || into.Year() < 1970 {
				return f, badField(name, "must be a time as 2026-01-31T12:00:00Z")
			}
		}
	}
	return f, nil
}

// asLines says whether JSON lines are asked for: by format=jsonl or by Accept.
func asLines(r *http.Request, q url.Values) (bool, error) {
	switch format := q.Get("format"); {
	case format == "jsonl":
		return true, nil
	case format == "json":
		return false, nil
	case q.Has("format"):
		return false, badField("format", "must be json or jsonl")
	}
	for accepted := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		kind, _, _ := strings.Cut(accepted, ";")
		if slices.Contains([]string{"application/x-ndjson", "application/jsonl"}, strings.ToLower(strings.TrimSpace(kind))) {
			return true, nil
		}
	}
	return false, nil
}

// events is one page.
func (a *API) events(ctx context.Context, f store.EventFilter) (logPage, error) {
	events, err := a.o.DB.Events(ctx, f)
	if err != nil {
		return logPage{}, err
	}
	p := logPage{page{showEvents(events), ""}, f.AfterID}
	if n := len(events); n > 0 {
		p.Last = events[n-1].ID
		if n == f.Limit {
			p.NextCursor = strconv.FormatInt(p.Last, 10)
		}
	}
	return p, nil
}

// lastEvents are the last events. Where to go on is read first, and with no filter but the org of who asks, so that following a rare
// action does not begin at the log's start; events that come in between either match and are shown here, or come after it.
func (a *API) lastEvents(ctx context.Context, who identity, f store.EventFilter) (logPage, error) {
	last, err := a.o.DB.Events(ctx, store.EventFilter{Org: who.org, Newest: true, Limit: 1})
	if err != nil {
		return logPage{}, err
	}
	p := logPage{page{Items: []event{}}, 0}
	for _, e := range last {
		p.Last = e.ID
	}
	if f.Limit > 0 {
		f.Newest = true
		events, err := a.o.DB.Events(ctx, f)
		if err != nil {
			return logPage{}, err
		}
		for _, e := range events {
			p.Last = max(p.Last, e.ID)
		}
		p.Items = showEvents(events)
	}
	return p, nil
}

func showEvents(events []store.Event) []event {
	items := make([]event, len(events))
	for i, e := range events {
		items[i] = event{e.ID, e.At.UTC(), e.Actor.Name, e.Actor.From, e.Action, e.Org, e.Target, e.Result, e.Detail}
	}
	return items
}

// exportPace is how long a reader may take for a thousand events before it is given up.
const exportPace = time.Minute

// exportEvents writes all events that match, or as many as the limit says, as they come out of the store. One that cannot be finished is
// cut off: a log that only looks whole is worse than none.
func (a *API) exportEvents(c *call, f store.EventFilter, limited bool) error {
	ctx := c.r.Context()
	left := f.Limit
	if err := a.o.DB.AddEvent(ctx, store.Event{Actor: c.by, Action: "audit.export", Org: f.Org, Result: "ok"}); err != nil {
		return err
	}
	control := http.NewResponseController(c.w)
	for begun := false; ; begun = true {
		f.Limit = maxLimit
		if limited {
			f.Limit = min(f.Limit, left)
		}
		events, err := a.o.DB.Events(ctx, f)
		if err == nil {
			_ = control.SetWriteDeadline(time.Now().Add(exportPace)) // not every ResponseWriter has one
			err = c.lines(showEvents(events))
		}
		switch {
		case err != nil && !begun && c.wrote == 0:
			return err
		case err != nil:
			a.o.Log.Warn().Str("request_id", c.id).Err(err).Msg("the export of the audit log was cut off")
			panic(http.ErrAbortHandler)
		}
		if left -= len(events); len(events) < f.Limit || limited && left == 0 {
			return nil
		}
		f.AfterID = events[len(events)-1].ID
	}
}

// lines writes events as JSON lines.
func (c *call) lines(events []event) error {
	if c.wrote == 0 {
		c.w.Header().Set("Content-Type", "application/x-ndjson")
		c.status(http.StatusOK)
	}
	w := bufio.NewWriterSize(c.w, 32<<10)
	enc := json.NewEncoder(w)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return w.Flush()
}

// actions name in the audit log what a request asks for: the same words as in the store, which records what was done.
var actions = map[string]string{
	"GET /api/orgs/{org}/integrations":                          "credential.list",
	"GET /api/orgs/{org}/integrations/{provider}":               "credential.show",
	"PUT /api/orgs/{org}/integrations/{provider}":               "credential.put",
	"PATCH /api/orgs/{org}/integrations/{provider}":             "credential.put",
	"DELETE /api/orgs/{org}/integrations/{provider}":            "credential.delete",
	"POST /api/orgs/{org}/integrations/{provider}/verify":       "credential.verify",
	"GET /api/orgs/{org}/integrations/{provider}/connect":       "credential.consent",
	"PUT /api/orgs/{org}/integrations/{provider}/next":          "credential.put",
	"DELETE /api/orgs/{org}/integrations/{provider}/next":       "credential.put",
	"POST /api/orgs/{org}/integrations/{provider}/next/promote": "credential.put",
	"POST /api/orgs/{org}/integrations/{provider}/webhook-test": "webhook.test",
	"PUT /api/local/disabled/{org}/{provider}":                  "credential.disable-local",
	"DELETE /api/local/disabled/{org}/{provider}":               "credential.enable-local",
	"PUT /api/assistants/{assistant}":                           "assistant.put",
	"DELETE /api/assistants/{assistant}":                        "assistant.delete",
	"PUT /api/orgs/{org}/agents/{role}":                         "agent.put",
	"PATCH /api/orgs/{org}/agents/{role}":                       "agent.put",
	"POST /api/orgs/{org}/agents/{role}/ensure":                 "assistant.put",
	"DELETE /api/orgs/{org}/agents/{role}/assistant":            "assistant.delete",
	"DELETE /api/orgs/{org}/agents/{role}":                      "agent.delete",
	"POST /api/callers":                                         "caller.add",
	"DELETE /api/callers/{caller}":                              "caller.revoke",
	"POST /api/admin-tokens":                                    "admin-token.add",
	"DELETE /api/admin-tokens/{token}":                          "admin-token.revoke",
	"POST /api/webhooks/deliveries/{delivery}/redeliver":        "webhook.redeliver",
}

// refused records that a write was refused, and that a token reached beyond its org. Nothing else in the store says so. What the path
// names is recorded where it is a name that we gave or know: anything else may be a secret in the wrong place.
func (a *API) refused(c *call, pattern string, p *Problem) {
	outside := p == problemNoSuchOrg || p == problemOperators
	write := c.r.Method != http.MethodGet && c.r.Method != http.MethodHead
	if c.who.Name == "" || pattern == "" || !write && !outside || p.Status == http.StatusMethodNotAllowed || p.Status == http.StatusServiceUnavailable {
		return
	}
	if rest, ok := strings.CutPrefix(pattern, ownIntegrations); ok {
		pattern = orgIntegrations + rest
	}
	e := store.Event{Actor: c.by, Action: actions[c.r.Method+" "+pattern], Target: c.target(), Result: p.Code}
	if e.Action == "" {
		e.Action = "request"
	}
	if e.Target == "" && !outside { // it would tell the token's org what there is in the other
		e.Target = a.storedTarget(c)
	}
	if e.Org, _ = c.org(); outside {
		if store.IsOrg(c.r.PathValue("org")) {
			e.Detail = "reached for org " + c.r.PathValue("org")
		}
		e.Org = c.who.org
	}
	if err := a.o.DB.AddEvent(context.WithoutCancel(c.r.Context()), e); err != nil {
		a.o.Log.Error().Str("request_id", c.id).Err(err).Msg("recording a refusal in the audit log did not succeed")
	}
}

// storedTarget is the provider that a path names if the configuration has lost it and the org has a row of it.
func (a *API) storedTarget(c *call) string {
	org, err := c.org()
	name := c.r.PathValue("provider")
	if err != nil || !provider.IsCustomName(name) {
		return ""
	}
	if _, _, err := a.o.DB.Credential(context.WithoutCancel(c.r.Context()), store.Ref{Org: org, Provider: name}); err != nil {
		return ""
	}
	return name
}

var ownID = regexp.MustCompile(`^(ct|at)_[a-z2-7]{16}$|^wd_[A-Za-z0-9]{1,40}$`)

// target is what a path names besides the org.
func (c *call) target() string {
	r := c.r
	switch p, role := c.providers.Named(r.PathValue("provider")), r.PathValue("role"); {
	case p != nil:
		return p.Name
	case role == store.Inbound, role == store.Outbound:
		return role
	case isAssistantID(r.PathValue("assistant")):
		return r.PathValue("assistant")
	}
	for _, name := range []string{"caller", "token", "delivery"} {
		if id := r.PathValue(name); ownID.MatchString(id) {
			return id
		}
	}
	return ""
}
