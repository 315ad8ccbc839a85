package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyward/keyward/legacy"
)

// An importReport is what one pass has found and done.
type importReport struct {
	Applied  bool             `json:"applied"`
	Rows     int              `json:"rows"`
	Orgs     int              `json:"orgs"`
	Counts   map[string]int   `json:"counts"`  // by action
	Foreign  map[string]int   `json:"foreign"` // providers that are none of Keyward's → rows
	Missing  []string         `json:"missing_tables"`
	Problems []legacy.Problem `json:"problems"` // of rows whose org is not known
	Seconds  float64          `json:"seconds"`

	Items []*legacy.Item `json:"items"`
	Next  string         `json:"next_cursor"`
}

// print says what was found: all of it as JSON, for people what is not the same on both sides.
func (i *importing) print(r *importReport) error {
	if i.asJSON {
		if err := printJSON(i.std.out, r); err != nil {
			return err
		}
		return r.err()
	}
	l := listing{Items: []json.RawMessage{}}
	for _, item := range r.Items {
		if item.Action == legacy.Same && len(item.Notes) == 0 {
			continue
		}
		raw, err := json.Marshal(item)
		if err != nil {
			return fmt.Errorf("encoding the report: %w", err)
		}
		l.Items = append(l.Items, raw)
	}
	if len(l.Items) > 0 {
		err := printTable(i.std, l, "", "ORG WHAT ACTION FIELDS WHY", func(item legacy.Item) []string {
			return []string{item.Org, what(&item), item.Action, strings.Join(item.Fields, ","), why(&item)}
		})
		if err != nil {
			return err
		}
	}
	for _, p := range r.Problems {
		fmt.Fprintf(i.std.out, "left out: %s\n", printable(p.String()))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Foreign)) {
		fmt.Fprintf(i.std.out, "left out: %d rows of %s, which is none of Keyward's providers\n", r.Foreign[name], printable(name))
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(i.std.err, "tables that are not there: %s\n", strings.Join(r.Missing, ", "))
	}
	var counts []string
	for _, action := range []string{legacy.Create, legacy.Update, legacy.Delete, legacy.Same, legacy.Kept, legacy.Gone, legacy.Incomplete, legacy.Broken} {
		if n := r.Counts[action]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s %d", action, n))
		}
	}
	if len(counts) == 0 {
		counts = []string{"nothing to carry over"}
	}
	if _, err := fmt.Fprintf(i.std.out, "%d rows of %d orgs in %.1f s: %s\n", r.Rows, r.Orgs, r.Seconds, strings.Join(counts, ", ")); err != nil {
		return err
	}
	if i.empty != nil {
		fmt.Fprintf(i.std.err, "compared with an empty store: %v\n", i.empty)
	}
	if !r.Applied {
		fmt.Fprintln(i.std.err, "Nothing was written. --apply does it.")
	}
	return r.err()
}

// err is one as long as something cannot be carried over: a script must not take that for done.
func (r *importReport) err() error {
	n := r.Counts[legacy.Broken] + len(r.Problems)
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d could not be carried over, and are named above; all others are not concerned", n)
}

func what(item *legacy.Item) string {
	if item.Assistant != "" {
		return "assistant " + item.Assistant
	}
	return item.Provider
}

func why(item *legacy.Item) string {
	var all []string
	for _, p := range item.Problems {
		all = append(all, p.String())
	}
	return strings.Join(append(all, item.Notes...), "; ")
}

// tell says what this pass has done or found that the one before had not.
func (i *importing) tell(r *importReport) error {
	for _, item := range r.Items {
		line := item.Action + " " + why(item)
		key := item.Org + " " + what(item)
		done := slices.Contains([]string{legacy.Create, legacy.Update, legacy.Delete}, item.Action)
		if !done && (i.said[key] == line || item.Action == legacy.Same || item.Action == legacy.Incomplete) {
			if item.Action == legacy.Same {
				delete(i.said, key)
			}
			continue
		}
		i.said[key] = line
		if i.asJSON {
			b, err := json.Marshal(item)
			if err != nil {
				return fmt.Errorf("encoding the report: %w", err)
			}
			if _, err := fmt.Fprintf(i.std.out, "%s\n", b); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(i.std.out, "%s %s: %s\n", printable(item.Org), printable(what(item)), strings.TrimSpace(printable(line))); err != nil {
			return err
		}
	}
	return nil
}
