package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/keyward/keyward/admin"
)

// A sidecar is the running one that a management command talks to.
type sidecar struct {
	connection
	client *admin.Client
}

// reach adds the flags that find the sidecar; the client is there once the flags are parsed.
func reach(f *flags) *sidecar {
	s := &sidecar{}
	f.bind(&s.connection)
	return s
}

// do asks the sidecar. Out may be nil.
func (s *sidecar) do(ctx context.Context, method, path string, body, out any) error {
	s.connect()
	return explainReach(s.client.Do(ctx, method, path, body, out), s.socket())
}

// stream copies what the sidecar answers.
func (s *sidecar) stream(ctx context.Context, path string, out io.Writer) error {
	s.connect()
	return explainReach(s.client.Stream(ctx, path, out), s.socket())
}

// connect makes the client, once the flags are parsed. Nothing is dialled yet.
func (s *sidecar) connect() {
	if s.client == nil {
		s.client = admin.NewClient(s.socket())
	}
}

// explainReach says what to do when nobody answers.
func explainReach(err error, socket string) error {
	switch {
	case !errors.Is(err, admin.ErrUnreachable):
		return err
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("no sidecar at %s: start one with keyward serve, or name its folder with --run-dir", socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no sidecar answers at %s: the socket is there, but the process that made it is gone", socket)
	case errors.Is(err, syscall.EACCES):
		return refused{fmt.Errorf("no permission for %s: be root or the sidecar's own user", socket)}
	case errors.Is(err, syscall.EINVAL):
		return usagef("%s is too long for the path of a socket (107 bytes)", socket)
	}
	return err
}

// A listing is what every listing is printed as with --json.
type listing struct {
	Items      []json.RawMessage `json:"items"`
	NextCursor string            `json:"next_cursor"`
}

// list reads every page.
func (s *sidecar) list(ctx context.Context, path string) (listing, error) {
	all := listing{Items: []json.RawMessage{}}
	for cursor := ""; ; {
		var page listing
		if err := s.do(ctx, http.MethodGet, path+"?limit=1000&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return all, err
		}
		all.Items = append(all.Items, page.Items...)
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// segment is text as one segment of a path. A lone "." or ".." would lead elsewhere.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// printJSON prints v for programs, indented for the people who look anyway.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable prints one line per item, its cells made by row; head names the columns. An empty table is a word on stderr, so that
// stdout stays empty.
func printTable[T any](std stdio, l listing, nothing, head string, row func(T) []string) error {
	if len(l.Items) == 0 {
		fmt.Fprintln(std.err, nothing)
		return nil
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(head, " ", "\t"))
	for _, raw := range l.Items {
		var item T
		if err := json.Unmarshal(raw, &item); err != nil {
			return fmt.Errorf("reading the sidecar's answer: %w", err)
		}
		cells := row(item)
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// printable keeps what others stored from moving the cursor of whoever looks at it; an empty cell is a dash.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// ago is a time in a table: the local one, to the second.
func ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// required says which flags are missing, all at once.
func required(f *flags, names ...string) error {
	var p problems
	for _, name := range names {
		if f.Lookup(name).Value.String() == "" || f.Lookup(name).Value.String() == "[]" {
			p.addf("--%s is missing; see keyward %s --help", name, f.command)
		}
	}
	return p.err()
}
