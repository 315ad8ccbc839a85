package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// followPause is how long --follow rests before it asks again.
const followPause = 300 * time.Millisecond

// An event is a row of the audit log as the admin API shows it.
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

// auditFilters are the flags that say which events, by the API's names.
var auditFilters = []string{"org", "actor", "action", "target", "result"}

// cmdAudit prints the latest events, newest last, or those since a time. Following, it goes on from the last one until it is stopped; with
// --json every event is then one line, since a list that never ends is no JSON.
func cmdAudit(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	for _, name := range auditFilters {
		f.String(name, "", "only events of this `"+strings.ToUpper(name)+"`")
	}
	since := f.String("since", "", "only events from this `TIME` on: 2026-01-31T12:00:00Z, 2026-01-31, or as long ago as 24h; with it there is no limit")
	until := f.String("until", "", "only events before this `TIME`")
	n := f.Int("limit", 100, "how many of the latest events")
	follow := f.BoolP("follow", "f", false, "go on printing what happens")
	export := f.Bool("export", false, "all that match, oldest first, as JSON lines")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *n < 0 || *n > 1000 {
		return usagef("--limit must be from 0 to 1000")
	}
	if *export && (*follow || f.Changed("limit")) {
		return usagef("--export prints what there is: it goes with neither --follow nor --limit")
	}
	filter := url.Values{}
	for _, name := range auditFilters {
		if v := f.Lookup(name).Value.String(); v != "" {
			filter.Set(name, v)
		}
	}
	for name, v := range map[string]string{"since": *since, "until": *until} {
		if v == "" {
			continue
		}
		at, err := moment(v, time.Now())
		if err != nil {
			return usagef("--%s %q: %w", name, v, err)
		}
		filter.Set(name, at.UTC().Format(time.RFC3339Nano))
	}
	if *export {
		filter.Set("format", "jsonl")
		return s.stream(ctx, "/api/audit?"+filter.Encode(), std.out)
	}

	how, from := "tail", int64(*n)
	if *since != "" && !f.Changed("limit") {
		how, from = "cursor", 0
	}
	l := listing{Items: []json.RawMessage{}}
	for {
		var page listing
		last, err := s.events(ctx, filter, how, from, &page)
		switch {
		case err != nil && ctx.Err() != nil && *follow:
			return nil // stopped by the one who looked
		case err != nil:
			return err
		}
		how, from = "cursor", last
		if *asJSON && !*follow {
			l.Items = append(l.Items, page.Items...)
		} else if err := printEvents(std, page, *asJSON); err != nil {
			return err
		}
		switch {
		case page.NextCursor != "":
		case !*follow && *asJSON:
			return printJSON(std.out, l)
		case !*follow:
			return nil
		default:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(followPause):
			}
		}
	}
}

// moment reads a time as people type it.
func moment(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, errors.New("must be a time as 2026-01-31T12:00:00Z or 2026-01-31, or how long ago, as 24h")
}

// events reads one page, the latest n ("tail") or those after an id ("cursor"), and returns the id to go on from.
func (s *sidecar) events(ctx context.Context, filter url.Values, how string, n int64, into *listing) (int64, error) {
	q := url.Values{how: {strconv.FormatInt(n, 10)}}
	for name, v := range filter {
		q[name] = v
	}
	page := struct {
		listing
		Last int64 `json:"last_id"`
	}{listing: listing{Items: []json.RawMessage{}}}
	if err := s.do(ctx, http.MethodGet, "/api/audit?"+q.Encode(), nil, &page); err != nil {
		return n, err
	}
	*into = page.listing
	return page.Last, nil
}

func printEvents(std stdio, l listing, asJSON bool) error {
	for _, raw := range l.Items {
		if asJSON {
			if _, err := fmt.Fprintf(std.out, "%s\n", raw); err != nil {
				return err
			}
			continue
		}
		var e event
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("reading the sidecar's answer: %w", err)
		}
		cells := []string{e.At.Local().Format("2006-01-02 15:04:05"), e.Action, e.Org, e.Target, e.Result, e.Actor, e.From, e.Detail}
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		// Fixed columns: a tabwriter would have to see the end, and a followed log has none.
		if _, err := fmt.Fprintf(std.out, "%s  %-20s  %-16s  %-18s  %-8s  %s, %s  %s\n",
			cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6], cells[7]); err != nil {
			return err
		}
	}
	return nil
}
