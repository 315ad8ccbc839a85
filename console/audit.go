package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// An event is a row of the audit log.
type event struct {
	ID     int64
	At     *time.Time
	Actor  string
	From   string
	Action string
	Org    string
	Target string
	Result string
	Detail string
}

// Good says whether what was asked for was done.
func (e event) Good() bool { return e.Result == "ok" || e.Result == "" }

// An eventQuery is what the form of the audit page asks for.
type eventQuery struct{ Org, Actor, Action, Result, Until string }

func (q eventQuery) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"org": q.Org, "actor": q.Actor, "action": q.Action, "result": q.Result, "until": q.Until} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

// events are the last n that match, newest first.
func (v *visit) events(q eventQuery, n int) ([]event, error) {
	values := q.values()
	values.Set("tail", strconv.Itoa(n))
	var answer struct{ Items []event }
	if err := v.get(&answer, "/api/audit?"+values.Encode()); err != nil {
		return nil, err
	}
	slices.Reverse(answer.Items)
	return answer.Items, nil
}

const eventsShown = 100

type auditPage struct {
	Query  eventQuery
	Items  []event
	Older  string // the path of the page before
	Export string
}

func (c *Console) audit(v *visit) error {
	q := v.r.URL.Query()
	p := auditPage{Query: eventQuery{q.Get("org"), q.Get("actor"), q.Get("action"), q.Get("result"), q.Get("until")}}
	var err error
	if p.Items, err = v.events(p.Query, eventsShown); err != nil {
		return err
	}
	p.Export = "/audit.jsonl?" + p.Query.values().Encode()
	if n := len(p.Items); n == eventsShown {
		// Events of that very millisecond are shown once more rather than never.
		older := p.Query
		older.Until = p.Items[n-1].At.UTC().Add(time.Millisecond).Format("2006-01-02T15:04:05.000Z")
		if p.Items[0].At.Sub(*p.Items[n-1].At) > time.Millisecond {
			p.Older = "/audit?" + older.values().Encode()
		}
	}
	return v.show(http.StatusOK, "audit", page{Title: "Audit log", Nav: "audit", Data: p})
}

// exportAudit passes on the API's own export, as it comes.
func (c *Console) exportAudit(v *visit) error {
	q := v.r.URL.Query()
	values := eventQuery{q.Get("org"), q.Get("actor"), q.Get("action"), q.Get("result"), q.Get("until")}.values()
	values.Set("format", "jsonl")
	v.w.Header().Set("Content-Disposition", `attachment; filename="keyward-audit.jsonl"`)
	return v.send(v.w, ask{method: http.MethodGet, path: "/api/audit?" + values.Encode()})
}
