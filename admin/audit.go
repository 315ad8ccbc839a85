package admin

import (
	"net/http"
	"strconv"
	"time"

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

// listEvents lists the audit log, oldest first: from the beginning, or after the event that cursor names, or, with tail=N, its last N.
func (a *API) listEvents(c *call) error {
	q, err := c.query("limit", "cursor", "tail", "org", "actor", "action", "target")
	if err != nil {
		return err
	}
	f := store.EventFilter{Org: q.Get("org"), Actor: q.Get("actor"), Action: q.Get("action"), Target: q.Get("target")}
	if f.Limit, err = limit(q); err != nil {
		return err
	}
	if cursor := q.Get("cursor"); cursor != "" {
		if f.AfterID, err = strconv.ParseInt(cursor, 10, 64); err != nil || f.AfterID < 0 {
			return badField("cursor", "is not one that this listing gave")
		}
	}
	if q.Has("tail") {
		if f.Limit, err = strconv.Atoi(q.Get("tail")); err != nil || f.Limit < 0 || f.Limit > maxLimit || f.AfterID > 0 || q.Has("limit") {
			return badField("tail", "must be a number from 0 to "+strconv.Itoa(maxLimit)+", with neither limit nor cursor")
		}
		return a.tail(c, f)
	}
	events, err := a.o.DB.Events(c.r.Context(), f)
	if err != nil {
		return err
	}
	p := logPage{page{showEvents(events), ""}, f.AfterID}
	if n := len(events); n > 0 {
		p.Last = events[n-1].ID
		if n == f.Limit {
			p.NextCursor = strconv.FormatInt(p.Last, 10)
		}
	}
	return c.json(http.StatusOK, p)
}

// tail answers with the last events. Where to go on is read first, and unfiltered, so that following a rare action does not begin at
// the log's start; events that come in between either match and are shown here, or come after it.
func (a *API) tail(c *call, f store.EventFilter) error {
	last, err := a.o.DB.Events(c.r.Context(), store.EventFilter{Newest: true, Limit: 1})
	if err != nil {
		return err
	}
	p := logPage{page{Items: []event{}}, 0}
	for _, e := range last {
		p.Last = e.ID
	}
	if f.Limit > 0 {
		f.Newest = true
		events, err := a.o.DB.Events(c.r.Context(), f)
		if err != nil {
			return err
		}
		for _, e := range events {
			p.Last = max(p.Last, e.ID)
		}
		p.Items = showEvents(events)
	}
	return c.json(http.StatusOK, p)
}

func showEvents(events []store.Event) []event {
	items := make([]event, len(events))
	for i, e := range events {
		items[i] = event{e.ID, e.At.UTC(), e.Actor.Name, e.Actor.From, e.Action, e.Org, e.Target, e.Result, e.Detail}
	}
	return items
}
