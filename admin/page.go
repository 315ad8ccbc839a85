package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// A page is how every listing looks.
type page struct {
	Items      any    `json:"items"` // never null
	NextCursor string `json:"next_cursor"`
}

// query reads the parameters, of which only those named are allowed: a misspelt filter must not list everything.
func (c *call) query(allowed ...string) (url.Values, error) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query is malformed")
	}
	for name, values := range q {
		switch {
		case !slices.Contains(allowed, name):
			return nil, badField(name, "is not a parameter here")
		case len(values) > 1:
			return nil, badField(name, "stands twice")
		}
	}
	return q, nil
}

// limit reads the page size.
func limit(q url.Values) (int, error) {
	if !q.Has("limit") {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 {
		return 0, badField("limit", "must be a number from 1 to "+strconv.Itoa(maxLimit))
	}
	return min(n, maxLimit), nil
}

// paged reads limit and cursor, and refuses other parameters.
func (c *call) paged() (after string, n int, err error) {
	q, err := c.query("limit", "cursor")
	if err != nil {
		return "", 0, err
	}
	n, err = limit(q)
	return q.Get("cursor"), n, err
}

const malformedOrg = "is malformed: a letter or digit, then up to 63 letters, digits or . _ -"

// org is the org of the path, or where the path names none that of the token.
func (c *call) org() (string, error) {
	org := c.r.PathValue("org")
	if org == "" {
		if org = c.who.org; org == "" {
			return "", problemOrgRequired
		}
	}
	if !store.IsOrg(org) {
		return "", badField("org", malformedOrg)
	}
	return org, nil
}

// ref is the org and the provider of the path.
func (c *call) ref() (store.Ref, *provider.Provider, error) {
	org, err := c.org()
	if err != nil {
		return store.Ref{}, nil, err
	}
	p := c.providers.Named(c.r.PathValue("provider"))
	if p == nil {
		return store.Ref{}, nil, problemUnknownProvider
	}
	return store.Ref{Org: org, Provider: p.Name}, p, nil
}

// storedRef is ref for what needs no provider but only its row: the configuration may have lost the provider since. There being none
// is problemUnknownProvider, as for any other name.
func (c *call) storedRef(db *store.DB) (store.Ref, error) {
	ref, _, err := c.ref()
	if !errors.Is(err, problemUnknownProvider) {
		return ref, err
	}
	org, err := c.org()
	name := c.r.PathValue("provider")
	if err != nil || !provider.IsCustomName(name) {
		return store.Ref{}, cmp.Or(err, error(problemUnknownProvider))
	}
	ref = store.Ref{Org: org, Provider: name}
	if _, _, err := db.Credential(c.r.Context(), ref); errors.Is(err, store.ErrNotFound) {
		return store.Ref{}, problemUnknownProvider
	} else if err != nil {
		return store.Ref{}, err
	}
	return ref, nil
}

// ifVersion reads the precondition of a write: the version that If-Match names, 0 for If-None-Match: *, nil for none.
func (c *call) ifVersion() (*int64, error) {
	match, none := c.r.Header.Values("If-Match"), c.r.Header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return nil, nil
	case len(match) == 0 && len(none) == 1 && strings.TrimSpace(none[0]) == "*":
		return new(int64), nil
	case len(match) == 1 && len(none) == 0:
		tag := strings.TrimSpace(match[0])
		v, err := strconv.ParseInt(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`), 10, 64)
		if err == nil && v > 0 {
			return &v, nil
		}
	}
	return nil, badRequest(`send one If-Match with the version as it came in ETag, like "3", or If-None-Match: *`)
}

// expected is the precondition of a deletion, as ifVersion has it and as the store takes it, where 0 is none.
func (c *call) expected() (ifVersion *int64, expect int64, err error) {
	ifVersion, err = c.ifVersion()
	switch {
	case err != nil || ifVersion == nil:
		return nil, 0, err
	case *ifVersion == 0:
		return nil, 0, badRequest("If-None-Match makes no sense for a deletion")
	}
	return ifVersion, *ifVersion, nil
}

// onlyVersion is the version of what never changes as long as it is there: tokens.
const onlyVersion = 1

// ifOnlyVersion checks the precondition of deleting such a thing.
func (c *call) ifOnlyVersion() error {
	if _, expect, err := c.expected(); err != nil || expect > onlyVersion {
		return cmp.Or(err, error(problemStale))
	}
	return nil
}

// stale turns a lost race into the answer that a precondition asks for.
func stale(err error, ifVersion *int64) error {
	if ifVersion != nil && problemFor(err) == problemBusy {
		return problemStale
	}
	return err
}

func (c *call) etag(version int64) { c.w.Header().Set("ETag", `"`+strconv.FormatInt(version, 10)+`"`) }

func (c *call) status(code int) {
	c.wrote = code
	c.w.WriteHeader(code)
}

// json writes v as the answer.
func (c *call) json(code int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.status(code)
	_, _ = c.w.Write(append(b, '\n')) // the client is gone: nobody to tell
	return nil
}

// moment is a time in an answer: null when there was none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
