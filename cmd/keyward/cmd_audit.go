package main

import (
	"context"
	"encoding/json"
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

// cmdAudit prints the latest events, newest last. Following, it goes on from the last one until it is stopped; with --json every event
// is then one line, since a list that never ends is no JSON.
func cmdAudit(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	filter := url.Values{}
	for _, name := range []string{"org", "actor", "action"} {
		f.String(name, "", "only events of this `"+strings.ToUpper(name)+"`")
	}
	n := f.Int("limit", 100, "how many of the latest events")
	follow := f.BoolP("follow", "f", false, "go on printing what happens")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *n < 0 || *n > 1000 {
		return usagef("--limit must be from 0 to 1000")
	}
	for _, name := range []string{"org", "actor", "action"} {
		if v := f.Lookup(name).Value.String(); v != "" {
			filter.Set(name, v)
		}
	}

	var l listing
	last, err := s.events(ctx, filter, "tail", int64(*n), &l)
	if err != nil {
		return err
	}
	if *asJSON && !*follow {
		return printJSON(std.out, l)
	}
	for {
		if err := printEvents(std, l, *asJSON); err != nil || !*follow {
			return err
		}
		if l.NextCursor == "" {
			select {
			case <-ctx.Done():
				return nil // stopped by the one who looked
			case <-time.After(followPause):
			}
		}
		if last, err = s.events(ctx, filter, "cursor", last, &l); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
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
